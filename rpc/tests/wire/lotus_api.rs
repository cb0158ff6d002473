//! Every method that workers call on a Lotus miner, and of those that its command line calls all that need no full node:
//! each is called as Go writes it and its answer has Go's shape.

use rpc::Permission;
use serde_json::{Value, json};

use crate::fakes::ManagerHost;
use crate::framing::post;
use crate::sample;

/// A method, its parameters, and an answer of the right shape: names and kinds of values, not the values themselves.
type Row = (&'static str, Value, Value);

fn sector() -> Value {
    json!({"Miner": 1000, "Number": 42})
}

fn call() -> Value {
    json!({"Sector": sector(), "ID": sample::CALL_UUID})
}

fn stat() -> Value {
    json!({"Capacity": 1, "Available": 1, "FSAvailable": 1, "Reserved": 0, "Max": 0, "Used": 0})
}

fn path() -> Value {
    json!({
        "ID": "id", "URLs": ["url"], "Weight": 1, "MaxStorage": 0, "CanSeal": true, "CanStore": true,
        "Groups": ["g"], "AllowTo": ["g"], "AllowTypes": ["t"], "DenyTypes": ["t"], "AllowMiners": ["m"], "DenyMiners": ["m"],
    })
}

/// What a worker asks from its start on.
fn common() -> Vec<Row> {
    vec![
        ("Version", json!([]), json!({"Version": "v", "APIVersion": 66816, "BlockDelay": 30, "Agent": "a"})),
        ("Session", json!([]), json!(sample::SESSION)),
        ("ActorAddress", json!([]), json!("f01000")),
        ("ActorSectorSize", json!(["f01000"]), json!(2048)),
        ("WorkerConnect", json!(["http://127.0.0.1:3456/rpc/v0"]), Value::Null),
    ]
}

fn index() -> Vec<Row> {
    let id = sample::storage_id();
    let mut attached = path();
    attached["ID"] = json!(id);
    attached["URLs"] = json!(["http://127.0.0.1:3456/remote"]);
    for list in ["Groups", "AllowTo", "AllowTypes", "DenyTypes", "AllowMiners", "DenyMiners"] {
        attached[list] = Value::Null;
    }
    let holder = json!({
        "ID": "id", "URLs": ["url"], "BaseURLs": ["url"], "Weight": 1, "CanSeal": true, "CanStore": true, "Primary": true,
        "AllowTypes": ["t"], "DenyTypes": ["t"], "AllowMiners": ["m"], "DenyMiners": ["m"],
    });
    let lock = json!({"Sector": sector(), "Write": [0, 0, 0, 0, 0, 0], "Read": [0, 0, 0, 0, 0, 0]});
    vec![
        ("StorageAttach", json!([attached, stat()]), Value::Null),
        ("StorageDetach", json!([id, "http://127.0.0.1:3456/remote"]), Value::Null),
        ("StorageInfo", json!([id]), path()),
        ("StorageReportHealth", json!([id, {"Stat": stat(), "Err": ""}]), Value::Null),
        ("StorageDeclareSector", json!([id, sector(), 2, true]), Value::Null),
        ("StorageDropSector", json!([id, sector(), 2]), Value::Null),
        ("StorageFindSector", json!([sector(), 6, 0, false]), json!([holder])),
        ("StorageBestAlloc", json!([2, 2048, "sealing", 1000]), json!([path()])),
        ("StorageList", json!([]), json!({"*": [{"Miner": 1000, "Number": 1, "SectorFileType": 2}]})),
        ("StorageLock", json!([sector(), 1, 2]), Value::Null),
        ("StorageTryLock", json!([sector(), 1, 2]), json!(true)),
        ("StorageGetLocks", json!([]), json!({"Locks": [lock]})),
    ]
}

/// All eighteen, in the form of a failure: Go's zero value and an error.
fn returns() -> Vec<Row> {
    let valued = [
        ("ReturnDataCid", json!({"Size": 0, "PieceCID": null})),
        ("ReturnAddPiece", json!({"Size": 0, "PieceCID": null})),
        ("ReturnSealPreCommit1", Value::Null),
        ("ReturnSealPreCommit2", json!({"Unsealed": null, "Sealed": null})),
        ("ReturnSealCommit1", Value::Null),
        ("ReturnSealCommit2", Value::Null),
        ("ReturnReplicaUpdate", json!({"NewSealed": null, "NewUnsealed": null})),
        ("ReturnProveReplicaUpdate1", Value::Null),
        ("ReturnProveReplicaUpdate2", Value::Null),
        ("ReturnReadPiece", json!(false)),
    ];
    let bare = [
        "ReturnFinalizeSector",
        "ReturnGenerateSectorKeyFromData",
        "ReturnFinalizeReplicaUpdate",
        "ReturnReleaseUnsealed",
        "ReturnMoveStorage",
        "ReturnUnsealPiece",
        "ReturnDownloadSector",
        "ReturnFetch",
    ];
    let error = json!({"Code": 101, "Message": "worker [name: w] restarted"});
    let valued = valued.map(|(name, zero)| (name, json!([call(), zero, error]), Value::Null));
    let bare = bare.map(|name| (name, json!([call(), error]), Value::Null));
    valued.into_iter().chain(bare).collect()
}

/// What `lotus-miner sealing` and `storage` ask.
fn sealing() -> Vec<Row> {
    let info = json!({
        "Hostname": "h", "IgnoreResources": false,
        "Resources": {
            "MemPhysical": 1, "MemUsed": 1, "MemSwap": 1, "MemSwapUsed": 1, "CPUs": 1, "GPUs": ["g"],
            "Resources": {"*": {"*": {
                "MinMemory": 1, "MaxMemory": 1, "GPUUtilization": 0.5, "MaxParallelism": 1, "MaxParallelismGPU": 1,
                "BaseMinMemory": 1, "MaxConcurrent": 1,
            }}},
        },
    });
    let stats = json!({
        "Info": info, "Tasks": ["seal/v0/fetch"], "Enabled": true, "MemUsedMin": 1, "MemUsedMax": 1, "GpuUsed": 0.5,
        "CpuUse": 1, "TaskCounts": {"*": 1},
    });
    let job = json!({
        "ID": call(), "Sector": sector(), "Task": "seal/v0/fetch", "RunWait": 0, "Start": "2020-01-01T00:00:00Z",
        "Hostname": "h",
    });
    let id = sample::storage_id();
    vec![
        ("WorkerStats", json!([]), json!({"*": stats})),
        ("WorkerJobs", json!([]), json!({"*": [job]})),
        ("SealingSchedDiag", json!([true]), json!({"*": true})),
        ("SealingAbort", json!([call()]), Value::Null),
        ("SealingRemoveRequest", json!([sample::SESSION]), Value::Null),
        ("StorageLocal", json!([]), json!({"*": "/store"})),
        ("StorageStat", json!([id]), stat()),
        ("StorageAddLocal", json!(["/store"]), Value::Null),
        ("StorageDetachLocal", json!(["/store"]), Value::Null),
        ("StorageRedeclareLocal", json!([null, false]), Value::Null),
    ]
}

fn sectors() -> Vec<Row> {
    vec![
        ("PledgeSector", json!([]), sector()),
        ("SectorsList", json!([]), json!([1])),
        ("SectorsSummary", json!([]), json!({"*": 1})),
        ("SectorsListInStates", json!([["Proving"]]), json!([1])),
        ("SectorsRefs", json!([]), json!({})),
        ("SectorTerminatePending", json!([]), json!([])),
        ("SectorTerminateFlush", json!([]), Value::Null),
        ("SectorGetSealDelay", json!([]), json!(0)),
        ("SectorNumReservations", json!([]), json!({})),
        ("RuntimeSubsystems", json!([]), json!(["Sealing"])),
        ("StartTime", json!([]), json!("2020-01-01T00:00:00Z")),
        ("LogList", json!([]), json!(["rpc"])),
        (
            "LogAlerts",
            json!([]),
            json!([{
                "Type": {"System": "", "Subsystem": ""}, "Active": true,
                "LastActive": {"Type": "raised", "Message": {"subject": "", "message": ""}, "Time": ""},
                "LastResolved": null,
            }]),
        ),
        ("Closing", json!([]), json!(0)),
        ("AuthNew", json!([["read"]]), json!("ZXlKaGJHY2k=")),
        (
            "Discover",
            json!([]),
            json!({"openrpc": "1.2.6", "info": {"title": "t", "version": "v"}, "methods": [{"name": "n", "paramStructure": "p", "params": [], "result": {"name": "n", "schema": true}}]}),
        ),
    ]
}

#[tokio::test]
async fn every_method_answers_in_lotus_s_shape() {
    let host = ManagerHost::start().await;
    let header = format!("Authorization: Bearer {}", host.token(&Permission::ALL));
    let rows = [common(), index(), returns(), sealing(), sectors()].concat();
    for (method, params, shape) in rows {
        let request =
            json!({"jsonrpc": "2.0", "id": 1, "method": format!("Filecoin.{method}"), "params": params});
        let answer = post(host.address, "/rpc/v0", &[&header], &request.to_string()).await;
        assert_eq!(answer.status, 200, "{method}: {}", answer.body);
        let result = answer.json().get("result").cloned();
        let result = result.unwrap_or_else(|| panic!("{method}: {}", answer.body));
        like(&result, &shape, method);
    }
    for method in ["AuthVerify", "StorageAuthVerify"] {
        let token = host.token(&[Permission::Read]);
        let request =
            json!({"jsonrpc": "2.0", "id": 1, "method": format!("Filecoin.{method}"), "params": [token]});
        assert_eq!(
            post(host.address, "/rpc/v0", &[&header], &request.to_string()).await.result(),
            json!(["read"])
        );
    }
}

/// What no sector of ours can undergo is refused by name and reason, not as an unknown method.
#[tokio::test]
async fn what_cannot_be_done_is_refused_with_its_reason() {
    let host = ManagerHost::start().await;
    let header = format!("Authorization: Bearer {}", host.token(&Permission::ALL));
    let reader = json!({"Type": "null", "Info": "2032"});
    let rows = [
        ("SectorMarkForUpgrade", json!([42, true]), "RPC015: sector 42 stays in Proving"),
        ("SectorAbortUpgrade", json!([42]), "RPC015: sector 42 stays in Proving"),
        ("SectorTerminate", json!([42]), "RPC015: sector 42 stays in Proving"),
        ("SectorSetSealDelay", json!([1]), "RPC016: no sector waits for deals here"),
        ("SectorAddPieceToAny", json!([2032, reader, {}]), "RPC012: this manager takes data without deals"),
        ("ComputeWindowPoSt", json!([0, []]), "RPC017: this manager makes no window PoSt"),
        ("SectorNumAssignerMeta", json!([]), "gives out sector numbers itself"),
        ("SectorNumReserve", json!(["mine", [1, 1], false]), "reserves none"),
        ("SectorNumReserveCount", json!(["mine", 5]), "reserves none"),
        ("SectorNumFree", json!(["mine"]), "reserves none"),
        ("LogSetLevel", json!(["rpc", "debug"]), "RUST_LOG=info,rpc=debug"),
    ];
    for (method, params, why) in rows {
        let request =
            json!({"jsonrpc": "2.0", "id": 1, "method": format!("Filecoin.{method}"), "params": params});
        let answer = post(host.address, "/rpc/v0", &[&header], &request.to_string()).await;
        let (code, message) = answer.error();
        assert!((answer.status, code) == (200, 1) && message.contains(why), "{method}: {message}");
    }
}

#[tokio::test]
async fn the_document_lists_every_method_and_has_lotus_s_second_name() {
    let host = ManagerHost::start().await;
    let header = format!("Authorization: Bearer {}", host.token(&Permission::ALL));
    let request = r#"{"jsonrpc":"2.0","id":1,"method":"rpc.discover","params":[]}"#;
    let document = post(host.address, "/rpc/v0", &[&header], request).await.result();
    let listed: Vec<&str> = document["methods"]
        .as_array()
        .expect("methods")
        .iter()
        .filter_map(|method| method["name"].as_str())
        .collect();
    assert!(
        listed.is_sorted() && listed.contains(&"Filecoin.Discover") && listed.contains(&"Sealyard.Jobs"),
        "{listed:?}"
    );
    let steered = [
        "SectorStartSealing",
        "SectorsUpdate",
        "SectorPreCommitPending",
        "SectorCommitPending",
        "SectorPreCommitFlush",
        "SectorCommitFlush",
        "SectorRemove",
        "ActorAddressConfig",
        "ComputeWindowPoSt",
    ];
    let steered = steered.map(|name| (name, Value::Null, Value::Null));
    for (method, _, _) in [common(), index(), returns(), sealing(), sectors(), steered.into()].concat() {
        assert!(listed.contains(&format!("Filecoin.{method}").as_str()), "{method}");
    }
}

/// The same names and kinds of values. A list's example stands for all its elements, `*` for all keys of a map; null is
/// like any list or map, as in Go.
#[track_caller]
fn like(value: &Value, shape: &Value, at: &str) {
    match (value, shape) {
        (Value::Null, Value::Null | Value::Array(_) | Value::Object(_)) => {}
        (Value::Array(_), Value::Null) => {}
        (Value::Array(list), Value::Array(example)) => {
            for element in list {
                like(element, example.first().unwrap_or(&Value::Null), at);
            }
        }
        (Value::Object(map), Value::Object(example)) => match example.get("*") {
            Some(each) => map.values().for_each(|value| like(value, each, at)),
            None => {
                let names = |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<Vec<_>>();
                assert_eq!(names(map), names(example), "{at}");
                map.iter().for_each(|(name, value)| like(value, &example[name], &format!("{at}.{name}")));
            }
        },
        _ => assert_eq!(kind(value), kind(shape), "{at}: {value}"),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a bool",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

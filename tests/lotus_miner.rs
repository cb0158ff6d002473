//! A Sealyard worker at a Lotus miner: a scripted stand-in (see `lotus`) takes a real worker process, demands Go's shapes
//! of everything that it sends, and drives it over plain HTTP as Lotus drives its own.

mod lotus;
mod system;

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lotus::commitment::piece_cid;
use lotus::disk::{Purpose, StoragePath, read_tar};
use lotus::go::{Client, Failure, Fault, cid};
use lotus::http::{Answer, Payload, send};
use lotus::index::{Declared, exact_keys};
use lotus::miner::LotusMiner;
use lotus::yard::{EVENT_MAX, WHOLE, Yard, run_worker};
use lotus::{fresh_uuid, sector_name};
use serde_json::{Value, json};

const UNSEALED: u64 = 1;
const SEALED: u64 = 2;
const CACHE: u64 = 4;

/// All declared files of a sector in one path: bits and whether primary.
fn declared(miner: &LotusMiner, number: u64) -> Vec<(u64, bool)> {
    let mut files: Vec<_> =
        miner.inner.index.of((1000, number)).iter().map(|file| (file.bit, file.primary)).collect();
    files.sort_unstable();
    files
}

fn fault(code: i64, message: &str) -> Result<Value, Failure> {
    Err(Failure::Fault(Fault { code, message: message.to_owned() }))
}

#[test]
fn a_worker_joins_as_lotus_s_does() {
    let yard = Yard::start();
    let methods = yard.miner.methods();
    let first = |name: &str| {
        methods.iter().position(|method| method == name).unwrap_or_else(|| panic!("{name}: {methods:?}"))
    };
    let order = ["Version", "ActorAddress", "ActorSectorSize", "StorageAttach", "Session", "WorkerConnect"];
    assert!(order.is_sorted_by_key(|name| first(name)), "{methods:?}");

    let attached =
        yard.miner.inner.trace.first("StorageAttach", EVENT_MAX, |call| call.method == "StorageAttach");
    let info = &attached.params[0];
    let url = format!("http://{}/remote", yard.taken.address);
    assert_eq!((&info["URLs"], &info["Weight"]), (&json!([url]), &json!(10)));
    assert_eq!(
        (&info["CanSeal"], &info["CanStore"], &info["MaxStorage"]),
        (&json!(true), &json!(false), &json!(0))
    );
    let id = info["ID"].as_str().expect("an id");
    let meta =
        std::fs::read(yard.repo().join("sectorstore.json")).expect("sectorstore.json in the repo's root");
    assert_eq!(serde_json::from_slice::<Value>(&meta).expect("JSON")["ID"], id);
    info_is_go_s(&yard.taken.info);

    let tasks = yard.taken.tasks.as_object().expect("a map");
    assert!(tasks.values().all(|value| *value == json!({})), "{tasks:?}");
    let tasks: BTreeSet<&str> = tasks.keys().map(String::as_str).collect();
    let lotus_s = [
        "addpiece",
        "datacid",
        "precommit/1",
        "precommit/2",
        "commit/1",
        "finalize",
        "finalizeunsealed",
        "fetch",
        "unseal",
    ];
    for task in lotus_s {
        assert!(tasks.contains(format!("seal/v0/{task}").as_str()), "{task}: {tasks:?}");
    }
    let paths = yard.worker.call("Paths", json!([])).expect("Paths");
    exact_keys(&paths[0], &["ID", "Weight", "LocalPath", "CanSeal", "CanStore"], "StoragePath")
        .expect("Go's names");
    assert_eq!((paths.as_array().map(Vec::len), &paths[0]["ID"]), (Some(1), &json!(id)));
    assert_eq!(yard.worker.call("Version", json!([])), Ok(json!(67328)));
    assert_eq!(yard.worker.call("StorageLocal", json!([])).expect("StorageLocal")[id], paths[0]["LocalPath"]);
    yard.end();
}

/// Every field of WorkerInfo with Go's name and type, the table keyed by task and by proof number.
fn info_is_go_s(info: &Value) {
    exact_keys(info, &["Hostname", "IgnoreResources", "Resources"], "WorkerInfo").expect("Go's names");
    assert_eq!((&info["Hostname"], &info["IgnoreResources"]), (&json!("W"), &json!(false)));
    let resources = &info["Resources"];
    let numbers = ["MemPhysical", "MemUsed", "MemSwap", "MemSwapUsed", "CPUs"];
    let keys: Vec<&str> = numbers.into_iter().chain(["GPUs", "Resources"]).collect();
    exact_keys(resources, &keys, "WorkerResources").expect("Go's names");
    assert!(numbers.iter().all(|key| resources[key].is_u64()), "{resources}");
    assert!(resources["GPUs"].is_null() || resources["GPUs"].is_array());
    let row_keys = [
        "MinMemory",
        "MaxMemory",
        "GPUUtilization",
        "MaxParallelism",
        "MaxParallelismGPU",
        "BaseMinMemory",
        "MaxConcurrent",
    ];
    for task in [
        "seal/v0/addpiece",
        "seal/v0/precommit/1",
        "seal/v0/precommit/2",
        "seal/v0/commit/1",
        "seal/v0/commit/2",
        "seal/v0/fetch",
        "seal/v0/unseal",
    ] {
        let rows = resources["Resources"][task].as_object().unwrap_or_else(|| panic!("no rows of {task}"));
        for proof in 0..15 {
            let row =
                rows.get(&proof.to_string()).unwrap_or_else(|| panic!("{task}: no row of proof {proof}"));
            exact_keys(row, &row_keys, "Resources").expect("Go's names");
        }
        assert!(rows.keys().all(|proof| proof.parse::<u64>().is_ok_and(|proof| proof < 15)), "{task}");
    }
    let precommit1 = &resources["Resources"]["seal/v0/precommit/1"]["8"];
    assert_eq!(precommit1["MaxMemory"], 64_u64 << 30, "PC1 of 32 GiB, from Lotus's table: {precommit1}");
}

#[test]
fn a_worker_does_lotus_s_tasks() {
    let yard = Yard::start();
    let piece = pieces_come_in(&yard);
    let cids = seal(&yard, &piece);
    files_are_served(&yard);
    files_are_fetched_and_moved(&yard);
    finalize_and_release(&yard);
    assert!(cids["Sealed"]["/"].is_string());
    yard.end();
}

/// Zeros for sector 1; pushed bytes for sector 2; the same bytes by a URL for DataCid. The commitments are those from
/// first principles.
fn pieces_come_in(yard: &Yard) -> Value {
    let piece = yard.add_zeros(1);
    exact_keys(&piece, &["Size", "PieceCID"], "PieceInfo").expect("Go's names");
    assert_eq!(
        (&piece["Size"], cid(&piece["PieceCID"])),
        (&json!(2048), Ok(piece_cid(&[0; WHOLE]).as_str()))
    );
    assert_eq!(declared(&yard.miner, 1).iter().map(|(bit, _)| *bit).collect::<Vec<_>>(), [UNSEALED]);

    let bytes: Vec<u8> = (0..WHOLE).map(|at| u8::try_from(at * 7 % 251).expect("a byte")).collect();
    let id = fresh_uuid();
    let target = format!("/rpc/streams/v0/push/{id}");
    let (address, pushed, post) = (yard.taken.address.clone(), bytes.clone(), target.clone());
    // As Go does: HEAD beside the call, no token, then the bytes in chunks.
    let pusher = std::thread::spawn(move || {
        let octets = [("Content-Type", "application/octet-stream")];
        let head = send(&address, "HEAD", &target, &octets, Payload::None).expect("HEAD");
        assert_eq!(head.status, 200);
        send(&address, "POST", &target, &octets, Payload::Chunked(&pushed)).expect("POST").status
    });
    let reader = json!({ "Type": "push", "Info": id });
    let pushed = yard.done("AddPiece", json!([Yard::sector(2), [], WHOLE, reader]));
    assert_eq!(pusher.join().expect("the pusher"), 200);
    assert_eq!(cid(&pushed["PieceCID"]), Ok(piece_cid(&bytes).as_str()));
    let late = send(&yard.taken.address, "HEAD", &post, &[], Payload::None).expect("HEAD");
    assert_eq!(late.status, 204, "the stream has been read: nobody wants it again");
    assert_eq!(
        send(&yard.taken.address, "HEAD", "/rpc/streams/v0/push/x", &[], Payload::None).expect("HEAD").status,
        400
    );

    let served = bytes.clone();
    let listener = lotus::http::Server::bind();
    let url = format!("http://{}/piece", listener.local_addr().expect("it is bound"));
    let _server = lotus::http::Server::serve(listener, move |_| {
        Answer::with(200, "application/octet-stream", served.clone())
    });
    let data = yard.done("DataCid", json!([WHOLE, { "Type": "http", "Info": url }]));
    assert_eq!(data, pushed, "DataCid of the same bytes");
    piece
}

/// Sector 1 from PreCommit1 to Commit1; one return is refused at first and comes again.
fn seal(yard: &Yard, piece: &Value) -> Value {
    let (ticket, seed) = (STANDARD.encode([0x11; 32]), STANDARD.encode([0x22; 32]));
    let precommit1 = yard.done("SealPreCommit1", json!([Yard::sector(1), ticket, [piece]]));
    let text = STANDARD.decode(precommit1.as_str().expect("base64")).expect("base64");
    let output: Value = serde_json::from_slice(&text).expect("the proofs library's JSON");
    assert_eq!(output["_lotus_SealRandomness"], ticket, "the ticket travels as with Lotus");
    assert_eq!(output["registered_proof"], "StackedDrg2KiBV1_1");
    let bits: Vec<u64> = declared(&yard.miner, 1).iter().map(|(bit, _)| *bit).collect();
    assert_eq!(bits, [UNSEALED, SEALED, CACHE], "declared one by one before the return");

    yard.miner.refuse_next("ReturnSealPreCommit2");
    let cids = yard.done("SealPreCommit2", json!([Yard::sector(1), precommit1]));
    exact_keys(&cids, &["Unsealed", "Sealed"], "SectorCids").expect("Go's names");
    assert_eq!(cid(&cids["Unsealed"]), Ok(piece_cid(&[0; WHOLE]).as_str()), "one piece fills the sector");
    assert!(cid(&cids["Sealed"]).is_ok_and(|cid| cid.starts_with("bagboea4b5abc")), "{cids}");

    let params = json!([Yard::sector(1), ticket, seed, [piece], cids]);
    let commit1 =
        STANDARD.decode(yard.done("SealCommit1", params).as_str().expect("base64")).expect("base64");
    let commit1: Value = serde_json::from_slice(&commit1).expect("the proofs library's JSON");
    assert!(commit1["vanilla_proofs"].is_object() || commit1["vanilla_proofs"].is_array(), "{commit1}");
    cids
}

/// GET of sector 1 in all its forms, and the statuses of Lotus.
fn files_are_served(yard: &Yard) {
    let name = sector_name(1000, 1);
    let replica = std::fs::read(yard.repo().join("sealed").join(&name)).expect("the replica");
    let whole = yard.remote("GET", &format!("sealed/{name}"), &[]);
    assert_eq!((whole.status, whole.header("content-type")), (200, Some("application/octet-stream")));
    assert_eq!((whole.header("accept-ranges"), whole.body.len()), (Some("bytes"), replica.len()));
    assert!(whole.body == replica && whole.header("last-modified").is_some());
    for (range, first, last) in [
        ("bytes=100-199", 100, 199),
        ("bytes=2000-9000", 2000, 2047),
        ("bytes=0-18446744073709551615", 0, 2047),
    ] {
        let part = yard.remote("GET", &format!("sealed/{name}"), &[("Range", range)]);
        assert_eq!(
            (part.status, part.header("content-range")),
            (206, Some(format!("bytes {first}-{last}/2048").as_str())),
            "{range}"
        );
        assert_eq!(part.body, replica[first..=last], "{range}");
    }
    let unsealed = yard.remote("GET", &format!("unsealed/{name}"), &[]);
    assert_eq!(unsealed.body.len(), 2055, "the unsealed file with its trailer");

    let tar = yard.remote("GET", &format!("cache/{name}"), &[]);
    assert_eq!((tar.status, tar.header("content-type")), (200, Some("application/x-tar")));
    let files = read_tar(&tar.body).expect("a tar that Lotus takes");
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert!(
        names.is_sorted() && names.contains(&"p_aux") && names.contains(&"sc-02-data-layer-2.dat"),
        "{names:?}"
    );
    for (file, bytes) in &files {
        assert_eq!(
            std::fs::read(yard.repo().join("cache").join(&name).join(file)).expect("a cache file"),
            *bytes
        );
    }

    let parted = yard.remote("GET", &format!("cache/{name}"), &[("Range", "bytes=0-9")]);
    assert_eq!(parted.status, 500, "a directory has no ranges");
    let statuses: [(&str, String, u16); 11] = [
        ("GET", format!("sealed/{}", sector_name(1000, 99)), 500),
        ("GET", "sealed/nonsense".to_owned(), 500),
        ("GET", format!("nonsense/{name}"), 500),
        ("GET", "sealed".to_owned(), 404),
        ("PUT", format!("sealed/{name}"), 405),
        ("GET", format!("stat/{}", fresh_uuid()), 404),
        ("GET", format!("unsealed/{name}/5/allocated/0/2032"), 200),
        ("GET", format!("unsealed/{name}/5/allocated/0/4064"), 416),
        ("GET", format!("sealed/{name}/5/allocated/0/2032"), 500),
        ("DELETE", format!("sealed/{}", sector_name(1000, 99)), 500),
        ("DELETE", format!("sealed/{name}"), 500),
    ];
    for (verb, below, status) in statuses {
        let answer = yard.remote(verb, &below, &[]);
        assert_eq!(answer.status, status, "{verb} {below}: {}", answer.text());
    }
    assert!(yard.repo().join("sealed").join(&name).exists(), "the last copy is not deleted by a peer");
    let id = yard.miner.inner.index.of((1000, 1))[0].path.clone();
    let stat: Value =
        serde_json::from_slice(&yard.remote("GET", &format!("stat/{id}"), &[]).body).expect("JSON");
    exact_keys(&stat, &["Capacity", "Available", "FSAvailable", "Reserved", "Max", "Used"], "FsStat")
        .expect("Go's names");
}

/// The miner holds a copy of sector 1's replica as sector 77; the worker takes it over, then moves it to a path that
/// stores.
fn files_are_fetched_and_moved(yard: &Yard) {
    let holder = &yard.miner.inner.path;
    let (from, name) = (yard.repo(), sector_name(1000, 77));
    std::fs::copy(from.join("sealed").join(sector_name(1000, 1)), holder.file(SEALED, (1000, 77)))
        .expect("a replica");
    std::fs::create_dir(holder.file(CACHE, (1000, 77))).expect("a cache");
    for entry in std::fs::read_dir(from.join("cache").join(sector_name(1000, 1))).expect("a cache").flatten()
    {
        std::fs::copy(entry.path(), holder.file(CACHE, (1000, 77)).join(entry.file_name()))
            .expect("a cache file");
    }
    for bit in [SEALED, CACHE] {
        let params = [json!(holder.id), json!({ "Miner": 1000, "Number": 77 }), json!(bit), json!(true)];
        yard.miner.inner.index.declare(&params).expect("a declaration");
    }
    yard.done("Fetch", json!([Yard::sector(77), SEALED | CACHE, "sealing", "move"]));
    let sealing = yard.miner.inner.index.of((1000, 1))[0].path.clone();
    for (bit, kind) in [(SEALED, "sealed"), (CACHE, "cache")] {
        let target = format!("/remote/{kind}/{name}");
        let seen = yard.miner.inner.served.all();
        assert!(seen.contains(&("GET".to_owned(), target.clone())), "{seen:?}");
        assert!(seen.contains(&("DELETE".to_owned(), format!("{target}?keep={sealing}"))), "{seen:?}");
        assert!(!holder.file(bit, (1000, 77)).exists(), "{kind} was moved");
        assert!(from.join(kind).join(&name).exists());
    }
    assert_eq!(declared(&yard.miner, 77), [(SEALED, true), (CACHE, true)], "moved copies are primary");

    let store = StoragePath::create(&yard.home.path().join("store"), Purpose::Storing);
    assert_eq!(yard.worker.call("StorageAddLocal", json!([store.dir])), Ok(Value::Null));
    assert!(yard.miner.inner.index.path(&store.id).is_some(), "attached at the miner");
    yard.done("MoveStorage", json!([Yard::sector(77), SEALED | CACHE]));
    let at = |bit| Declared { path: store.id.clone(), sector: (1000, 77), bit, primary: true };
    let mut files = yard.miner.inner.index.of((1000, 77));
    files.sort_by_key(|file| file.bit);
    assert_eq!(files, [at(SEALED), at(CACHE)]);
    assert!(store.file(SEALED, (1000, 77)).exists() && !from.join("sealed").join(&name).exists());

    let (value, _, message) =
        yard.miner.failed(&yard.worker, "Fetch", json!([Yard::sector(78), SEALED, "sealing", "move"]));
    assert!(value.is_null() && message.ends_with(" [name: W]"), "{message}");
    let ticket = STANDARD.encode([1; 32]);
    let zero = yard.miner.failed(&yard.worker, "SealPreCommit2", json!([Yard::sector(78), ticket])).0;
    assert_eq!(zero, json!({ "Unsealed": null, "Sealed": null }), "Go's zero value");
    let zero = yard.miner.failed(&yard.worker, "SealPreCommit1", json!([Yard::sector(78), ticket, []])).0;
    assert_eq!(zero, Value::Null, "Go's zero value");
}

/// FinalizeSector trims the cache; ReleaseUnsealed with nothing to keep removes the file and its declaration.
fn finalize_and_release(yard: &Yard) {
    let name = sector_name(1000, 1);
    yard.done("FinalizeSector", json!([Yard::sector(1)]));
    let left = std::fs::read_dir(yard.repo().join("cache").join(&name)).expect("a cache").flatten();
    let left: BTreeSet<String> = left.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(left, ["p_aux", "sc-02-data-tree-r-last.dat", "t_aux"].map(str::to_owned).into());
    yard.done("ReleaseUnsealed", json!([Yard::sector(1), null]));
    assert!(!yard.repo().join("unsealed").join(&name).exists());
    assert_eq!(declared(&yard.miner, 1).iter().map(|(bit, _)| *bit).collect::<Vec<_>>(), [SEALED, CACHE]);
}

#[test]
fn a_worker_knows_whom_it_serves() {
    let yard = Yard::start();
    let as_if = |token: Option<&str>| Client::new(&yard.taken.address, token);
    let missing = |method: &str| fault(1, &format!("missing permission to invoke '{method}' (need 'admin')"));
    for method in ["Version", "Session", "Info", "TaskTypes"] {
        assert_eq!(as_if(None).call(method, json!([])), missing(method), "no token");
    }
    let reader = yard.miner.inner.mint(&["read", "write", "sign"]);
    assert_eq!(as_if(Some(&reader)).call("Info", json!([])), missing("Info"), "not admin");
    let garbage = "eyJhbGciOiJIUzI1NiJ9.e30.AAAA";
    assert_eq!(as_if(Some(garbage)).call("Version", json!([])), Err(Failure::Status(401)));
    let asked = |token: &str| {
        let calls = yard.miner.inner.trace.all();
        calls.iter().any(|call| call.method == "AuthVerify" && call.params[0] == token)
    };
    assert!(
        [yard.taken.token.as_str(), reader.as_str(), garbage].into_iter().all(asked),
        "each token is the miner's to judge"
    );

    let target = format!("/remote/sealed/{}", sector_name(1000, 1));
    let get = |headers: &[(&str, &str)], target: &str| {
        send(&yard.taken.address, "GET", target, headers, Payload::None).expect("an answer")
    };
    let refused = "{\"Error\":\"unauthorized: missing admin permission\"}\n";
    let none = get(&[], &target);
    assert_eq!((none.status, none.text().as_str()), (401, refused));
    let weak = get(&[("Authorization", &format!("Bearer {reader}"))], &target);
    assert_eq!((weak.status, weak.text().as_str()), (401, refused));
    for header in [format!("Bearer {garbage}"), yard.taken.token.clone()] {
        let bad = get(&[("Authorization", &header)], &target);
        assert_eq!((bad.status, bad.text().as_str()), (401, ""), "{header}");
    }
    let by_query = get(&[], &format!("{target}?token={}", yard.taken.token));
    assert_eq!(by_query.status, 500, "the token counts; there is no such file");

    let worker = &yard.worker;
    assert_eq!(worker.call("Nonsense", json!([])), fault(-32601, "method 'Filecoin.Nonsense' not found"));
    for (method, params) in
        [("Session", json!([1])), ("SealPreCommit2", json!([Yard::sector(1)])), ("Fetch", json!([]))]
    {
        let answer = worker.call(method, params);
        assert!(
            matches!(&answer, Err(Failure::Fault(fault)) if fault.code == -32602),
            "{method}: {answer:?}"
        );
    }
    let misread = worker.call("SealPreCommit1", json!([Yard::sector(1), 17, []]));
    assert!(matches!(&misread, Err(Failure::Fault(fault)) if fault.code == -32700), "{misread:?}");
    assert_eq!(worker.call("Enabled", json!([])), Ok(json!(true)));
    assert_eq!(worker.call("SetEnabled", json!([false])), Ok(Value::Null));
    assert_eq!(worker.call("Session", json!([])), fault(1, "worker disabled"));
    assert_eq!(worker.call("ProcessSession", json!([])), Ok(json!(yard.taken.session)));
    yard.end();
}

#[test]
fn a_restarted_worker_gives_up_its_calls_and_joins_anew() {
    let mut yard = Yard::start();
    yard.add_zeros(1);
    // A stream that never comes keeps this call open.
    let id = fresh_uuid();
    let params = json!([Yard::sector(2), null, WHOLE, { "Type": "push", "Info": id }]);
    let (address, target) = (yard.taken.address.clone(), format!("/rpc/streams/v0/push/{id}"));
    let head = std::thread::spawn(move || {
        send(&address, "HEAD", &target, &[], Payload::None).map(|answer| answer.status)
    });
    let open = yard.miner.order(&yard.worker, "AddPiece", params);
    assert_eq!(head.join().expect("the pusher").expect("HEAD"), 200, "the call has begun to read");
    let killed = std::process::Command::new("kill").args(["-9", &yard.process.id().to_string()]).status();
    assert!(killed.is_ok_and(|status| status.success()));
    assert_eq!(yard.process.end(), None, "it was killed");

    let before = yard.miner.inner.trace.all().len();
    yard.process = run_worker(yard.home.path(), &yard.miner);
    let taken = yard.miner.taken(1);
    assert_ne!(taken.session, yard.taken.session, "another process, another session");
    let given_up = yard.miner.returned("ReturnAddPiece", &open);
    assert_eq!(given_up[0], json!({ "Size": 0, "PieceCID": null }), "Go's zero value");
    assert_eq!(given_up[1], json!({ "Code": 101, "Message": "worker [name: W] restarted" }));
    let again = yard.miner.inner.trace.all()[before..].to_vec();
    let first = |name: &str| {
        again.iter().position(|call| call.method == name).unwrap_or_else(|| panic!("{name}: {again:#?}"))
    };
    assert!(
        first("StorageAttach") < first("StorageDeclareSector")
            && first("StorageDeclareSector") < first("WorkerConnect")
    );
    let declared = &again[first("StorageDeclareSector")].params;
    assert_eq!(declared[1..], [json!({ "Miner": 1000, "Number": 1 }), json!(UNSEALED), json!(false)]);
    assert!(!yard.repo().join("unsealed").join(sector_name(1000, 2)).exists(), "nothing half-written stays");

    yard.worker = Client::new(&taken.address, Some(&taken.token));
    yard.taken = taken;
    assert_eq!(yard.worker.call("Session", json!([])), Ok(json!(yard.taken.session)));
    yard.add_zeros(2);
    yard.end();
}

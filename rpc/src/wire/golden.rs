//! Lotus's JSON as its documentation shows it and as its programs write it: each shape is read, converted to our value
//! and written again.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::sector::{CallError, CallId, PieceInfo, Range, SectorCids, SectorId, SectorRef};
use super::storage::{Decl, FsStat, HealthReport, SectorLocks, SectorStorageInfo, StorageInfo};
use super::worker::{ApiVersion, GoTime, StoragePath, TaskTypes, WorkerInfo, WorkerJob, WorkerStats};
use super::{Base64, Cid};
use crate::reader::ReaderParam;

/// Reads `text`, takes it through our value `T` and back, and compares what is written with `written`.
#[track_caller]
fn through<W, T>(text: &str, written: Value)
where
    W: Serialize + DeserializeOwned + TryInto<T> + From<T>,
    <W as TryInto<T>>::Error: Debug,
{
    let wire: W = serde_json::from_str(text).expect(text);
    let ours: T = wire.try_into().expect(text);
    assert_eq!(serde_json::to_value(W::from(ours)).expect("it can be written"), written, "{text}");
}

/// The same where what is written is what was read.
#[track_caller]
fn same<W, T>(text: &str)
where
    W: Serialize + DeserializeOwned + TryInto<T> + From<T>,
    <W as TryInto<T>>::Error: Debug,
{
    through::<W, T>(text, serde_json::from_str(text).expect(text));
}

/// For shapes that have no value of their own.
#[track_caller]
fn shape<W: Serialize + DeserializeOwned>(text: &str) {
    let wire: W = serde_json::from_str(text).expect(text);
    let written = serde_json::to_value(&wire).expect("it can be written");
    assert_eq!(written, serde_json::from_str::<Value>(text).expect(text));
}

const COMM_D: &str = "baga6ea4seaqpy7usqklokfx2vxuynmupslkeutzexe2uqurdg5vhtebhxqmpqmy";

#[test]
fn sectors_pieces_and_calls() {
    same::<SectorId, sealtasks::SectorId>(r#"{"Miner":1000,"Number":18446744073709551615}"#);
    same::<SectorRef, sealtasks::SectorRef>(r#"{"ID":{"Miner":1000,"Number":9},"ProofType":8}"#);
    same::<PieceInfo, sealtasks::PieceInfo>(&format!(r#"{{"Size":2048,"PieceCID":{{"/":"{COMM_D}"}}}}"#));
    same::<Range, sealtasks::UnsealedRange>(r#"{"Offset":1016,"Size":1024}"#);
    same::<CallId, sealtasks::CallId>(
        r#"{"Sector":{"Miner":1000,"Number":9},"ID":"07070707-0707-0707-0707-070707070707"}"#,
    );
    same::<CallError, sealtasks::CallError>(r#"{"Code":101,"Message":"restarted"}"#);
    same::<CallError, sealtasks::CallError>(r#"{"Code":-7,"Message":""}"#);
    shape::<SectorCids>(r#"{"Unsealed":null,"Sealed":null}"#);
    // The documentation's own examples of CIDs are of other kinds; the shape takes any.
    shape::<SectorCids>(
        r#"{"Unsealed":{"/":"bafy2bzacea3wsdh6y3a36tb3skempjoxqpuyompjbmfeyf34fi3uy6uue42v4"},"Sealed":null}"#,
    );
    shape::<Option<Cid>>("null");
}

#[test]
fn a_cid_of_another_kind_or_none_is_named() {
    let other =
        r#"{"Size":2048,"PieceCID":{"/":"bafy2bzacea3wsdh6y3a36tb3skempjoxqpuyompjbmfeyf34fi3uy6uue42v4"}}"#;
    for (text, says) in [
        (other, "PieceInfo.PieceCID: "),
        (r#"{"Size":2048,"PieceCID":null}"#, "PieceInfo.PieceCID: null, expected a CID"),
        (r#"{"Size":2047,"PieceCID":null}"#, "PieceInfo.Size: 2047 bytes"),
    ] {
        let wire: PieceInfo = serde_json::from_str(text).expect(text);
        let error = sealtasks::PieceInfo::try_from(wire).expect_err(text).to_string();
        assert!(error.starts_with(says), "{error}");
    }
}

#[test]
fn storage_with_all_lists_and_with_go_s_nils() {
    let full = r#"{"ID":"76f1988b-ef30-4d7e-b3ec-9a627f4ba5a8","URLs":["http://h/remote"],"Weight":42,"MaxStorage":42,
        "CanSeal":true,"CanStore":true,"Groups":["g"],"AllowTo":["a"],"AllowTypes":["sealed","update-cache"],
        "DenyTypes":["unsealed"],"AllowMiners":["f01000"],"DenyMiners":["f01001"]}"#;
    same::<StorageInfo, sealtasks::StorageInfo>(full);
    let empty = json!({"ID": "x", "URLs": [], "Weight": 0, "MaxStorage": 0, "CanSeal": false, "CanStore": false,
        "Groups": [], "AllowTo": [], "AllowTypes": [], "DenyTypes": [], "AllowMiners": [], "DenyMiners": []});
    let nils = r#"{"ID":"x","URLs":null,"Weight":0,"MaxStorage":0,"CanSeal":false,"CanStore":false,"Groups":null,
        "AllowTo":null,"AllowTypes":null,"DenyTypes":null,"AllowMiners":null,"DenyMiners":null,"New":{}}"#;
    through::<StorageInfo, sealtasks::StorageInfo>(nils, empty.clone());
    through::<StorageInfo, sealtasks::StorageInfo>(r#"{"ID":"x"}"#, empty);
    same::<FsStat, sealtasks::FsStat>(
        r#"{"Capacity":9,"Available":-9,"FSAvailable":9,"Reserved":9,"Max":9,"Used":9223372036854775807}"#,
    );
    let stat = r#""Stat":{"Capacity":9,"Available":9,"FSAvailable":9,"Reserved":9,"Max":0,"Used":0}"#;
    same::<HealthReport, sealtasks::HealthReport>(&format!(r#"{{{stat},"Err":""}}"#));
    same::<HealthReport, sealtasks::HealthReport>(&format!(r#"{{{stat},"Err":"broken"}}"#));
    same::<SectorStorageInfo, sealtasks::SectorStorageInfo>(
        r#"{"ID":"x","URLs":["u"],"BaseURLs":["b"],"Weight":42,"CanSeal":true,"CanStore":true,"Primary":true,
        "AllowTypes":[],"DenyTypes":[],"AllowMiners":[],"DenyMiners":[]}"#,
    );
    same::<Decl, sealtasks::SectorDecl>(r#"{"Miner":1000,"Number":100,"SectorFileType":7}"#);
    shape::<SectorLocks>(
        r#"{"Locks":[{"Sector":{"Miner":1000,"Number":123},"Write":[0,0,1,0,0,0],"Read":[2,3,0,0,0,0]}]}"#,
    );
    assert!(serde_json::from_str::<SectorLocks>(r#"{"Locks":null}"#).expect("nil").locks.is_empty());
}

#[test]
fn a_path_whose_allowed_types_are_all_unknown_takes_nothing() {
    let text = r#"{"ID":"x","AllowTypes":["sealedd"],"DenyTypes":["bogus"]}"#;
    let info: StorageInfo = serde_json::from_str(text).expect(text);
    let filters = sealtasks::StorageInfo::try_from(info).expect(text).stanza.filters;
    assert!(filters.accepted(sealtasks::FileTypes::ALL).is_empty());
    let text = r#"{"ID":"x","AllowMiners":["t3abc"]}"#;
    let info: StorageInfo = serde_json::from_str(text).expect(text);
    let error = sealtasks::StorageInfo::try_from(info).expect_err(text).to_string();
    assert!(error.starts_with("AllowMiners: \"t3abc\""), "{error}");
}

#[test]
fn workers_with_and_without_a_table() {
    let text = r#"{"Hostname":"host","IgnoreResources":false,"Resources":{"MemPhysical":274877906944,
        "MemUsed":2147483648,"MemSwap":128849018880,"MemSwapUsed":2147483648,"CPUs":64,"GPUs":["aGPU 1337"],
        "Resources":{"post/v0/windowproof":{"14":{"MinMemory":64424509440,"MaxMemory":128849018880,
        "GPUUtilization":1,"MaxParallelism":-1,"MaxParallelismGPU":6,"BaseMinMemory":68719476736,
        "MaxConcurrent":0}},"seal/v9/unheard":{"8":{}},"seal/v0/commit/2":{"99":{}}}}}"#;
    let mut written: Value = serde_json::from_str(text).expect(text);
    written["Resources"]["Resources"] =
        json!({"post/v0/windowproof": written["Resources"]["Resources"]["post/v0/windowproof"]});
    written["Resources"]["Resources"]["post/v0/windowproof"]["14"]["GPUUtilization"] = json!(1.0);
    through::<WorkerInfo, crate::api::WorkerInfo>(text, written);
    let bare = r#"{"Hostname":"h","IgnoreResources":true,"Resources":{"MemPhysical":1,"MemUsed":2,"MemSwap":3,
        "MemSwapUsed":4,"CPUs":5,"GPUs":null,"Resources":null}}"#;
    let mut written: Value = serde_json::from_str(bare).expect(bare);
    written["Resources"]["GPUs"] = json!([]);
    through::<WorkerInfo, crate::api::WorkerInfo>(bare, written);
    for (field, value) in [("MaxConcurrent", "-1"), ("GPUUtilization", "-0.5")] {
        let text = format!(
            r#"{{"Resources":{{"Resources":{{"seal/v0/commit/2":{{"5":{{"{field}":{value}}}}}}}}}}}"#
        );
        let info: WorkerInfo = serde_json::from_str(&text).expect(&text);
        let error = crate::api::WorkerInfo::try_from(info).expect_err(&text).to_string();
        assert!(error.starts_with(field), "{error}");
    }
}

#[test]
fn task_types_paths_and_the_manager_s_version() {
    let tasks: TaskTypes =
        serde_json::from_str(r#"{"seal/v0/precommit/2":{},"seal/v9/unheard":{}}"#).expect("a set");
    let tasks: std::collections::BTreeSet<sealtasks::TaskType> = tasks.into();
    assert_eq!(
        serde_json::to_value(TaskTypes::from(tasks)).expect("a set"),
        json!({"seal/v0/precommit/2": {}})
    );
    same::<StoragePath, crate::api::StoragePath>(
        r#"{"ID":"76f1988b-ef30-4d7e-b3ec-9a627f4ba5a8","Weight":42,"LocalPath":"/p","CanSeal":true,"CanStore":true}"#,
    );
    shape::<ApiVersion>(r#"{"Version":"1.36.2+mainnet","APIVersion":66816,"BlockDelay":42,"Agent":"lotus"}"#);
    let older: ApiVersion =
        serde_json::from_str(r#"{"Version":"x","APIVersion":1,"BlockDelay":2}"#).expect("older");
    assert_eq!(older.agent, "");
}

#[test]
fn stats_and_jobs() {
    let stats = r#"{"Info":{"Hostname":"h","IgnoreResources":false,"Resources":{"MemPhysical":1,"MemUsed":0,
        "MemSwap":0,"MemSwapUsed":0,"CPUs":1,"GPUs":[],"Resources":null}},"Tasks":["seal/v0/addpiece"],
        "Enabled":true,"MemUsedMin":1,"MemUsedMax":2,"GpuUsed":0.5,"CpuUse":3,
        "TaskCounts":{"5:seal/v0/addpiece":1}}"#;
    same::<WorkerStats, crate::api::WorkerStats>(stats);
    let nils: WorkerStats = serde_json::from_str(r#"{"Tasks":null,"TaskCounts":null}"#).expect("nils");
    assert_eq!(nils, WorkerStats::default());
    let job = |start: &str, tail: &str| {
        format!(
            r#"{{"ID":{{"Sector":{{"Miner":1000,"Number":100}},"ID":"76081ba0-61bd-45a5-bc08-af05f1c26e5d"}},
            "Sector":{{"Miner":1000,"Number":100}},"Task":"seal/v0/precommit/2","RunWait":-3,"Start":"{start}"{tail}}}"#
        )
    };
    same::<WorkerJob, crate::api::WorkerJob>(&job("2020-11-12T09:42:07Z", r#","Hostname":"host""#));
    // Without a host name the key is left out.
    same::<WorkerJob, crate::api::WorkerJob>(&job("0001-01-01T00:00:00Z", ""));
}

#[test]
fn go_s_instants() {
    for (text, unix_ms, written) in [
        ("2020-11-12T09:22:07.123456789+01:00", 1_605_169_327_123, "2020-11-12T08:22:07.123Z"),
        ("2020-11-12T08:22:07Z", 1_605_169_327_000, "2020-11-12T08:22:07Z"),
        ("0001-01-01T00:00:00Z", 0, "0001-01-01T00:00:00Z"),
        ("1969-12-31T23:59:59Z", 0, "0001-01-01T00:00:00Z"),
    ] {
        let time: GoTime = serde_json::from_value(json!(text)).expect(text);
        assert_eq!(time, GoTime { unix_ms }, "{text}");
        assert_eq!(serde_json::to_value(time).expect(text), json!(written));
    }
    for bad in [json!("yesterday"), json!(5), json!("2020-11-12")] {
        assert!(serde_json::from_value::<GoTime>(bad.clone()).is_err(), "{bad}");
    }
    assert!(serde_json::to_value(GoTime { unix_ms: u64::MAX }).is_err());
}

#[test]
fn bytes_and_readers() {
    for (text, bytes) in [("null", &b""[..]), (r#""""#, b""), (r#""AP8=""#, &[0, 255])] {
        assert_eq!(serde_json::from_str::<Base64>(text).expect(text).0, bytes);
    }
    for bad in [r#""AP8""#, r#""*""#, "[0,255]"] {
        assert!(serde_json::from_str::<Base64>(bad).is_err(), "{bad}");
    }
    shape::<ReaderParam>(r#"{"Type":"null","Info":"2032"}"#);
    shape::<ReaderParam>(r#"{"Type":"http","Info":"http://h/p"}"#);
    shape::<ReaderParam>(r#"{"Type":"push","Info":"07070707-0707-0707-0707-070707070707"}"#);
    assert!(serde_json::from_str::<ReaderParam>(r#"{"Type":"other","Info":"x"}"#).is_err());
    assert!(serde_json::from_str::<ReaderParam>(r#"{"Type":"push","Info":"x"}"#).is_err());
}

//! A Lotus worker at a Sealyard manager: a scripted stand-in (see `lotus`) joins as Lotus does and seals a sector, alone
//! and together with a Sealyard worker.

mod lotus;
mod system;

use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lotus::worker::{LotusWorker, Script, Seen};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use system::addresses::free_addresses;
use system::{Daemon, ok, sealyard};

/// A 2 KiB sector is at Commit1 within seconds; a loaded machine gets more.
const SEALING_MAX: Duration = Duration::from_secs(300);
/// For one event that is due at once.
const EVENT_MAX: Duration = Duration::from_secs(60);

/// The manager's own worker takes nothing.
const NO_LOCAL_TASKS: &str = "[Storage]\nAllowAddPiece = false\nAllowPreCommit1 = false\nAllowPreCommit2 = false\n\
    AllowCommit = false\nAllowUnseal = false\n";

/// The tasks of a Lotus worker with everything on.
const ALL: [&str; 8] = [
    "seal/v0/addpiece",
    "seal/v0/datacid",
    "seal/v0/precommit/1",
    "seal/v0/precommit/2",
    "seal/v0/commit/2",
    "seal/v0/unseal",
    "seal/v0/replicaupdate",
    "seal/v0/provereplicaupdate/2",
];
/// With `--precommit2=false --commit=false`.
const FIRST_HALF: [&str; 4] =
    ["seal/v0/addpiece", "seal/v0/datacid", "seal/v0/precommit/1", "seal/v0/unseal"];

/// A manager whose own worker takes nothing.
fn manager(home: &Path) -> Daemon {
    manager_with(home, NO_LOCAL_TASKS)
}

fn manager_with(home: &Path, config: &str) -> Daemon {
    init(home, config);
    run_manager(home, "127.0.0.1:0")
}

fn init(home: &Path, config: &str) {
    ok(sealyard(home).args(["init", "--actor", "t01000", "--sector-size", "2KiB", "--no-local-storage"]));
    std::fs::write(home.join(".sealyard/config.toml"), config).expect("config.toml");
}

fn run_manager(home: &Path, address: &str) -> Daemon {
    let mut manager = Daemon::start("manager", sealyard(home).args(["run", "--listen", address]));
    manager.expect("listening on");
    manager
}

fn join(home: &Path, tasks: &[&'static str], script: Script) -> LotusWorker {
    let said = ok(sealyard(home).args(["auth", "api-info", "--perm", "admin"]));
    let api_info = said.trim().strip_prefix("MINER_API_INFO=").unwrap_or_else(|| panic!("{said}")).to_owned();
    LotusWorker::join(home, &api_info, tasks, script)
}

fn pledge(home: &Path) -> u64 {
    let said = ok(sealyard(home).args(["sectors", "pledge", "--until", "c1"]));
    said.trim().strip_prefix("Created CC sector: ").and_then(|number| number.parse().ok()).expect("a number")
}

/// The sector's status once it rests at Commit1.
fn sealed(home: &Path, number: u64, manager: &mut Daemon, worker: &LotusWorker) -> Value {
    let begun = Instant::now();
    loop {
        let text = ok(sealyard(home).args(["sectors", "status", &number.to_string(), "--json"]));
        let status: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        if status["c1_sha256"].is_string() && status["stopped"] == true {
            assert_eq!(status["state"], "Committing", "{}", manager.said());
            return status;
        }
        let (seen, complaints) = (worker.work(), worker.complaints());
        assert!(begun.elapsed() < SEALING_MAX, "{status:#}\n{seen:#?}\n{complaints:#?}\n{}", manager.said());
    }
}

fn none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// 64 hexadecimal digits as Lotus sends them.
fn base64_of(digits: &Value) -> Value {
    STANDARD.encode(hex::decode(digits.as_str().expect("digits")).expect("digits")).into()
}

/// The result of a task in the order of returns.
fn returned(worker: &LotusWorker, method: &str) -> Vec<Value> {
    let returns = worker.trace().all().into_iter().filter_map(|seen| match seen {
        Seen::Return { method: of, params, answer } if of == method => {
            assert_eq!(answer, Ok(Value::Null), "{method} {params}");
            Some(params)
        }
        _ => None,
    });
    returns.collect()
}

#[test]
fn a_lotus_worker_seals_a_sector() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let mut manager = manager(home);
    let script = Script {
        loses_first_precommit1: true,
        returns_early: Some("SealPreCommit2"),
        returns_twice: Some("SealCommit1"),
        holds_back: None,
    };
    let worker = join(home, &ALL, script);
    was_dialled_as_lotus_dials(&worker);

    let number = pledge(home);
    let status = sealed(home, number, &mut manager, &worker);
    worker.trace().wait("the second return of Commit1", EVENT_MAX, |seen| {
        let is = |one: &&Seen| matches!(one, Seen::Return { method, .. } if method == "ReturnSealCommit1");
        (seen.iter().filter(is).count() == 2).then_some(())
    });
    was_given_lotus_work(&worker, number, &status);
    let listed = ok(sealyard(home).args(["workers", "list"]));
    assert!(listed.contains("lotus-stand-in"), "{listed}");
    let found = ok(sealyard(home).args(["storage", "find", &number.to_string()]));
    assert!(found.contains(&worker.inner.path.id), "{found}");
    none(worker.complaints());
}

/// The callbacks during WorkerConnect, each with an admin token that AuthVerify knew.
fn was_dialled_as_lotus_dials(worker: &LotusWorker) {
    let mut methods = Vec::new();
    let mut tokens = Vec::new();
    for seen in worker.trace().all() {
        if let Seen::Call { method, token, .. } = seen {
            methods.push(method);
            tokens.push(token);
        }
    }
    assert_eq!(methods[..5], ["Version", "Session", "Info", "TaskTypes", "Paths"].map(str::to_owned));
    assert!(tokens.iter().all(|token| *token == tokens[0] && !token.is_empty()), "one token for one worker");
}

/// Every call had Go's shapes (the stand-in has complained otherwise) and carried the right values on.
fn was_given_lotus_work(worker: &LotusWorker, number: u64, status: &Value) {
    let work = worker.work();
    let names: Vec<&str> =
        work.iter().map(|(method, _)| method.as_str()).filter(|name| *name != "Fetch").collect();
    let expected = ["AddPiece", "SealPreCommit1", "SealPreCommit1", "SealPreCommit2", "SealCommit1"];
    assert_eq!(names, expected, "PreCommit1 is called again after code 101");
    let params = |method: &str| {
        work.iter().rfind(|(name, _)| name == method).map(|(_, params)| params.clone()).expect(method)
    };
    let sector = json!({ "ID": { "Miner": 1000, "Number": number }, "ProofType": 5 });

    let piece = returned(worker, "ReturnAddPiece")[0][1].clone();
    assert_eq!(params("AddPiece")[2..], [json!(2032), json!({ "Type": "null", "Info": "2032" })]);
    let (ticket, seed) = (base64_of(&status["ticket"]), base64_of(&status["seed"]));
    assert_eq!(params("SealPreCommit1"), [sector.clone(), ticket.clone(), json!([piece])]);
    let precommit1 = returned(worker, "ReturnSealPreCommit1");
    assert_eq!(precommit1[0][1], Value::Null, "the lost one was returned with Go's zero value");
    assert_eq!(params("SealPreCommit2"), [sector.clone(), precommit1[1][1].clone()]);
    let cids = returned(worker, "ReturnSealPreCommit2")[0][1].clone();
    assert_eq!(params("SealCommit1"), [sector, ticket, seed, json!([piece]), cids.clone()]);
    assert_eq!(status["comm_d"], cids["Unsealed"]["/"]);
    assert_eq!(status["comm_r"], cids["Sealed"]["/"]);

    let commit1 = returned(worker, "ReturnSealCommit1");
    assert_eq!(commit1.len(), 2, "the repeated return is acknowledged too");
    let bytes = STANDARD.decode(commit1[0][1].as_str().expect("base64")).expect("base64");
    assert_eq!(status["c1_sha256"], hex::encode(Sha256::digest(bytes)));
}

#[test]
fn a_sealyard_worker_takes_the_replica_from_a_lotus_worker() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let mut manager = manager(home);
    let worker = join(home, &FIRST_HALF, Script::default());
    let mut command = sealyard(home);
    command.args(["worker", "run", "--name", "B", "--address", "127.0.0.1:0", "--precommit2", "--commit"]);
    command.arg("--worker-repo").arg(home.join("B")).env("IPFS_GATEWAY", "http://127.0.0.1:9/ipfs/");
    let mut sealyard_worker = Daemon::start("B", &mut command);
    sealyard_worker.expect("registered");

    let number = pledge(home);
    let status = sealed(home, number, &mut manager, &worker);
    assert_eq!(status["state"], "Committing");
    let name = lotus::sector_name(1000, number);
    for (kind, bit) in [("sealed", 2), ("cache", 4)] {
        let target = format!("/remote/{kind}/{name}");
        let asked = |verb: &str| {
            let is = |seen: &Seen| matches!(seen, Seen::Remote { verb: of, target: at } if of == verb && at.split('?').next() == Some(&target));
            worker.trace().first(&format!("{verb} {target}"), EVENT_MAX, is)
        };
        asked("GET");
        let Seen::Remote { target, .. } = asked("DELETE") else { unreachable!("it was looked for") };
        let kept = target.split_once("?keep=").map(|(_, ids)| ids.to_owned()).unwrap_or_default();
        assert!(uuid::Uuid::try_parse(&kept).is_ok(), "{target} names the one path that keeps it");
        assert_ne!(kept, worker.inner.path.id);
        assert!(
            !worker.inner.path.file(bit, (1000, number)).exists(),
            "{kind} is deleted on the Lotus worker"
        );
        assert!(home.join("B").join(kind).join(&name).exists(), "{kind} is on B");
    }
    let names: Vec<String> = worker.work().into_iter().map(|(method, _)| method).collect();
    assert!(
        names.iter().all(|name| ["AddPiece", "SealPreCommit1", "Fetch"].contains(&name.as_str())),
        "{names:?}"
    );
    let found = ok(sealyard(home).args(["storage", "find", &number.to_string()]));
    assert!(found.contains("Sealed, Cache") && found.contains("Worker: B"), "{found}");
    none(worker.complaints());
}

#[test]
fn an_abort_detaches_what_a_lotus_worker_does_and_frees_it_when_that_has_returned() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let mut manager = manager(home);
    let script = Script { holds_back: Some("SealPreCommit1"), ..Script::default() };
    let worker = join(home, &ALL, script);
    let number = pledge(home).to_string();
    worker.trace().first("PreCommit1's end", EVENT_MAX, |seen| matches!(seen, Seen::HeldBack));
    let said = ok(sealyard(home).args(["sealing", "abort", &number]));
    assert!(said.contains("is a Lotus worker and cannot be told to stop"), "{said}");
    let status = |what: &str| -> Value {
        let text = ok(sealyard(home).args(["sectors", "status", &number, "--json"]));
        let status: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(status["state"], what, "{status:#}");
        status
    };
    status("SealPreCommit1Failed");
    let listed = || -> Value {
        serde_json::from_str(&ok(sealyard(home).args(["workers", "list", "--json"]))).expect("JSON")
    };
    let charged = |workers: &Value| {
        let workers = workers.as_array().expect("a list");
        workers.iter().filter(|worker| worker["kind"] == "lotus").all(|worker| worker["running"]["PC1"] == 1)
    };
    assert!(charged(&listed()), "{:#}", listed());
    assert!(ok(sealyard(home).args(["sealing", "jobs"])).contains("detached"));
    ok(sealyard(home).args(["sectors", "retry", &number]));
    status("PreCommit1");

    worker.let_go();
    worker.trace().wait("the second PreCommit1", EVENT_MAX, |seen| {
        let is = |one: &&Seen| matches!(one, Seen::Call { method, .. } if method == "SealPreCommit1");
        (seen.iter().filter(is).count() == 2).then_some(())
    });
    // The first was acknowledged, though its result was not taken. The worker may note the answer after the next call.
    worker.trace().wait("the first's acknowledgement", EVENT_MAX, |seen| {
        let is = |one: &Seen| matches!(one, Seen::Return { method, .. } if method == "ReturnSealPreCommit1");
        seen.iter().any(is).then_some(())
    });
    assert!(!returned(&worker, "ReturnSealPreCommit1").is_empty(), "{}", manager.said());
    none(worker.complaints());
}

/// What an operator gives for a sector, sent to whoever is to write it: asked for first, sent elsewhere once, with zeros up to the
/// piece's end.
#[test]
fn data_of_an_operator_is_pushed_to_a_lotus_worker_and_sealed() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let config = format!("{NO_LOCAL_TASKS}[sealing]\nstop_at = \"c1\"\n");
    let mut manager = manager_with(home, &config);
    let worker = join(home, &ALL, Script::default());
    let data: Vec<u8> = (0..1000_u32).map(|at| (at * 7 % 251) as u8).collect();
    let piece = [data.as_slice(), &[0; 16]].concat();
    std::fs::write(home.join("piece.car"), &data).expect("a file");
    let given = system::json(home, &["sectors", "add-piece", "piece.car"]);
    assert_eq!(given["cid"], lotus::commitment::piece_cid(&piece));
    ok(sealyard(home).args(["sectors", "start-seal", "1"]));
    let status = sealed(home, 1, &mut manager, &worker);

    let pushes = worker.trace().all().into_iter().filter_map(|seen| match seen {
        Seen::Push { verb, path, bytes } => Some((verb, path, bytes)),
        _ => None,
    });
    let pushes: Vec<_> = pushes.collect();
    let work = worker.work();
    let adds: Vec<_> =
        work.iter().filter(|(method, _)| method == "AddPiece").map(|(_, params)| params).collect();
    let id = adds[0][3]["Info"].as_str().expect("a stream's id");
    let elsewhere = format!("{}{id}", lotus::jobs::ELSEWHERE);
    let asked = |path: &str| ("HEAD".to_owned(), path.to_owned(), Vec::new());
    let sent = ("POST".to_owned(), elsewhere.clone(), piece);
    assert_eq!(pushes, [asked(&format!("/rpc/streams/v0/push/{id}")), asked(&elsewhere), sent]);
    assert_eq!(adds[0][1..4], [json!([]), json!(1016), json!({ "Type": "push", "Info": id })]);
    let zeros = json!({ "Type": "null", "Info": "1016" });
    assert_eq!(
        (adds.len(), &adds[1][1..4]),
        (2, &[json!([1016]), json!(1016), zeros][..]),
        "zeros fill it up"
    );
    let returned = returned(&worker, "ReturnAddPiece");
    assert_eq!((&returned[0][1]["PieceCID"]["/"], &returned[0][1]["Size"]), (&given["cid"], &json!(1024)));
    let zeros = lotus::commitment::piece_cid(&[0; 1016]);
    assert_eq!(status["pieces"], json!([[1024, given["cid"]], [1024, zeros]]));
    none(worker.complaints());
}

/// A manager, and a Lotus worker that holds a sector's PreCommit1 back; then the manager is killed and started again.
fn restarted_meanwhile(home: &Path) -> (Daemon, LotusWorker, u64) {
    let [address, ..] = free_addresses();
    init(home, NO_LOCAL_TASKS);
    let mut first = run_manager(home, &address);
    let script = Script { holds_back: Some("SealPreCommit1"), ..Script::default() };
    let worker = join(home, &ALL, script);
    let number = pledge(home);
    worker.trace().first("PreCommit1's end", EVENT_MAX, |seen| matches!(seen, Seen::HeldBack));
    let killed = std::process::Command::new("kill").args(["-9", &first.id().to_string()]).status();
    assert!(killed.is_ok_and(|status| status.success()));
    assert_eq!(first.end(), None, "it was killed");
    (run_manager(home, &address), worker, number)
}

fn work_of(worker: &LotusWorker, sector: u64) -> Vec<String> {
    let is = |params: &[Value]| params[0]["ID"]["Number"] == sector;
    let work = worker.work().into_iter().filter(|(name, params)| name != "Fetch" && is(params));
    work.map(|(method, _)| method).collect()
}

const ALL_WORK: [&str; 4] = ["AddPiece", "SealPreCommit1", "SealPreCommit2", "SealCommit1"];

#[test]
fn a_lotus_worker_returns_to_a_restarted_manager() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let (mut second, worker, number) = restarted_meanwhile(home);
    // Lotus returns first and registers when it is quiet: the new process must still know the old one's call.
    worker.let_go();
    let is = |seen: &Seen| matches!(seen, Seen::Return { method, .. } if method == "ReturnSealPreCommit1");
    worker.trace().first("PreCommit1's return", EVENT_MAX, is);
    assert_eq!(returned(&worker, "ReturnSealPreCommit1").len(), 1);
    worker.join_again();
    sealed(home, number, &mut second, &worker);
    assert_eq!(work_of(&worker, number), ALL_WORK, "nothing is done twice");
    none(worker.complaints());
}

#[test]
fn a_restarted_manager_dials_a_lotus_worker_that_is_not_quiet() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let (mut second, worker, number) = restarted_meanwhile(home);
    // Its PreCommit1 runs on for hours, and until then it does not register by itself.
    worker.declare_again();
    let listed = || -> Value {
        serde_json::from_str(&ok(sealyard(home).args(["workers", "list", "--json"]))).expect("JSON")
    };
    let begun = Instant::now();
    let found = loop {
        let list = listed();
        let is = |worker: &&Value| worker["name"] == "lotus-stand-in";
        if let Some(found) = list.as_array().expect("a list").iter().find(is) {
            break found.clone();
        }
        assert!(begun.elapsed() < EVENT_MAX, "it is not dialled: {list:#}\n{}", second.said());
    };
    assert_eq!(found["running"]["PC1"], 1, "what it does is charged: {found:#}");
    let next = pledge(home);
    let is = |seen: &Seen| {
        matches!(seen, Seen::Call { method, params, .. }
            if method == "AddPiece" && params[0]["ID"]["Number"] == next)
    };
    worker.trace().first("work on its free slots", EVENT_MAX, is);
    assert!(returned(&worker, "ReturnSealPreCommit1").is_empty(), "it was never quiet");

    worker.let_go();
    for sector in [number, next] {
        sealed(home, sector, &mut second, &worker);
        assert_eq!(work_of(&worker, sector), ALL_WORK, "nothing is done twice");
    }
    none(worker.complaints());
}

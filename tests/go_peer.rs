//! Sealyard against Lotus's own published code, in Go (see `go/`): its worker at our manager, its manager with our
//! worker, its API clients with our manager, its index beside ours.

mod system;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use system::go::peer;
use system::{Daemon, SEALYARD, ok, run_within, sealyard};

/// A 2 KiB sector is at Commit1 within seconds; a loaded machine gets more.
const SEALING_MAX: Duration = Duration::from_secs(300);

/// The manager's own worker takes nothing.
const NO_LOCAL_TASKS: &str = "[Storage]\nAllowAddPiece = false\nAllowPreCommit1 = false\nAllowPreCommit2 = false\n\
    AllowCommit = false\nAllowUnseal = false\n";

/// What a Lotus worker that seals offers.
const TASKS: &str = "seal/v0/fetch,seal/v0/commit/1,seal/v0/provereplicaupdate/1,seal/v0/finalize,\
    seal/v0/finalizeunsealed,seal/v0/finalize/replicaupdate,seal/v0/addpiece,seal/v0/datacid,seal/v0/precommit/1,\
    seal/v0/unseal,seal/v0/precommit/2,seal/v0/commit/2,seal/v0/replicaupdate,seal/v0/provereplicaupdate/2,\
    seal/v0/regensectorkey";

/// A manager whose own worker takes nothing.
fn manager(home: &Path) -> Daemon {
    ok(sealyard(home).args(["init", "--actor", "t01000", "--sector-size", "2KiB", "--no-local-storage"]));
    std::fs::write(home.join(".sealyard/config.toml"), NO_LOCAL_TASKS).expect("config.toml");
    let mut manager = Daemon::start("manager", sealyard(home).args(["run", "--listen", "127.0.0.1:0"]));
    manager.expect("listening on");
    manager
}

/// The peer in one of its roles, at the manager of `home`.
fn at_manager(program: &Path, home: &Path, args: &[&str]) -> Command {
    let said = ok(sealyard(home).args(["auth", "api-info", "--perm", "admin"]));
    let api_info = said.trim().strip_prefix("MINER_API_INFO=").unwrap_or_else(|| panic!("{said}")).to_owned();
    let mut command = Command::new(program);
    system::quiet(&mut command, home);
    command.args(args).env("MINER_API_INFO", api_info).env("SEALYARD_PROGRAM", SEALYARD);
    command
}

fn lotus_worker(program: &Path, home: &Path, script: &[&str]) -> Daemon {
    let repo = home.join("L");
    let mut args = vec!["worker", "-name", "lotus", "-tasks", TASKS, "-repo", repo.to_str().expect("UTF-8")];
    args.extend(script);
    let mut worker = Daemon::start("Lotus's worker", &mut at_manager(program, home, &args));
    worker.expect("\"registered\"");
    worker
}

fn pledge(home: &Path) -> u64 {
    let said = ok(sealyard(home).args(["sectors", "pledge", "--until", "c1"]));
    said.trim().strip_prefix("Created CC sector: ").and_then(|number| number.parse().ok()).expect("a number")
}

/// The sector's status once it rests at Commit1.
fn sealed(home: &Path, number: u64, manager: &mut Daemon, worker: &mut Daemon) -> Value {
    let begun = Instant::now();
    loop {
        let text = ok(sealyard(home).args(["sectors", "status", &number.to_string(), "--json"]));
        let status: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        if status["c1_sha256"].is_string() && status["stopped"] == true {
            return status;
        }
        let late = begun.elapsed() > SEALING_MAX;
        assert!(!late, "{status:#}\n{}\n{}", worker.said(), manager.said());
    }
}

/// What a peer has told so far, in order; its logs are no JSON and are passed over.
fn events(peer: &mut Daemon) -> Vec<Value> {
    let told: Vec<Value> = peer.said().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let failed: Vec<&Value> = told.iter().filter(|event| event["event"] == "failed").collect();
    assert!(failed.is_empty(), "{failed:#?}");
    told
}

/// The returns of one method.
fn returns(worker: &mut Daemon, method: &str) -> Vec<Value> {
    let told = events(worker).into_iter();
    told.filter(|event| event["event"] == "return" && event["method"] == method).collect()
}

#[test]
fn lotus_s_worker_seals_a_sector_of_ours() {
    let Some(program) = peer() else { return };
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let mut manager = manager(home);
    let mut worker = lotus_worker(program, home, &["-early", "-twice", "-fails"]);
    let number = pledge(home);
    let status = sealed(home, number, &mut manager, &mut worker);
    worker.expect("\"again\":true");

    let precommit1 = returns(&mut worker, "SealPreCommit1");
    let failure = json!({ "Code": 101, "Message": "worker [name: lotus] restarted" });
    let (first, second) = (&precommit1[0], &precommit1[1]);
    assert_eq!((&first["failure"], &first["bytes"], &first["refused"]), (&failure, &json!(0), &json!("")));
    assert_eq!((&second["failure"], &second["refused"]), (&Value::Null, &json!("")));
    let precommit2 = &returns(&mut worker, "SealPreCommit2")[0];
    assert_eq!(precommit2["refused"], "", "it came before the answer to its call");
    assert_eq!(precommit2["cids"]["Unsealed"]["/"], status["comm_d"]);
    assert_eq!(precommit2["cids"]["Sealed"]["/"], status["comm_r"]);
    let commit1 = returns(&mut worker, "SealCommit1");
    assert!(commit1.len() == 2 && commit1.iter().all(|one| one["refused"] == ""), "{commit1:?}");
    let bytes = STANDARD.decode(commit1[0]["out"].as_str().expect("base64")).expect("base64");
    assert_eq!(status["c1_sha256"], hex::encode(Sha256::digest(bytes)));
    assert!(ok(sealyard(home).args(["workers", "list"])).contains("lotus"));

    command_line_reads_every_answer(program, home, number);
}

/// The calls of Lotus's command line, by Lotus's client over websocket and HTTP, into Lotus's types.
fn command_line_reads_every_answer(program: &Path, home: &Path, number: u64) {
    let paths: Value =
        serde_json::from_slice(&std::fs::read(home.join("L/sectorstore.json")).expect("a path"))
            .expect("JSON");
    let (number, path) = (number.to_string(), paths["ID"].as_str().expect("an id").to_owned());
    let args = ["client", "-sector", &number, "-storage", &path];
    let output = run_within(&mut at_manager(program, home, &args), system::COMMAND_MAX);
    let told = system::text(&output.stdout);
    assert!(output.status.success(), "{told}\n{}", system::text(&output.stderr));
    let mut refused = BTreeMap::new();
    let mut answered = 0;
    for line in told.lines() {
        let event: Value = serde_json::from_str(line).expect(line);
        if event["event"] != "answer" {
            continue;
        }
        assert!(event["broken"].is_null() && event["differs"] == "", "{line}");
        answered += 1;
        let method = event["method"].as_str().expect("a name").to_owned();
        if event["fault"].is_null() {
            assert_eq!(event["error"], "", "{line}");
            continue;
        }
        // A refusal is a handler's, in words, and Go's client hands on the same words.
        assert_eq!(event["fault"]["Code"], 1, "{line}");
        let words = event["fault"]["Message"].as_str().expect("words").to_owned();
        assert!(event["error"].as_str().is_some_and(|error| !error.is_empty()), "{line}");
        refused.insert(method, words);
    }
    assert!(answered > 90, "{answered}");
    let expected = [
        "ComputeWindowPoSt",
        "LogSetLevel",
        "SealingAbort",
        "SealingRemoveRequest",
        "SectorAbortUpgrade",
        "SectorMarkForUpgrade",
        "SectorNumFree",
        "SectorRemove",
        "SectorStartSealing",
        "SectorsUnsealPiece",
        "SectorsUpdate",
    ];
    assert_eq!(refused.keys().map(String::as_str).collect::<Vec<_>>(), expected, "{refused:#?}");
}

/// What one command of `lotus-miner` is told, and prints.
fn operate(program: &Path, home: &Path, args: &[&str]) -> Vec<Value> {
    let args = [&["operate"], args].concat();
    let output = run_within(&mut at_manager(program, home, &args), system::COMMAND_MAX);
    let told = system::text(&output.stdout);
    assert!(output.status.success(), "{args:?}: {told}\n{}", system::text(&output.stderr));
    let told = told.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
    told.filter(|event| event["event"] != "done").collect()
}

/// While Lotus's worker does PreCommit1 and takes no other sector.
#[test]
fn lotus_s_commands_show_and_steer_a_manager_that_is_at_work() {
    let Some(program) = peer() else { return };
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let _manager = manager(home);
    let mut worker = lotus_worker(program, home, &["-hangs"]);
    let operate = |args: &[&str]| operate(program, home, args);
    let status = |number: &str| {
        let told = operate(&["status", number]).remove(0);
        (told["state"].clone(), told["error"].as_str().expect("words").to_owned())
    };
    assert_eq!(operate(&["pledge"])[0]["text"], "Created CC sector:  1\n");
    worker.expect("\"name\":\"SealPreCommit1\"");
    let is_running = |jobs: &Vec<Value>| jobs.first().is_some_and(|job| job["state"] == "running");
    let jobs = system::ask_until("its job", SEALING_MAX, || operate(&["jobs"]), is_running);
    let worker_id =
        system::json(home, &["workers", "list"]).as_array().expect("workers").iter().find_map(|view| {
            Some(view["session"].as_str().filter(|_| view["name"] == "lotus")?[..8].to_owned())
        });
    let job = &jobs[0];
    let shown = ["sector", "host", "task", "worker"].map(|key| job[key].clone());
    assert_eq!(
        (jobs.len(), shown),
        (1, [json!(1), json!("lotus"), json!("PC1"), json!(worker_id)]),
        "{jobs:?}"
    );
    let lock = json!({"event": "lock", "sector": 1, "state": "PreCommit1", "held": "unsealed(R:1) sealed(W) cache(W) "});
    assert_eq!(operate(&["locks"]), [lock]);

    ok(sealyard(home).args(["workers", "cordon", "lotus"]));
    assert_eq!(operate(&["pledge"])[0]["text"], "Created CC sector:  2\n");
    let queued = || operate(&["sched-diag"]).remove(0)["is"]["SchedInfo"]["Requests"][0].clone();
    let request = system::ask_until("its request", SEALING_MAX, queued, |request| !request.is_null());
    let shown = ["Sector", "TaskType"].map(|key| request[key].clone());
    assert_eq!(shown, [json!({"Miner": 1000, "Number": 2}), json!("seal/v0/addpiece")]);

    // Lotus's worker cannot be told to stop, so the sector does not wait for it any more.
    let id = job["id"].as_str().expect("an id");
    let said = operate(&["abort", id]).remove(0);
    let said = said["text"].as_str().expect("words");
    assert!(said.starts_with(&format!("aborting job 1000-1-{id}")), "{said}");
    assert!(said.ends_with(", task PC1, sector 1, running on host lotus"), "{said}");
    let is_ended =
        |(state, error): &(Value, String)| state == "SealPreCommit1Failed" && error.contains("task aborted");
    system::ask_until("it is ended", SEALING_MAX, || status("1"), is_ended);

    operate(&["abort-request", request["SchedId"].as_str().expect("an id")]);
    let is_refused = |(state, error): &(Value, String)| state == "AddPieceFailed" && !error.is_empty();
    system::ask_until("its request is ended", SEALING_MAX, || status("2"), is_refused);
    assert!(operate(&["sched-diag"])[0]["is"]["SchedInfo"]["Requests"].is_null(), "it is taken out");
    operate(&["remove", "2"]);
    system::ask_until("it is removed", SEALING_MAX, || status("2").0, |state| state == "Removed");
}

#[test]
fn lotus_s_worker_disowns_its_call_after_a_crash_and_seals_on() {
    let Some(program) = peer() else { return };
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let mut manager = manager(home);
    let mut first = lotus_worker(program, home, &["-hangs"]);
    let number = pledge(home);
    first.expect("\"name\":\"SealPreCommit1\"");
    let killed = Command::new("kill").args(["-9", &first.id().to_string()]).status();
    assert!(killed.is_ok_and(|status| status.success()));
    assert_eq!(first.end(), None, "it was killed");

    let mut second = lotus_worker(program, home, &[]);
    sealed(home, number, &mut manager, &mut second);
    let told = events(&mut second);
    let at =
        |wanted: &dyn Fn(&Value) -> bool| told.iter().position(wanted).unwrap_or_else(|| panic!("{told:#?}"));
    let disowned = at(&|event| event["failure"]["Code"] == 101 && event["refused"] == "");
    assert!(disowned < at(&|event| event["event"] == "task"), "before any new job: {told:#?}");
    assert_eq!(told.iter().filter(|event| event["failure"]["Code"] == 101).count(), 1, "{told:#?}");
}

#[test]
fn the_index_answers_as_lotus_s_does() {
    let Some(program) = peer() else { return };
    for seed in ["1", "2", "3"] {
        // Each on an index that knows nothing yet, as Lotus's does.
        let home = tempfile::tempdir().expect("a directory");
        let _manager = manager(home.path());
        let mut command = at_manager(program, home.path(), &["index", "-seed", seed]);
        let output = run_within(&mut command, system::COMMAND_MAX);
        let told = system::text(&output.stdout);
        assert!(output.status.success() && told.contains("\"done\""), "seed {seed}:\n{told}");
    }
}

#[test]
fn lotus_s_manager_seals_with_our_worker() {
    let Some(program) = peer() else { return };
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let mut command = Command::new(program);
    system::quiet(&mut command, home);
    command.args(["miner", "-repo"]).arg(home.join("M")).env("SEALYARD_PROGRAM", SEALYARD);
    let mut miner = Daemon::start("Lotus's manager", &mut command);
    let listening: Value = serde_json::from_str(&miner.expect("\"listening\"")).expect("JSON");
    let mut command = sealyard(home);
    command
        .env("MINER_API_INFO", listening["api"].as_str().expect("an address"))
        .args(["worker", "run", "--name", "W"]);
    command.args(["--no-params-fetch", "--address", "127.0.0.1:0", "--worker-repo"]).arg(home.join("W"));
    let mut worker = Daemon::start("worker", &mut command);
    worker.expect("registered");
    // It says either, and then no more.
    let last = miner.expect_one_of(&["\"done\"", "\"failed\""], SEALING_MAX);
    assert!(last.contains("\"done\""), "{last}\n{}\n{}", miner.said(), worker.said());

    let told = events(&mut miner);
    let of = |name: &str| told.iter().filter(|event| event["event"] == name).cloned().collect::<Vec<_>>();
    for step in
        ["AddPiece", "SealPreCommit2", "SealCommit1", "VanillaProofs", "FinalizeSector", "SectorsUnsealPiece"]
    {
        assert_eq!(of(step).len(), 1, "{step}: {told:#?}");
    }
    let read: Vec<Value> = of("read").into_iter().map(|event| event["where"].clone()).collect();
    assert_eq!(read, ["remote", "local"], "the piece is read from our worker, and unsealed by it");
    let refused = &of("refused")[0];
    assert!(refused["message"].as_str().is_some_and(|text| text.ends_with(" [name: W]")), "{refused}");
    let pushed = of("ComputeDataCid");
    assert_eq!(pushed.len(), 2, "over HTTP and over a websocket");
    assert!(pushed.iter().all(|one| one["piece"] == of("AddPiece")[0]["piece"]), "{pushed:#?}");
    for (kind, name) in [("unsealed", "s-t01000-1"), ("sealed", "s-t01000-1"), ("cache", "s-t01000-1")] {
        assert!(home.join("M").join(kind).join(name).exists(), "{kind} is stored");
        assert!(!home.join("W").join(kind).join(name).exists(), "{kind} is moved away from our worker");
    }
}

#[test]
fn an_unsealed_file_s_trailer_is_byte_for_byte_lotus_s() {
    let Some(program) = peer() else { return };
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("unsealed");
    let mut file = pieces::PartialFile::create(&path, sealtasks::SectorSize::KiB2).expect("a file");
    let output = run_within(Command::new(program).arg("trailers"), system::COMMAND_MAX);
    let told = system::text(&output.stdout);
    assert!(output.status.success() && told.contains("\"done\""), "{told}");
    let mut changes = 0;
    for line in told.lines().filter(|line| line.contains("\"trailer\"")) {
        let change: Value = serde_json::from_str(line).expect(line);
        let (offset, length) =
            (change["offset"].as_u64().expect(line), change["length"].as_u64().expect(line));
        if change["frees"] == true {
            file.free(offset..offset + length).expect(line);
        } else {
            file.mark_allocated(offset, length).expect(line);
        }
        let bytes = std::fs::read(&path).expect("the file");
        assert_eq!(hex::encode(&bytes[2048..]), change["bytes"], "{line}");
        changes += 1;
    }
    assert_eq!(changes, 200);
}

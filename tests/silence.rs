//! Workers that fall silent, end or stop while an executor of theirs is at work: real processes, stopped and ended by signals
//! and commands. What comes late of an attempt that was given up is not taken, and no two executors of a sector ever run
//! beside each other on one worker.

mod system;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use system::{COMMAND_MAX, Daemon, SEALYARD, ask_until, executors, json, ok, sealyard, signal, text};

/// A 2 KiB sector is at Commit1 within seconds; a loaded machine gets more.
const SEALING_MAX: Duration = Duration::from_secs(300);

/// The manager's own worker takes nothing.
const NO_LOCAL_TASKS: &str = "[Storage]\nAllowAddPiece = false\nAllowPreCommit1 = false\nAllowPreCommit2 = false\n\
    AllowCommit = false\nAllowUnseal = false\n";

const PC1: &str = "seal/v0/precommit/1";

/// A manager with one worker, whose PreCommit1 waits at a gate before it is done.
struct Yard {
    home: PathBuf,
    program: String,
    address: String,
    manager: Daemon,
}

impl Yard {
    fn new(home: &Path, scheduler: &str) -> Self {
        ok(sealyard(home).args(["init", "--actor", "t01000", "--no-local-storage"]));
        fs::write(home.join(".sealyard/config.toml"), format!("{NO_LOCAL_TASKS}{scheduler}"))
            .expect("config.toml");
        let mut manager = Daemon::start("manager", sealyard(home).args(["run", "--listen", "127.0.0.1:0"]));
        manager.expect("listening on");
        let script = home.join("gated");
        let gate = home.join("gate");
        let text = format!(
            "#!/bin/sh\nwhile [ ! -e {} ]; do sleep 0.1; done\nexec {SEALYARD} exec \"$@\"\n",
            gate.display()
        );
        fs::write(&script, text).expect("a script");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("permissions");
        let program = format!("pc1={}", script.display());
        Self { home: home.to_owned(), program, address: "127.0.0.1:0".into(), manager }
    }

    fn worker(&mut self) -> Daemon {
        let mut command = sealyard(&self.home);
        command.args(["worker", "run", "--name", "W", "--worker-repo", "W", "--address", &self.address]);
        command.args(["--addpiece", "--precommit1", "--precommit2", "--executor", &self.program]);
        let mut worker = Daemon::start("W", &mut command);
        worker.expect("registered");
        let url = self.shown()["url"].as_str().expect("a URL").to_owned();
        self.address = url.trim_start_matches("http://").trim_end_matches("/rpc/v0").to_owned();
        worker
    }

    fn shown(&self) -> Value {
        let workers = json(&self.home, &["workers", "list"]);
        let found = workers.as_array().and_then(|all| all.iter().find(|worker| worker["name"] == "W"));
        found.cloned().unwrap_or(Value::Null)
    }

    fn is(&self, state: &str) -> Value {
        ask_until(state, SEALING_MAX, || self.shown(), |worker| worker["state"] == state)
    }

    fn pc1(&self) -> u32 {
        let running = || executors(&self.home, "pc1");
        ask_until("PreCommit1", SEALING_MAX, running, |found| found.len() == 1)[0]
    }

    /// The worker gives the sector's unsealed file to whoever may have it, whatever else it does not do now.
    fn serves_its_files(&self) {
        let token = fs::read_to_string(self.home.join(".sealyard/token")).expect("the manager's token");
        let mut socket = TcpStream::connect(&self.address).expect("the worker listens");
        socket.set_read_timeout(Some(COMMAND_MAX)).expect("a limit");
        let head = "GET /remote/unsealed/s-t01000-1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
        write!(socket, "{head}Authorization: Bearer {}\r\n\r\n", token.trim()).expect("asked");
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).expect("an answer");
        let file = fs::read(self.home.join("W/unsealed/s-t01000-1")).expect("the file");
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", text(&answer));
        assert!(file.len() >= 2048 && answer.ends_with(&file), "{} bytes", answer.len());
    }

    fn open_the_gate(&self) {
        fs::write(self.home.join("gate"), "").expect("the gate");
    }

    /// States of the attempts at PreCommit1 when the sector is at Commit1.
    fn sealed(&self) -> Vec<String> {
        let status = || json(&self.home, &["sectors", "status", "1"]);
        let done = |status: &Value| status["c1_sha256"].is_string() && status["stopped"] == true;
        let status = ask_until("Commit1", SEALING_MAX, status, done);
        let rows = status["tasks"].as_array().expect("tasks").iter().filter(|row| row["task"] == PC1);
        rows.map(|row| row["state"].as_str().unwrap_or("-").to_owned()).collect()
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        for pid in ["ap", "pc1", "pc2", "c1"].into_iter().flat_map(|task| executors(&self.home, task)) {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).output();
        }
    }
}

fn home() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let home = dir.path().canonicalize().expect("a path without links");
    (dir, home)
}

#[test]
fn a_worker_that_was_forgotten_ends_what_it_had_before_it_does_it_again() {
    let (_dir, home) = home();
    let mut yard = Yard::new(&home, "[Scheduler]\nHeartbeat = \"1s\"\nForgetLostAfter = \"15s\"\n");
    let worker = yard.worker();
    ok(sealyard(&home).args(["sectors", "pledge", "--until", "c1"]));
    let first = yard.pc1();
    assert_eq!(yard.is("live")["next_state"], Value::Null);
    signal(worker.id(), "-STOP");
    assert_eq!(yard.is("suspect")["next_state"][0], "lost");
    assert_eq!(yard.is("lost")["next_state"][0], "forgotten");
    yard.is("forgotten");
    let status = json(&home, &["sectors", "status", "1"]);
    let rows = status["tasks"].as_array().expect("tasks");
    let given_up =
        rows.iter().any(|row| row["reason"].as_str().is_some_and(|reason| reason.contains("not heard of")));
    assert!(given_up, "it is queued anew: {rows:#?}");
    assert_eq!(executors(&home, "pc1"), [first], "nobody can end it there yet");

    signal(worker.id(), "-CONT");
    yard.is("live");
    let other = |found: &Vec<u32>| {
        assert!(found.len() < 2, "never beside each other: {found:?}");
        found.first().is_some_and(|pid| *pid != first)
    };
    ask_until("another PreCommit1", SEALING_MAX, || executors(&home, "pc1"), other);
    yard.open_the_gate();
    assert_eq!(yard.sealed(), ["failed", "done"]);
}

#[test]
fn a_worker_that_is_ended_by_a_signal_leaves_its_executor_and_takes_it_over_again() {
    let (_dir, home) = home();
    let mut yard = Yard::new(&home, "");
    let mut worker = yard.worker();
    ok(sealyard(&home).args(["sectors", "pledge", "--until", "c1"]));
    let pid = yard.pc1();
    signal(worker.id(), "-TERM");
    assert_eq!(worker.end(), Some(0), "{}", worker.said());
    assert!(worker.said().contains("1 executor runs on"), "{}", worker.said());
    assert_eq!(executors(&home, "pc1"), [pid]);
    let _again = yard.worker();
    yard.open_the_gate();
    assert_eq!(yard.sealed(), ["done"]);
}

#[test]
fn a_worker_that_is_stopped_finishes_first_or_gives_back_at_once() {
    let (_dir, home) = home();
    let mut yard = Yard::new(&home, "");
    let mut worker = yard.worker();
    ok(sealyard(&home).args(["sectors", "pledge", "--until", "c1"]));
    yard.pc1();
    let said = ok(sealyard(&home).args(["worker", "stop", "--now", "--worker-repo", "W"]));
    assert!(said.contains("1 of its calls were given back"), "{said}");
    assert_eq!(worker.end(), Some(0), "{}", worker.said());
    assert!(executors(&home, "pc1").is_empty());
    let status = json(&home, &["sectors", "status", "1"]);
    let rows = status["tasks"].as_array().expect("tasks");
    let of_pc1: Vec<_> =
        rows.iter().filter(|row| row["task"] == PC1).map(|row| row["state"].clone()).collect();
    assert_eq!(of_pc1, ["failed", "queued"], "it waits for a worker: {rows:#?}");

    let mut worker = yard.worker();
    yard.pc1();
    let mut stop = Daemon::start("stop", sealyard(&home).args(["worker", "stop", "--worker-repo", "W"]));
    stop.expect("waiting for 1 calls to end");
    ask_until("taken off", SEALING_MAX, || yard.shown(), |worker| worker["enabled"] == false);
    assert!(!worker.has_ended(), "{}", worker.said());
    yard.serves_its_files();

    // Whoever waits no longer has stopped nothing.
    signal(stop.id(), "-INT");
    assert_eq!(stop.end(), Some(1), "{}", stop.said());
    assert!(stop.said().contains("was not stopped and takes tasks again"), "{}", stop.said());
    ask_until("taken on again", SEALING_MAX, || yard.shown(), |worker| worker["enabled"] == true);

    let mut stop = Daemon::start("stop", sealyard(&home).args(["worker", "stop", "--worker-repo", "W"]));
    stop.expect("waiting for 1 calls to end");
    yard.open_the_gate();
    assert_eq!(stop.end(), Some(0), "{}", stop.said());
    assert_eq!(worker.end(), Some(0), "{}", worker.said());
    let _last = yard.worker();
    assert_eq!(yard.sealed(), ["failed", "done"]);
}

#[test]
fn a_worker_that_cannot_be_stopped_since_its_manager_is_away_says_so_and_goes_on() {
    let (_dir, home) = home();
    let mut yard = Yard::new(&home, "");
    // One that has joined has a token of its own for the commands of its machine.
    let info = ok(sealyard(&home).args(["auth", "api-info", "--perm", "worker"]));
    let mut command = sealyard(&home);
    command.args(["worker", "run", "--name", "W", "--worker-repo", "W", "--address", "127.0.0.1:0"]);
    let info = info.trim().strip_prefix("MINER_API_INFO=").expect("a variable");
    let mut worker = Daemon::start("W", command.env("MINER_API_INFO", info));
    worker.expect("registered");
    signal(yard.manager.id(), "-9");
    assert_eq!(yard.manager.end(), None);
    let enabled = || json(&home, &["worker", "info", "--worker-repo", "W"])["enabled"].clone();
    for (flags, after) in [(&[][..], "takes tasks again"), (&["--now"][..], "goes on as before")] {
        let mut stop =
            Daemon::start("stop", sealyard(&home).args(["worker", "stop", "--worker-repo", "W"]).args(flags));
        assert_eq!(stop.end(), Some(10), "{}", stop.said());
        let said = stop.said();
        assert!(said.contains(&format!("error[10]: the worker was not stopped and {after}")), "{said}");
        assert!(
            said.contains("that have left the index are declared again") && said.contains("SIGTERM"),
            "{said}"
        );
        assert_eq!(enabled(), true);
        assert!(!worker.has_ended(), "{}", worker.said());
    }
    signal(worker.id(), "-TERM");
    assert_eq!(worker.end(), Some(0), "{}", worker.said());
}

#[test]
fn a_worker_that_drains_finishes_what_lives_there_and_serves_its_files() {
    let (_dir, home) = home();
    let mut yard = Yard::new(&home, "");
    let _worker = yard.worker();
    ok(sealyard(&home).args(["sectors", "pledge", "--until", "c1"]));
    let pid = yard.pc1();
    let said = ok(sealyard(&home).args(["workers", "drain", "W"]));
    assert!(said.contains("W"), "{said}");
    ok(sealyard(&home).args(["sectors", "pledge", "--until", "c1"]));
    let drains = |why: &Value| why.to_string().contains("draining");
    let why = || json(&home, &["sealing", "why", "2"]);
    ask_until("the second sector's reason", SEALING_MAX, why, drains);
    assert_eq!(executors(&home, "pc1"), [pid], "it runs on");
    yard.serves_its_files();
    yard.open_the_gate();
    assert_eq!(yard.sealed(), ["done"]);
    assert!(drains(&why()), "nothing new began: {}", why());
    yard.serves_its_files();
    ok(sealyard(&home).args(["workers", "enable", "W"]));
    let begun = |status: &Value| status["c1_sha256"].is_string();
    ask_until("the second sector", SEALING_MAX, || json(&home, &["sectors", "status", "2"]), begun);
}

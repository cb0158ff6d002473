//! Processes killed in the middle of their work, with real proofs: what was running goes on, what is lost is done again,
//! and the sector gets where it would have got.

mod system;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use system::addresses::free_addresses;
use system::{Daemon, ask_until, executors, hold, json, kill, ok, sealyard, signal};

/// An 8 MiB sector is at Commit1 within half a minute. PreCommit2 cut off at a bad moment costs a back-off of a minute
/// and PreCommit1 again; a loaded machine gets more.
const SEALING_MAX: Duration = Duration::from_secs(300);

/// The manager's own worker takes nothing, so that the two others do.
const NO_LOCAL_TASKS: &str = "[Storage]\nAllowAddPiece = false\nAllowPreCommit1 = false\nAllowPreCommit2 = false\n\
    AllowCommit = false\nAllowUnseal = false\n";

const PC1: &str = "seal/v0/precommit/1";
const PC2: &str = "seal/v0/precommit/2";

fn manager(home: &Path, listen: &str) -> Daemon {
    let mut manager = Daemon::start("manager", sealyard(home).args(["run", "--listen", listen]));
    manager.expect("listening on");
    manager
}

fn worker(home: &Path, name: &str, address: &str, tasks: &[&str]) -> Daemon {
    let mut command = sealyard(home);
    command.args(["worker", "run", "--name", name, "--address", address, "--worker-repo", name]).args(tasks);
    // No gateway is reachable from a test; Commit2 is not needed here.
    command.env("IPFS_GATEWAY", "http://127.0.0.1:9/ipfs/");
    let mut worker = Daemon::start(name, &mut command);
    worker.expect("registered");
    worker
}

/// Executors outlive whoever started them, the more so when they were stopped: a test that fails leaves none behind.
struct NobodyLeft<'a>(&'a Path);

impl Drop for NobodyLeft<'_> {
    fn drop(&mut self) {
        for process in ["ap", "pc1", "pc2", "c1"].into_iter().flat_map(|task| executors(self.0, task)) {
            let _ = Command::new("kill").args(["-9", &process.to_string()]).status();
        }
    }
}

fn status(home: &Path) -> Value {
    json(home, &["sectors", "status", "1"])
}

/// State and worker of every attempt at one task of sector 1, oldest first.
fn attempts(status: &Value, task: &str) -> Vec<(String, String)> {
    let rows = status["tasks"].as_array().expect("tasks").iter().filter(|row| row["task"] == task);
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    rows.map(|row| (text(&row["state"]), text(&row["worker"]))).collect()
}

fn until_running(home: &Path, task: &str) -> Value {
    let runs = |status: &Value| attempts(status, task).last().is_some_and(|(state, _)| state == "running");
    ask_until(&format!("a running {task}"), SEALING_MAX, || status(home), runs)
}

#[test]
fn a_sector_survives_its_manager_in_precommit1_and_its_worker_in_precommit2() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path().canonicalize().expect("a path without links");
    let home = home.as_path();
    let _nobody = NobodyLeft(home);
    ok(sealyard(home).args(["init", "--actor", "t01000", "--sector-size", "8MiB", "--no-local-storage"]));
    std::fs::write(home.join(".sealyard/config.toml"), NO_LOCAL_TASKS).expect("config.toml");
    // The workers know the manager by its address, and it knows them by theirs: whoever comes back has the same.
    let [listen, a_address, b_address] = free_addresses();
    let mut first = manager(home, &listen);
    let _a = worker(home, "A", &a_address, &["--addpiece", "--precommit1"]);
    let mut b = worker(home, "B", &b_address, &["--precommit2", "--commit"]);
    ok(sealyard(home).args(["sectors", "pledge", "--until", "c1"]));

    let executor = hold(home, "pc1", SEALING_MAX);
    let begun = until_running(home, PC1);
    assert_eq!(attempts(&begun, PC1), [("running".to_owned(), "A".to_owned())]);
    kill(&mut first);
    assert_eq!(executors(home, "pc1"), [executor], "PreCommit1 goes on without the manager");
    signal(executor, "-CONT");
    let mut second = manager(home, &listen);

    let executor = hold(home, "pc2", SEALING_MAX);
    let handed_on = until_running(home, PC2);
    let once = [("done".to_owned(), "A".to_owned())];
    assert_eq!(attempts(&handed_on, PC1), once, "run once, over both managers: {}", second.said());
    kill(&mut b);
    let mut b = worker(home, "B", &b_address, &["--precommit2", "--commit"]);
    assert_eq!(executors(home, "pc2"), [executor], "PreCommit2 goes on without the worker: {}", b.said());
    signal(executor, "-CONT");

    let done = |status: &Value| status["c1_sha256"].is_string() && status["stopped"] == true;
    let status = ask_until("Commit1", SEALING_MAX, || status(home), done);
    assert_eq!(status["state"], "Committing", "{}", second.said());
    let once = [("done".to_owned(), "B".to_owned())];
    assert_eq!(attempts(&status, PC2), once, "run once, over both workers: {}", b.said());
    assert_eq!(status["ticket"], handed_on["ticket"], "the sector is still the same one");
    let replica = home.join("B/sealed/s-t01000-1");
    assert_eq!(std::fs::metadata(&replica).expect("the replica lies on B").len(), 8 << 20);
    for kind in ["sealed", "cache"] {
        let left = home.join("A").join(kind).join("s-t01000-1");
        assert!(!left.exists(), "{} was taken over", left.display());
    }
    for task in ["ap", "pc1", "pc2", "c1"] {
        assert_eq!(executors(home, task), Vec::<u32>::new(), "no executor of {task} is left");
    }
    assert_eq!(json(home, &["sealing", "jobs"]), Value::Array(Vec::new()), "nothing waits or runs");
}

/// Seals sector 1 up to Commit1 in the manager's own worker, which dies with the manager in PreCommit1. With `both` the
/// executor dies too.
fn sealed_over_a_crash_of_everything(both: bool) -> Vec<(String, String)> {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path().canonicalize().expect("a path without links");
    let home = home.as_path();
    let _nobody = NobodyLeft(home);
    ok(sealyard(home).args(["init", "--actor", "t01000", "--sector-size", "8MiB"]));
    let mut first = manager(home, "127.0.0.1:0");
    ok(sealyard(home).args(["sectors", "pledge", "--until", "c1"]));
    let executor = hold(home, "pc1", SEALING_MAX);
    kill(&mut first);
    if both {
        signal(executor, "-9");
    }
    let mut second = manager(home, "127.0.0.1:0");
    if !both {
        assert_eq!(executors(home, "pc1"), [executor], "{}", second.said());
        let holds = json(home, &["storage", "list"]).to_string();
        assert!(!holds.contains("\"sealed\""), "half-written files are not listed: {holds}");
        signal(executor, "-CONT");
    }
    let done = |status: &Value| status["c1_sha256"].is_string() && status["stopped"] == true;
    let status = ask_until("Commit1", SEALING_MAX, || status(home), done);
    for task in ["ap", "pc1", "pc2", "c1"] {
        assert_eq!(executors(home, task), Vec::<u32>::new(), "no executor of {task} is left");
    }
    let worker = attempts(&status, PC1)[0].1.clone();
    attempts(&status, PC1).into_iter().map(|(state, name)| (state, name.replace(&worker, "own"))).collect()
}

#[test]
fn an_executor_of_the_manager_s_own_worker_outlives_both() {
    assert_eq!(sealed_over_a_crash_of_everything(false), [("done".to_owned(), "own".to_owned())]);
}

#[test]
fn what_died_with_its_worker_is_done_again() {
    let attempts = sealed_over_a_crash_of_everything(true);
    let two = [("failed".to_owned(), "own".to_owned()), ("done".to_owned(), "own".to_owned())];
    assert_eq!(attempts, two);
}

/// A stopped process does not end when it is asked to; a test that fails lets it go on first.
struct GoesOn(u32);

impl Drop for GoesOn {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-CONT", &self.0.to_string()]).status();
    }
}

fn state_of(home: &Path, name: &str) -> Value {
    let workers = json(home, &["workers", "list"]);
    let found = workers.as_array().and_then(|all| all.iter().find(|worker| worker["name"] == name));
    found.cloned().unwrap_or(Value::Null)
}

#[test]
fn a_worker_that_is_stopped_for_a_while_is_suspect_and_goes_on_where_it_was() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path().canonicalize().expect("a path without links");
    let home = home.as_path();
    let _nobody = NobodyLeft(home);
    ok(sealyard(home).args(["init", "--actor", "t01000", "--sector-size", "8MiB", "--no-local-storage"]));
    std::fs::write(home.join(".sealyard/config.toml"), NO_LOCAL_TASKS).expect("config.toml");
    let _manager = manager(home, "127.0.0.1:0");
    let w = worker(home, "W", "127.0.0.1:0", &["--addpiece", "--precommit1", "--precommit2", "--commit"]);
    ok(sealyard(home).args(["sectors", "pledge", "--until", "c1"]));
    let executor = hold(home, "pc1", SEALING_MAX);
    signal(w.id(), "-STOP");
    let _goes_on = GoesOn(w.id());
    let is = |state: &'static str| move |worker: &Value| worker["state"] == state;
    let suspect = ask_until("a suspect", SEALING_MAX, || state_of(home, "W"), is("suspect"));
    assert_eq!(suspect["next_state"][0], "lost", "{suspect:#}");
    signal(executor, "-CONT");
    ask_until("the end of PreCommit1", SEALING_MAX, || executors(home, "pc1"), Vec::is_empty);
    signal(w.id(), "-CONT");
    ask_until("a live worker", SEALING_MAX, || state_of(home, "W"), is("live"));
    let done = |status: &Value| status["c1_sha256"].is_string() && status["stopped"] == true;
    let status = ask_until("Commit1", SEALING_MAX, || status(home), done);
    assert_eq!(attempts(&status, PC1), [("done".to_owned(), "W".to_owned())]);
}

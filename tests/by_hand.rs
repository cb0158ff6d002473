//! What README's section "By hand" does: each command as an operator types it, each saying what README shows.

mod system;

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use system::{Daemon, ask_until, ok, sealyard};

/// A sector of these sizes is at Commit1 within seconds; a loaded machine gets more.
const SEALING_MAX: Duration = Duration::from_secs(300);

/// A manager and two workers in `home`, started by hand.
struct ByHand {
    _b: Daemon,
    _a: Daemon,
    manager: Daemon,
}

impl ByHand {
    fn start(home: &Path, size: &str) -> Self {
        let said = ok(sealyard(home).args([
            "init",
            "--actor",
            "t01000",
            "--sector-size",
            size,
            "--no-local-storage",
        ]));
        assert!(said.contains("f01000") && said.contains(size), "{said}");
        std::fs::write(home.join(".sealyard/config.toml"), NO_LOCAL_TASKS).expect("config.toml");
        let mut manager = Daemon::start("manager", sealyard(home).args(["run", "--listen", "127.0.0.1:0"]));
        manager.expect("listening on");
        let a = Self::worker(home, "A", &["--addpiece", "--precommit1"]);
        let b = Self::worker(home, "B", &["--precommit2", "--commit"]);
        Self { manager, _a: a, _b: b }
    }

    fn worker(home: &Path, name: &str, tasks: &[&str]) -> Daemon {
        // Relative, as people type it: the tests' commands run in `home`.
        let repo = Path::new(name);
        let mut command = sealyard(home);
        command.args(["worker", "run", "--name", name, "--address", "127.0.0.1:0"]);
        command.args(tasks).arg("--worker-repo").arg(repo);
        // No gateway is reachable from a test; where parameters are missing Commit2 just stays away.
        command.env("IPFS_GATEWAY", "http://127.0.0.1:9/ipfs/");
        let mut worker = Daemon::start(name, &mut command);
        let offered = worker.expect("offers");
        assert!(offered.contains("GET") && offered.contains("FIN"), "{offered}");
        worker.expect("registered");
        worker
    }
}

/// The manager's own worker takes nothing, so that the two others do.
const NO_LOCAL_TASKS: &str = "[Storage]\nAllowAddPiece = false\nAllowPreCommit1 = false\nAllowPreCommit2 = false\n\
    AllowCommit = false\nAllowUnseal = false\n";

fn json(home: &Path, args: &[&str]) -> Value {
    let text = ok(sealyard(home).args(args).arg("--json"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?} printed no JSON ({error}): {text}"))
}

fn seal_by_hand(size: &str, bytes: u64) {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let mut yard = ByHand::start(home, size);

    let said = ok(sealyard(home).args(["sectors", "pledge", "--until", "c1"]));
    let number = said.trim().rsplit(' ').next().expect("a number").to_owned();
    assert_eq!(said.trim(), format!("Created CC sector: {number}"));

    let done = |status: &Value| status["c1_sha256"].is_string() && status["stopped"] == true;
    let status = ask_until("Commit1", SEALING_MAX, || json(home, &["sectors", "status", &number]), done);
    assert_eq!(status["state"], "Committing", "{}", yard.manager.said());

    let listed = ok(sealyard(home).args(["workers", "list"]));
    for part in ["host A", "host B", "TASK:", "CPU:", "RAM:", "VMEM:", "PC1(", "PC2("] {
        assert!(listed.contains(part), "{part} is missing:\n{listed}");
    }
    // What memory is in use changes between two looks, and so does what is said of parameters that are not there.
    let steady = |said: &str| -> Vec<String> {
        said.lines()
            .filter(|line| {
                ["RAM:", "VMEM:", "waiting for parameters"].iter().all(|word| !line.contains(word))
            })
            .map(str::to_owned)
            .collect()
    };
    let alias = ok(sealyard(home).args(["sealing", "workers"]));
    assert_eq!(steady(&listed), steady(&alias), "the alias says the same");

    let found = ok(sealyard(home).args(["storage", "find", &number]));
    assert!(found.contains("Sealed, Cache") && found.contains("Worker: B"), "{found}");
    assert!(found.contains("/remote/sealed/s-t01000-"), "{found}");
    assert_eq!(found, ok(sealyard(home).args(["find", &number])), "the 2020 form says the same");

    let paths = json(home, &["storage", "list"]);
    assert!(paths.as_array().is_some_and(|paths| paths.len() == 2), "{paths:#}");
    let sealed = home.join("B/sealed").join(format!("s-t01000-{number}"));
    assert_eq!(std::fs::metadata(&sealed).expect("the replica lies on B").len(), bytes);
    let jobs = json(home, &["sealing", "jobs", "--all"]);
    assert!(jobs.as_array().is_some_and(|jobs| jobs.len() >= 4), "{jobs:#}");
    let info = ok(sealyard(home).arg("info"));
    assert!(info.contains("f01000") && info.contains("Workers:"), "{info}");
}

#[test]
fn a_2kib_sector_by_hand() {
    seal_by_hand("2KiB", 2 << 10);
}

#[test]
fn an_8mib_sector_by_hand() {
    seal_by_hand("8MiB", 8 << 20);
}

#[test]
fn the_join_command_starts_a_worker() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    ok(sealyard(home).args(["init", "--actor", "f01000"]));
    let mut manager = Daemon::start("manager", sealyard(home).args(["run", "--listen", "127.0.0.1:0"]));
    manager.expect("listening on");
    let line = json(home, &["workers", "join-command", "--tasks", "precommit1"]);
    let line = line["command"].as_str().expect("a command line").to_owned();
    let (variable, rest) = line.split_once(' ').expect("a variable and a command");
    let (name, value) = variable.split_once('=').expect("NAME=value");
    let args: Vec<&str> = rest.split(' ').skip(1).collect();
    let elsewhere = tempfile::tempdir().expect("another host's home");
    let mut command = sealyard(elsewhere.path());
    command.env(name, value).args(args).args(["--address", "127.0.0.1:0"]);
    let mut worker = Daemon::start("worker", &mut command);
    let offered = worker.expect("offers");
    assert!(offered.contains("PC1") && !offered.contains("PC2"), "{offered}");
    worker.expect("registered");
}

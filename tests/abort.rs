//! A real PreCommit1 of 512 MiB is aborted: its process, its memory and its room are gone, and the sector says who did it
//! and why.

#![allow(clippy::print_stdout, reason = "a test tells the figures of this machine")]

mod system;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use system::{Daemon, executors, json, labelling, ok, sealyard};

/// What is aimed at.
const LIMIT: Duration = Duration::from_secs(1);

#[test]
fn a_running_pc1_of_512_mib_is_gone_when_its_abort_is_answered() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    labelling::init(home);
    let mut manager = Daemon::start("manager", sealyard(home).args(["run", "--listen", "127.0.0.1:0"]));
    manager.expect("listening on");
    let mut worker = Daemon::start("A", &mut labelling::worker(home));
    worker.expect("registered");
    ok(sealyard(home).args(["sectors", "pledge"]));

    let (pid, bytes) = labelling::at_work(home);
    let attempt = labelling::attempt(home, ".sealyard");
    let made = [home.join("A/sealed/s-t01000-1"), home.join("A/cache/s-t01000-1")];
    assert!(made.iter().all(|path: &PathBuf| path.exists()), "it has begun its files");

    let begun = Instant::now();
    let said = ok(sealyard(home).args(["sealing", "abort", &attempt, "--reason", "its ticket is too old"]));
    let took = begun.elapsed();
    let reached = if took <= LIMIT { "reached" } else { "NOT reached" };
    println!(
        "abort of a PC1 of 512 MiB with {} MiB in memory: {took:.3?}; limit {LIMIT:?}: {reached}",
        bytes >> 20
    );
    assert!(said.contains("was killed, and everything that it held is free"), "{said}");
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the process is gone, and its memory with it");
    assert!(executors(home, "pc1").is_empty());
    assert!(made.iter().all(|path: &PathBuf| !path.exists()), "what it had begun is gone");
    let workers = json(home, &["workers", "list"]);
    let own = workers.as_array().expect("workers").iter().find(|worker| worker["name"] == "A").expect("A");
    assert_eq!((&own["cpu"][0], &own["ram"][0]), (&0.into(), &0.into()), "nothing is charged: {own:#}");
    let path = &json(home, &["storage", "list"])[0];
    assert_eq!(path["reserved"], 0, "nothing is reserved: {path:#}");
    let status = ok(sealyard(home).args(["sectors", "status", "--log", "1"]));
    let said = |program: &str, arg: &str| {
        let output = Command::new(program).arg(arg).output().expect("it runs");
        system::text(&output.stdout).trim().to_owned()
    };
    let who = format!("is to end, says {}@{}", said("id", "-un"), said("uname", "-n"));
    for words in [who.as_str(), ": its ticket is too old", "task aborted", "SealPreCommit1Failed"] {
        assert!(status.contains(words), "{words:?} is missing:\n{status}");
    }
}

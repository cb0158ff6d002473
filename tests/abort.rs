//! A real PreCommit1 of 512 MiB is aborted: its process, its memory and its room are gone, and the sector says who did it
//! and why.

#![allow(clippy::print_stdout, reason = "a test tells the figures of this machine")]

mod system;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use system::{Daemon, ask_until, executors, ok, sealyard};

/// Labels are made within seconds; a loaded machine, or one that has no parents cache yet, gets more.
const SEALING_MAX: Duration = Duration::from_secs(900);
/// What is aimed at.
const LIMIT: Duration = Duration::from_secs(1);

const NO_LOCAL_TASKS: &str = "[Storage]\nAllowAddPiece = false\nAllowPreCommit1 = false\nAllowPreCommit2 = false\n\
    AllowCommit = false\nAllowUnseal = false\n";

fn json(home: &Path, args: &[&str]) -> Value {
    let told = ok(sealyard(home).args(args).arg("--json"));
    serde_json::from_str(&told).unwrap_or_else(|error| panic!("{args:?} printed no JSON ({error}): {told}"))
}

/// Free bytes without which a sector of 512 MiB is not sealed: Lotus's overheads promise PreCommit1 15.1 of its sizes,
/// beside the unsealed file.
const ROOM: u64 = 17 * (512 << 20);

/// Without room PreCommit1 waits, and it is not the program that is at fault.
fn there_is_room(home: &Path) {
    let disk = nix::sys::statvfs::statvfs(home).expect("a file system");
    let free = disk.blocks_available().saturating_mul(disk.fragment_size());
    assert!(
        free >= ROOM,
        "{} has {} MiB free, and this test needs {} MiB: free some, or set TMPDIR to a directory elsewhere",
        home.display(),
        free >> 20,
        ROOM >> 20
    );
}

/// Memory of a process in bytes; 0 when it is gone.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

#[test]
fn a_running_pc1_of_512_mib_is_gone_when_its_abort_is_answered() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    there_is_room(home);
    ok(sealyard(home).args(["init", "--actor", "t01000", "--no-local-storage", "--sector-size", "512MiB"]));
    fs::write(home.join(".sealyard/config.toml"), NO_LOCAL_TASKS).expect("config.toml");
    let mut manager = Daemon::start("manager", sealyard(home).args(["run", "--listen", "127.0.0.1:0"]));
    manager.expect("listening on");
    let run = ["worker", "run", "--name", "A", "--worker-repo", "A", "--address", "127.0.0.1:0"];
    let tasks = ["--addpiece", "--precommit1"];
    let mut worker =
        Daemon::start("A", sealyard(home).args(run).args(tasks).env("PC1_512M_MAX_MEMORY", "2147483648"));
    worker.expect("registered");
    ok(sealyard(home).args(["sectors", "pledge"]));

    // Its labels are in memory: it is well on its way.
    let at_work = || executors(home, "pc1").first().map(|pid| (*pid, resident(*pid)));
    let labelling = |found: &Option<(u32, u64)>| found.is_some_and(|(_, bytes)| bytes > 600 << 20);
    let (pid, bytes) = ask_until("PC1 at work", SEALING_MAX, at_work, labelling).expect("just seen");
    let jobs = json(home, &["sealing", "jobs"]);
    let attempt =
        &jobs.as_array().expect("jobs").iter().find(|job| job["task"] == "seal/v0/precommit/1").expect("PC1")
            ["attempt"];
    let attempt = format!("{}.{}", attempt["task"], attempt["attempt"]);
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
    for words in ["is to end, says ", ": its ticket is too old", "task aborted", "SealPreCommit1Failed"] {
        assert!(status.contains(words), "{words:?} is missing:\n{status}");
    }
}

//! A real PreCommit1 of 512 MiB, which labels for minutes: what is aborted, or taken over, while it runs.
#![allow(dead_code, reason = "only some test targets need minutes of work")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::trio::NO_LOCAL_TASKS;
use super::{ask_until, executors, json, ok, sealyard};

/// Labels are made within seconds; a loaded machine, or one that has no parents cache yet, gets more.
const LABELLING_MAX: Duration = Duration::from_secs(900);

/// Free bytes without which a sector of 512 MiB is not sealed: Lotus's overheads promise PreCommit1 15.1 of its sizes,
/// beside the unsealed file.
const ROOM: u64 = 17 * (512 << 20);

/// Makes the repo of a manager of such sectors, which has no tasks of its own. Without room PreCommit1 would wait, and the
/// program would not be at fault.
pub fn init(home: &Path) {
    let disk = nix::sys::statvfs::statvfs(home).expect("a file system");
    let free = disk.blocks_available().saturating_mul(disk.fragment_size());
    assert!(
        free >= ROOM,
        "{} has {} MiB free, and this test needs {} MiB: free some, or set TMPDIR to a directory elsewhere",
        home.display(),
        free >> 20,
        ROOM >> 20
    );
    ok(sealyard(home).args(["init", "--actor", "t01000", "--no-local-storage", "--sector-size", "512MiB"]));
    fs::write(home.join(".sealyard/config.toml"), NO_LOCAL_TASKS).expect("config.toml");
}

/// Worker A, which seals up to PreCommit1 with the memory that it truly takes.
pub fn worker(home: &Path) -> Command {
    let mut command = sealyard(home);
    command.args(["worker", "run", "--name", "A", "--worker-repo", "A", "--address", "127.0.0.1:0"]);
    command.args(["--addpiece", "--precommit1"]).env("PC1_512M_MAX_MEMORY", "2147483648");
    command
}

/// Waits until labels are in memory: it is well on its way. Its process, and that one's bytes in memory.
pub fn at_work(home: &Path) -> (u32, u64) {
    let at_work = || executors(home, "pc1").first().map(|pid| (*pid, resident(*pid)));
    let labelling = |found: &Option<(u32, u64)>| found.is_some_and(|(_, bytes)| bytes > 600 << 20);
    ask_until("PC1 at work", LABELLING_MAX, at_work, labelling).expect("just seen")
}

/// Its attempt, by this repo's manager: `TASK.ATTEMPT`.
pub fn attempt(home: &Path, repo: &str) -> String {
    let jobs = json(home, &["--repo", repo, "sealing", "jobs"]);
    let is_pc1 = |job: &&Value| job["task"] == "seal/v0/precommit/1";
    let job = jobs.as_array().expect("jobs").iter().find(is_pc1).unwrap_or_else(|| panic!("{jobs:#}"));
    format!("{}.{}", job["attempt"]["task"], job["attempt"]["attempt"])
}

/// Memory of a process in bytes; 0 when it is gone.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

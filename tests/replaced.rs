//! A program of the operator's in the place of one executor, and what is kept of one that crashes: its signal and its last
//! words, with the sector, over restarts.

mod system;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use system::addresses::free_addresses;
use system::{Daemon, SEALYARD, ask_until, ok, refused, sealyard};

/// A 2 KiB sector is at Commit1 within seconds; a loaded machine gets more.
const SEALING_MAX: Duration = Duration::from_secs(300);

/// The manager's own worker takes nothing.
const NO_LOCAL_TASKS: &str = "[Storage]\nAllowAddPiece = false\nAllowPreCommit1 = false\nAllowPreCommit2 = false\n\
    AllowCommit = false\nAllowUnseal = false\n";

/// A program that crashes when it is first asked, and then does as proofs/EXECUTORS.md says.
fn program(home: &Path) -> String {
    let place = home.display();
    let script = format!(
        "#!/bin/sh\necho \"$1\" >> {place}/asked\nif [ ! -e {place}/crashed ]; then\n  touch {place}/crashed\n  i=1\n  \
         while [ $i -le 60 ]; do echo \"line $i of my program\"; i=$((i+1)); done\n  kill -SEGV $$\nfi\n\
         exec {SEALYARD} exec \"$@\"\n"
    );
    let path = home.join("my-pc2");
    fs::write(&path, script).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("permissions");
    path.to_string_lossy().into_owned()
}

fn sector(home: &Path) -> Value {
    let told = ok(sealyard(home).args(["sectors", "status", "1", "--json"]));
    serde_json::from_str(&told).unwrap_or_else(|error| panic!("no JSON ({error}): {told}"))
}

#[test]
fn a_program_of_ones_own_does_pc2_and_its_crash_is_kept_with_the_sector() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    ok(sealyard(home).args(["init", "--actor", "t01000", "--no-local-storage"]));
    fs::write(home.join(".sealyard/config.toml"), NO_LOCAL_TASKS).expect("config.toml");
    let [address, ..] = free_addresses();
    let mut manager = Daemon::start("manager", sealyard(home).args(["run", "--listen", &address]));
    manager.expect("listening on");
    let run = ["worker", "run", "--worker-repo", "w", "--address", "127.0.0.1:0", "--commit=false"];
    let line = refused(sealyard(home).args(run).args(["--executor", "pc2=/nonexistent"]), 9);
    assert!(line.contains("/nonexistent") && line.contains("EXECUTORS.md"), "{line}");
    let chosen = format!("pc2={}", program(home));
    let mut worker = Daemon::start("worker", sealyard(home).args(run).args(["--executor", &chosen]));
    worker.expect("registered");
    ok(sealyard(home).args(["sectors", "pledge", "--until", "c1"]));

    let crashed = |sector: &Value| sector["state"] == "SealPreCommit2Failed";
    ask_until("the crash", SEALING_MAX, || sector(home), crashed);
    ok(Command::new("kill").args(["-9", &manager.id().to_string()]));
    manager.end();
    let mut manager = Daemon::start("manager", sealyard(home).args(["run", "--listen", &address]));
    manager.expect("listening on");
    let status = ok(sealyard(home).args(["sectors", "status", "--log", "1"]));
    for words in ["signal: 11 (SIGSEGV)", "line 60 of my program", "line 11 of my program"] {
        assert!(status.contains(words), "{words:?} is missing:\n{status}");
    }
    assert!(!status.contains("line 10 of my program"), "50 lines are kept:\n{status}");
    for args in [&["sealing", "jobs", "--all"][..], &["sealing", "why", "1"]] {
        let said = ok(sealyard(home).args(args));
        assert!(said.contains("signal: 11 (SIGSEGV)"), "{args:?}: {said}");
    }

    // It comes by itself; the operator need not wait for that. Another one would send the sector on from where it is to stop.
    assert_eq!(ok(sealyard(home).args(["sectors", "retry", "1", "--json"])).trim(), "{\n  \"sector\": 1\n}");
    ask_until("a second try", SEALING_MAX, || sector(home), |sector| sector["stopped"] == true);
    let told = ok(sealyard(home).args(["sealing", "durations", "--json"]));
    let told: Value = serde_json::from_str(&told).expect("JSON");
    let measured: Vec<&Value> = told
        .as_array()
        .expect("workers")
        .iter()
        .flat_map(|worker| worker["durations"].as_array())
        .flatten()
        .collect();
    let pc2 = measured.iter().find(|row| row["task"] == "seal/v0/precommit/2").expect("PC2 was measured");
    assert!(pc2["peak_bytes"].as_u64() > Some(1 << 20) && pc2["cpu_ms"].as_u64() > Some(0), "{pc2:#}");
    let said = ok(sealyard(home).args(["sealing", "durations"]));
    assert!(said.contains("of memory"), "{said}");
    let asked = fs::read_to_string(home.join("asked")).expect("it was asked");
    assert_eq!(asked.lines().collect::<Vec<_>>(), ["pc2", "pc2"]);
}

//! Three real files become the pieces of a sector that is sealed with real proofs, from Empty to Proving, and each reads back
//! as it was.

mod system;

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use system::{COMMAND_MAX, Daemon, ask_until, ok, refused, run_within, sealyard, text};

/// Parameters may have to be generated first; Commit2 takes a minute of two cores.
const PROVING_MAX: Duration = Duration::from_secs(50 * 60);
/// Seconds on an idle machine.
const FILLING_MAX: Duration = Duration::from_secs(120);

fn json(home: &Path, args: &[&str]) -> Value {
    let said = ok(sealyard(home).args(args).arg("--json"));
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{args:?} printed no JSON ({error}): {said}"))
}

fn status(home: &Path) -> Value {
    json(home, &["sectors", "status", "1"])
}

/// The bytes of a piece, which must be there without unsealing.
fn read(home: &Path, offset: u64, size: u64) -> Vec<u8> {
    let (offset, size) = (offset.to_string(), size.to_string());
    let args =
        ["sectors", "read-piece", "1", "--no-unseal", "--output", "-", "--offset", &offset, "--size", &size];
    let output = run_within(sealyard(home).args(args), COMMAND_MAX);
    assert!(output.status.success(), "{}", text(&output.stderr));
    output.stdout
}

#[test]
fn three_files_are_sealed_and_read_back() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let generated = run_within(sealyard(home).args(["params", "generate", "2KiB"]), PROVING_MAX);
    assert!(generated.status.success(), "{}", text(&generated.stderr));
    ok(sealyard(home).args(["init", "--actor", "t01000", "--sector-size", "2KiB"]));
    let mut manager = Daemon::start("manager", sealyard(home).args(["run", "--listen", "127.0.0.1:0"]));
    manager.expect("listening on");

    let files: Vec<(&str, Vec<u8>)> = [("one.car", 200_usize), ("two.car", 508), ("three.car", 60)]
        .map(|(name, length)| (name, (0..length).map(|at| (at * 7 + length) as u8).collect()))
        .into();
    for (name, bytes) in &files {
        fs::write(home.join(name), bytes).expect("a file");
        let given = json(home, &["sectors", "add-piece", name]);
        let hashed = json(home, &["sealing", "data-cid", name, &given["padded_size"].to_string()]);
        assert_eq!((&given["sector"], &given["cid"]), (&Value::from(1), &hashed["cid"]), "{name}");
    }
    let written = |status: &Value| {
        status["state"] == "WaitDeals" && status["pieces"].as_array().is_some_and(|all| all.len() == 4)
    };
    ask_until("its pieces", FILLING_MAX, || status(home), written);
    let why = ok(sealyard(home).args(["sealing", "why", "1"]));
    assert!(why.contains("has room for more data") && why.contains("start-seal 1"), "{why}");
    let unsure = refused(sealyard(home).args(["sectors", "update-state", "1", "Packing"]), 2);
    assert!(unsure.contains("--really-do-it"), "{unsure}");
    ok(sealyard(home).args(["sectors", "start-seal", "1"]));

    let proven = ask_until("Proving", PROVING_MAX, || status(home), |status| status["state"] == "Proving");
    assert_eq!((&proven["verified"], &proven["proof"].is_string()), (&Value::from(true), &true));
    let sizes: Vec<u64> =
        proven["pieces"].as_array().expect("pieces").iter().filter_map(|piece| piece[0].as_u64()).collect();
    assert_eq!(sizes, [256, 256, 512, 128, 128, 256, 512], "as Lotus places them");
    for ((name, bytes), data) in files.iter().zip(proven["data"].as_array().expect("data")) {
        let offset = data["offset"].as_u64().expect("it is written");
        assert!(read(home, offset, bytes.len() as u64) == *bytes, "{name} is not what was given");
    }
    every_event_is_shown(home);
    let found = ok(sealyard(home).args(["storage", "find", "1"]));
    assert!(found.contains("Unsealed") && found.contains("Sealed"), "{found}");
}

/// The way through the states, in order, by what `sectors status --log` shows.
fn every_event_is_shown(home: &Path) {
    let log = ok(sealyard(home).args(["sectors", "status", "--log", "1"]));
    let mut rest = log.as_str();
    for event in [
        "sector_pledged",
        "entered in Empty",
        "200 bytes of data given",
        "now AddPiece",
        "now WaitDeals",
        "start of sealing, now Packing",
        "result of AP, now GetTicket",
        "ticket, now PreCommit1",
        "result of PC1, now PreCommit2",
        "result of PC2, now PreCommitting",
        "now WaitSeed",
        "seed, now Committing",
        "result of C1, now Committing",
        "result of C2, now Committing",
        "result of VERIFY, now SubmitCommit",
        "now FinalizeSector",
        "result of FIN, now FinalizeSector",
        "result of MOVE, now Proving",
    ] {
        let (_, behind) =
            rest.split_once(event).unwrap_or_else(|| panic!("{event} is missing or out of order:\n{log}"));
        rest = behind;
    }
}

#[test]
fn ten_sectors_are_pledged_and_sealed_unattended() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    ok(sealyard(home).args(["init", "--actor", "t01000", "--sector-size", "2KiB"]));
    let config = "[Storage]\nAllowCommit = false\n[sealing]\nkeep_in_pipeline = 10\nstop_at = \"pc2\"\n";
    fs::write(home.join(".sealyard/config.toml"), config).expect("config.toml");
    let mut manager = Daemon::start("manager", sealyard(home).args(["run", "--listen", "127.0.0.1:0"]));
    manager.expect("listening on");
    let all_there = |sectors: &Value| {
        let sectors = sectors.as_array().expect("sectors");
        sectors.len() == 10
            && sectors.iter().all(|sector| sector["stopped"] == true && sector["comm_r"].is_string())
    };
    ask_until("ten replicas", Duration::from_secs(600), || json(home, &["sectors", "list"]), all_there);
    let why = json(home, &["sealing", "why", "pledge"]);
    assert_eq!((&why["waits_for"], &why["in_pipeline"]), (&Value::from("full"), &Value::from(10)), "{why:#}");
    let paused = ok(sealyard(home).args(["sectors", "pledge", "--pause"]));
    assert!(paused.contains("paused by an operator") && paused.contains("--resume"), "{paused}");
    let resumed = ok(sealyard(home).args(["sectors", "pledge", "--resume"]));
    assert!(resumed.contains("10 sectors are in the pipeline"), "{resumed}");
}

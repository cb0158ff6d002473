//! `repair run` on one machine and by the running manager alike: what room is needed is said, and refused before anything is
//! begun where it is not there; sectors begin one after the other. With real proofs up to PreCommit2.

mod system;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use sealtasks::{Commitment, SealedCid, UnsealedCid};
use serde_json::{Value, json};
use system::{COMMAND_MAX, Daemon, ok, run_within, sealyard, text};

/// A 2 KiB sector takes seconds; a loaded machine gets more.
const SEALING_MAX: Duration = Duration::from_secs(600);
/// Between two beginnings, in seconds.
const STAGGER: u64 = 4;

/// Two sectors of zeros that were sealed from another ticket: both are sealed, and none is believed. The third one's data is
/// not there: it never begins, and takes no room.
fn write(home: &Path) {
    let sealed = SealedCid::new(Commitment::new([1; 32])).to_string();
    let entry = |number: u64| {
        json!({
            "SectorNumber": number, "Ticket": "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=", "SealProof": 5,
            "SealedCID": {"/": sealed},
        })
    };
    let mut third = entry(3);
    third["Pieces"] =
        json!([{"Size": 2048, "PieceCID": {"/": UnsealedCid::new(Commitment::new([2; 32])).to_string()}}]);
    let file = json!({"Miner": "f01000", "SectorSize": 2048, "SectorInfos": [entry(1), entry(2), third]});
    fs::write(home.join("lost.json"), file.to_string()).expect("the file");
}

/// Both at the same time, with so much between their beginnings. Gives what was said.
fn staggered(command: &mut Command) -> String {
    let stagger = STAGGER.to_string();
    command.args(["--metadata", "lost.json", "--parallel", "2", "--stagger", &stagger]);
    let output = run_within(command, SEALING_MAX);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert_eq!(told.matches("sealed again it has CommR").count(), 2, "both were sealed: {told}");
    assert!(told.contains("sector 3 is not back: its data is missing"), "{told}");
    told
}

/// By the records of a manager that has both: the first attempt of the second sector was made so long after the first one's
/// beginning.
fn one_began_after_the_other(repo: &Path) {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(repo.join("state.db"), flags).expect("the state");
    let first = |query: &str, number: u64| {
        db.query_row(query, [i64::try_from(number).expect("small")], |row| row.get::<_, i64>(0))
            .expect("a record")
    };
    let entered = "SELECT min(at_ms) FROM event WHERE kind = 'sector_pledged' AND number = ?1";
    let attempt = "SELECT min(bound_ms) FROM attempt JOIN task ON task.id = attempt.task WHERE number = ?1";
    let begun = [1, 2].map(|number| (first(entered, number), first(attempt, number)));
    let (earlier, later) = if begun[0] < begun[1] { (begun[0], begun[1]) } else { (begun[1], begun[0]) };
    assert!(later.1 - earlier.0 >= 1000 * i64::try_from(STAGGER).expect("small"), "{begun:?}");
}

/// What a directory and all in it take, in bytes.
fn on_disk(dir: &Path) -> u64 {
    let of = |entry: &Path| 512 * entry.symlink_metadata().expect("metadata").blocks();
    let within = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    of(dir) + within.map(|path| if path.is_dir() { on_disk(&path) } else { of(&path) }).sum::<u64>()
}

#[test]
fn a_manager_refuses_without_room_and_begins_one_after_the_other() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path().canonicalize().expect("a path without links");
    write(&home);
    let repo = |words: &[&str]| {
        let mut command = sealyard(&home);
        command.args(["--repo", "repo"]).args(words);
        command
    };
    ok(&mut repo(&["init", "--actor", "t01000", "--sector-size", "2KiB", "--no-local-storage"]));
    let mut manager = Daemon::start("manager", &mut repo(&["run", "--listen", "127.0.0.1:0"]));
    manager.expect("listening on");
    let attach = |dir: &str, words: &[&str]| {
        let dir = home.join(dir);
        ok(repo(&["storage", "attach", "--init", &dir.to_string_lossy()]).args(words));
    };
    // Some file systems have blocks for directories and names; a path counts them.
    attach("empty", &["--seal"]);
    let empty = home.join("empty");
    ok(&mut repo(&["storage", "detach", "--really-do-it", &empty.to_string_lossy()]));
    // Sealed, unsealed and 14.1 times the size for layers and trees: 32.2 KiB a sector.
    attach("narrow", &["--seal", "--max-storage", &format!("{}B", on_disk(&empty) + (40 << 10))]);
    let both = ["repair", "run", "--manager", "--metadata", "lost.json", "--parallel", "2"];
    let refused = || {
        let output = run_within(&mut repo(&both), COMMAND_MAX);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(10), "{told}");
        let listed: Value =
            serde_json::from_str(&ok(&mut repo(&["sectors", "list", "--json"]))).expect("JSON");
        assert_eq!(listed.as_array().map(Vec::len), Some(0), "nothing is begun: {listed:#}");
        told
    };
    let told = refused();
    let sealing =
        "65 KiB are needed in paths for sealing (2 sectors of 2KiB at once), which have room for 1 of them";
    assert!(told.contains(sealing) && told.contains("which have room for 0 of 2 sectors"), "{told}");
    attach("store", &["--store"]);
    let told = refused();
    assert!(told.contains(sealing) && told.contains("which have room for 2 of 2 sectors"), "{told}");

    attach("wide", &["--seal"]);
    let told = staggered(&mut repo(&["repair", "run", "--manager"]));
    let needed =
        "space needed: 65 KiB in paths for sealing (2 sectors of 2KiB at once), 5 KiB in paths for storing";
    assert!(told.contains(needed), "{told}");
    one_began_after_the_other(&home.join("repo"));
}

#[test]
fn one_machine_alone_begins_one_after_the_other() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path().canonicalize().expect("a path without links");
    write(&home);
    let told = staggered(sealyard(&home).args(["repair", "run"]));
    assert!(told.contains("space needed: "), "{told}");
    one_began_after_the_other(&home.join("temp/repair-f01000"));
}

//! Real sectors whose files are deleted are sealed again, byte for byte: from a file of lost sectors by a manager that never
//! had them, and from a manager's own record.

mod system;

use std::fs;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use system::{Daemon, ask_until, json as answer, ok, refused, sealyard};

/// Two 2 KiB sectors up to Commit1 take seconds; a loaded machine gets more.
const SEALING_MAX: Duration = Duration::from_secs(600);

fn manager(home: &Path, repo: &str) -> Daemon {
    ok(sealyard(home).args(["--repo", repo, "init", "--actor", "t01000", "--sector-size", "2KiB"]));
    let run = ["--repo", repo, "run", "--listen", "127.0.0.1:0"];
    let mut manager = Daemon::start(repo, sealyard(home).args(run));
    manager.expect("listening on");
    manager
}

fn status(home: &Path, repo: &str, number: u64) -> Value {
    answer(home, &["--repo", repo, "sectors", "status", &number.to_string()])
}

fn sealed_file(home: &Path, repo: &str, number: u64) -> std::path::PathBuf {
    home.join(repo).join(format!("sealed/s-t01000-{number}"))
}

/// One sector's entry in the file of lost sectors.
fn entry(status: &Value) -> Value {
    let ticket = hex::decode(status["ticket"].as_str().expect("a ticket")).expect("hex");
    json!({
        "SectorNumber": status["sector"]["number"], "SealProof": status["proof_type"],
        "Ticket": base64::engine::general_purpose::STANDARD.encode(ticket), "SealedCID": {"/": status["comm_r"]},
    })
}

fn write(home: &Path, name: &str, entries: &[Value]) {
    let file = json!({"Miner": "f01000", "SectorSize": 2048, "SectorInfos": entries});
    fs::write(home.join(name), file.to_string()).expect("the file");
}

#[test]
fn deleted_sectors_are_sealed_again_byte_for_byte() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let first = manager(home, "first");
    ok(sealyard(home).args(["--repo", "first", "sectors", "pledge", "--count", "2", "--until", "c1"]));
    let mut entries = Vec::new();
    let mut replicas = Vec::new();
    for number in [1, 2] {
        let sealed = |status: &Value| status["stopped"] == true;
        let status = ask_until("a replica", SEALING_MAX, || status(home, "first", number), sealed);
        entries.push(entry(&status));
        replicas.push(fs::read(sealed_file(home, "first", number)).expect("its replica"));
    }
    drop(first);
    write(home, "lost.json", &entries);

    let _second = manager(home, "second");
    let repair =
        ["--repo", "second", "repair", "run", "--manager", "--metadata", "lost.json", "--parallel", "2"];
    let told = ok(sealyard(home).args(repair));
    assert!(told.contains("2 of 2 sectors are back"), "{told}");
    let whole = || {
        for (number, replica) in [1, 2].into_iter().zip(&replicas) {
            assert_eq!(status(home, "second", number)["state"], "Proving");
            assert!(
                fs::read(sealed_file(home, "second", number)).expect("it is there") == *replica,
                "{number}"
            );
        }
    };
    whole();

    // Both are lost, one after the other, and come back from the record that there is of them now.
    for number in [1, 2] {
        fs::remove_file(sealed_file(home, "second", number)).expect("the replica is deleted");
        fs::remove_dir_all(home.join(format!("second/cache/s-t01000-{number}"))).expect("its cache, too");
    }
    ok(sealyard(home).args(["--repo", "second", "storage", "redeclare", "--all", "--drop-missing"]));
    // By Damocles's name, and with the miner as it takes it; another miner's sector is none of these.
    let rebuild = ["--repo", "second", "util", "sealer", "sectors", "rebuild"];
    let stranger = refused(sealyard(home).args(rebuild).args(["f02000", "1"]), 1);
    assert!(stranger.contains("f02000/1"), "{stranger}");
    let told = ok(sealyard(home).args(rebuild).args(["f01000", "1", "2", "--parallel", "2"]));
    assert!(told.contains("2 of 2 sectors are back"), "{told}");
    whole();
    let again = ok(sealyard(home).args(repair));
    assert!(again.contains("2 of 2 sectors are back"), "what is there is left as it is: {again}");

    // What is left of a sector is set aside, not deleted and not in the way; a clean-up offers it when there is a whole copy.
    fs::remove_dir_all(home.join("second/cache/s-t01000-1")).expect("its cache is deleted");
    ok(sealyard(home).args(["--repo", "second", "storage", "redeclare", "--all", "--drop-missing"]));
    let told = ok(sealyard(home).args(["--repo", "second", "sectors", "rebuild", "1"]));
    assert!(told.contains("1 of 1 sectors are back"), "{told}");
    whole();
    let aside: Vec<_> = fs::read_dir(home.join("second/sealed/fetching"))
        .expect("it is set aside")
        .map(|entry| entry.expect("read").path())
        .collect();
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert!(fs::read(&aside[0]).expect("it is there") == replicas[0]);
    let cleanup = ["--repo", "second", "storage", "cleanup"];
    let told = ok(sealyard(home).args(cleanup));
    assert!(told.contains("replaced") && told.contains(aside[0].to_str().expect("text")), "{told}");
    ok(sealyard(home).args(cleanup).arg("--really-do-it"));
    assert!(!aside[0].exists());
    whole();

    // Another ticket makes another replica, and that is not believed.
    let mut third = entries[0].clone();
    third["SectorNumber"] = json!(3);
    third["Ticket"] = json!(base64::engine::general_purpose::STANDARD.encode([1; 32]));
    write(home, "wrong.json", &[third]);
    let wrong = ["--repo", "second", "repair", "run", "--manager", "--metadata", "wrong.json"];
    let told = refused(sealyard(home).args(wrong), 1);
    assert!(told.contains("1 of 1 sectors are not back: 3"), "{told}");
    let third = status(home, "second", 3);
    assert_eq!(third["state"], "SealPreCommit2Failed");
    assert!(third["last_error"].as_str().is_some_and(|text| text.contains("was proven")), "{third:#}");
}

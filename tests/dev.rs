//! `sealyard dev`: the whole journey in one command, with real proofs.

mod system;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use system::parameters::{self, PROVING_MAX};
use system::{run_within, sealyard, text};

fn dev(home: &Path, args: &[&str], bound: Duration) -> Value {
    parameters::recall(home);
    let output = run_within(sealyard(home).arg("dev").arg("--json").args(args), bound);
    assert!(output.status.success(), "dev {args:?}: {}\n{}", output.status, text(&output.stderr));
    let document: Value =
        serde_json::from_slice(&output.stdout).expect("exactly one JSON document on stdout");
    let schema: Value =
        serde_json::from_str(include_str!("../cli/dev.schema.json")).expect("the schema is JSON");
    let validator = jsonschema::validator_for(&schema).expect("the schema is a schema");
    if let Err(error) = validator.validate(&document) {
        panic!("the document does not fit its schema: {error}\n{document:#}");
    }
    document
}

/// The finished tasks of one sector by type; a type that ran twice fails the test.
fn tasks(sector: &Value) -> BTreeMap<String, Value> {
    let mut by_type = BTreeMap::new();
    for task in sector["tasks"].as_array().expect("tasks") {
        let kind = task["type"].as_str().expect("type").to_owned();
        if kind != "GET" {
            assert!(by_type.insert(kind.clone(), task.clone()).is_none(), "{kind} ran twice: {sector:#}");
        }
    }
    by_type
}

#[test]
fn two_sectors_reach_commit1_over_two_workers() {
    let home = tempfile::tempdir().expect("a directory");
    let dir = home.path().join("yard");
    let place = dir.to_string_lossy().into_owned();
    let document = dev(home.path(), &["--until", "c1", "--keep", "--dir", &place], Duration::from_secs(600));
    let sectors = document["sectors"].as_array().expect("sectors");
    assert_eq!(sectors.len(), 2);
    for sector in sectors {
        assert_eq!(sector["state"], "Committing");
        assert_eq!(sector["verified"], Value::Null);
        assert_eq!(sector["proof"], Value::Null);
        assert_eq!(sector["proof_type"], 5);
        let tasks = tasks(sector);
        assert_eq!(tasks["AP"]["worker"], "A");
        assert_eq!(tasks["PC1"]["worker"], "A");
        assert_eq!(tasks["PC2"]["worker"], "B");
        assert_eq!(tasks["C1"]["worker"], "B");
        for (earlier, later) in [("AP", "PC1"), ("PC1", "PC2"), ("PC2", "C1")] {
            let ended = tasks[earlier]["ended_ms"].as_u64().expect("ended");
            let started = tasks[later]["started_ms"].as_u64().expect("started");
            assert!(ended > 0 && ended <= started, "{earlier} must end before {later} starts: {sector:#}");
        }
        // Sealed is one sector; the cache after PreCommit1 is two layers and tree-d, which has 2n-1 nodes.
        let fetched = tasks["PC2"]["bytes_fetched"].as_u64().expect("bytes");
        let least = 2048 + 2 * 2048 + (2 * 2048 - 32);
        assert!(
            fetched >= least,
            "{fetched} bytes came over the socket, at least {least} had to: {sector:#}"
        );
        assert_eq!(tasks["C1"]["bytes_fetched"], 0, "everything was on B already");
    }
    only_b_holds_the_replicas(&document, &dir);
}

/// A's copies are gone from the index and from its disk.
fn only_b_holds_the_replicas(document: &Value, dir: &Path) {
    for stored in document["storage"].as_array().expect("storage") {
        let types = stored["types"].as_array().expect("types");
        if types.iter().any(|kind| kind == "sealed" || kind == "cache") {
            assert_eq!(stored["worker"], "B", "{stored:#}");
            assert_eq!(stored["primary"], true, "{stored:#}");
        }
    }
    for (path, _) in system::snapshot(&dir.join("A")) {
        let name = path.to_string_lossy();
        let replica = name.contains("/sealed/s-t0") || name.contains("/cache/s-t0");
        assert!(!replica, "A still holds {name}");
    }
}

#[test]
fn an_eight_mebibyte_sector_reaches_commit1() {
    let home = tempfile::tempdir().expect("a directory");
    let args = ["--sector-size", "8MiB", "--sectors", "1", "--until", "c1"];
    let document = dev(home.path(), &args, Duration::from_secs(600));
    let sector = &document["sectors"][0];
    assert_eq!(sector["proof_type"], 6);
    assert_eq!(sector["state"], "Committing");
    let fetched = tasks(sector)["PC2"]["bytes_fetched"].as_u64().expect("bytes");
    // Sealed, two layers and tree-d, which has a node of 32 bytes less than two sectors.
    assert!(fetched >= 5 * (8 << 20) - 32, "five sectors' worth but for one node; {fetched} bytes came");
}

#[test]
fn every_proof_is_made_and_verified() {
    let home = tempfile::tempdir().expect("a directory");
    let dir = home.path().join("yard");
    let place = dir.to_string_lossy().into_owned();
    let document = dev(home.path(), &["--sectors", "1", "--keep", "--dir", &place], PROVING_MAX);
    let sector = &document["sectors"][0];
    assert_eq!(sector["state"], "Proving");
    assert_eq!(sector["verified"], true);
    assert_eq!(sector["proof"].as_str().map(str::len), Some(2 * 192), "one partition is 192 bytes");
    let tasks = tasks(sector);
    for kind in ["C2", "FIN"] {
        assert_eq!(tasks[kind]["worker"], "B");
    }
    only_b_holds_the_replicas(&document, &dir);
    let stored: Vec<&Value> = document["storage"].as_array().expect("storage").iter().collect();
    let kinds: Vec<&Value> =
        stored.iter().flat_map(|entry| entry["types"].as_array().expect("types")).collect();
    assert!(
        !kinds.iter().any(|kind| *kind == "unsealed"),
        "a finalized CC sector keeps no unsealed file: {document:#}"
    );
    let layers = system::snapshot(&dir)
        .into_iter()
        .filter(|(path, _)| path.to_string_lossy().contains("sc-02-data-layer"));
    assert_eq!(layers.count(), 0, "Finalize drops the layers");
}

#[test]
fn a_production_size_is_refused_before_anything_starts() {
    let home = tempfile::tempdir().expect("a directory");
    let line = system::refused(sealyard(home.path()).args(["dev", "--sector-size", "32GiB"]), 9);
    assert!(line.contains("32GiB") && line.contains("2KiB"), "{line}");
}

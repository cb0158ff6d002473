//! Three real files become the pieces of a sector that is sealed with real proofs, from Empty to Proving, and each reads back
//! as it was. Whether the sector can be proven is told then, and what a flipped byte in it does; lost, it comes back. Sectors flow
//! to Proving unattended.

mod system;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use system::parameters::{self, PROVING_MAX};
use system::{
    COMMAND_MAX, Daemon, ask_until, json, kill, ok, read_piece, refused, run_within, sealyard, signal, text,
};

/// Seconds on an idle machine.
const FILLING_MAX: Duration = Duration::from_secs(120);

fn status(home: &Path) -> Value {
    json(home, &["sectors", "status", "1"])
}

#[test]
fn three_files_are_sealed_and_read_back() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    parameters::generate(home);
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
    let as_given = |data: &Value| {
        for ((name, bytes), data) in files.iter().zip(data.as_array().expect("data")) {
            let offset = data["offset"].as_u64().expect("it is written");
            assert!(read_piece(home, offset, bytes.len() as u64) == *bytes, "{name} is not what was given");
        }
    };
    as_given(&status(home)["data"]);
    assert_eq!(json(home, &["sectors", "start-seal", "1"]), serde_json::json!({"sector": 1}));

    let proven = ask_until("Proving", PROVING_MAX, || status(home), |status| status["state"] == "Proving");
    assert_eq!((&proven["verified"], &proven["proof"].is_string()), (&Value::from(true), &true));
    let sizes: Vec<u64> =
        proven["pieces"].as_array().expect("pieces").iter().filter_map(|piece| piece[0].as_u64()).collect();
    assert_eq!(sizes, [256, 256, 512, 128, 128, 256, 512], "as Lotus places them");
    as_given(&proven["data"]);
    every_event_is_shown(home);
    kept_data_is_found(home);
    it_is_unsealed_from_what_was_finalized(home);
    as_given(&proven["data"]);
    work_on_it_is_no_fault(home);
    whether_it_can_be_proven_is_told(home);
    let lost = Files::of(home);
    scrubbing_tells_a_changed_byte(home);
    a_bad_replica_is_set_aside_and_sealed_again(home, &proven, &lost);
    it_comes_back(home, &proven, files.iter().map(|(name, _)| *name));
    assert!(Files::of(home) == lost, "the replica or its data is not what it was");
    as_given(&status(home)["data"]);
}

/// Data that somebody gave stays unsealed beside the finalized sector: one place has all three.
fn kept_data_is_found(home: &Path) {
    let (path, id) = own_path(home);
    let all = serde_json::json!(["unsealed", "sealed", "cache"]);
    let found = json(home, &["storage", "find", "1"]);
    let places = found["places"].as_array().expect("places");
    let [only] = &places[..] else { panic!("{found:#}") };
    assert_eq!(only["path"], *id, "{found:#}");
    assert_eq!((&only["types"], &only["primary"]), (&all, &all), "{found:#}");
    assert_eq!((&only["remote"], &only["local"]), (&Value::from(false), &path.to_string_lossy().into()));
    let said = ok(sealyard(home).args(["storage", "find", "1"]));
    for words in
        [&*format!("In {id} (Unsealed, Sealed, Cache)"), "Primary: unsealed, sealed, cache\n", "Local ("]
    {
        assert!(said.contains(words), "{words:?} is missing:\n{said}");
    }
}

/// What Finalize leaves is enough: tree-d and the layers are gone by now.
fn it_is_unsealed_from_what_was_finalized(home: &Path) {
    let (path, _) = own_path(home);
    let cached = fs::read_dir(path.join("cache/s-t01000-1")).expect("the cache").flatten();
    let names: Vec<String> = cached.map(|one| one.file_name().to_string_lossy().into_owned()).collect();
    assert!(!names.iter().any(|name| name.contains("layer") || name.contains("tree-d")), "{names:?}");
    say(home, &["sectors", "release-unsealed", "1", "--all"]);
    assert!(!path.join("unsealed/s-t01000-1").exists());
    let gone = ["sectors", "read-piece", "1", "--no-unseal", "--offset", "0", "--size", "1", "--output", "-"];
    refused(sealyard(home).args(gone), 13);
    assert_eq!(say(home, &["sectors", "unseal", "1"]), "sector 1 is unsealed\n");
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

/// The manager's own storage path and its id.
fn own_path(home: &Path) -> (PathBuf, String) {
    let path = home.join(".sealyard");
    let meta = fs::read(path.join("sectorstore.json")).expect("a storage path");
    let meta: Value = serde_json::from_slice(&meta).expect("JSON");
    (path, meta["ID"].as_str().expect("an id").to_owned())
}

fn say(home: &Path, args: &[&str]) -> String {
    ok(sealyard(home).args(args))
}

/// A worker that only has a storage path.
fn store(home: &Path) -> Daemon {
    let mut command = sealyard(home);
    command.args(["worker", "run", "--name", "store", "--address", "127.0.0.1:0", "--worker-repo", "store"]);
    let mut worker = Daemon::start("store", command.args(["--no-local-storage", "--unseal"]));
    worker.expect("registered");
    worker
}

/// What is said of the sector, which is not sealed again.
fn not_rebuilt(home: &Path) -> String {
    let output = run_within(sealyard(home).args(["sectors", "rebuild", "1"]), COMMAND_MAX);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{}{told}", text(&output.stdout));
    told
}

/// The worker that has the sector is killed, starts again without its disk, and with it. Nothing is held against the files.
fn a_path_that_is_away_is_no_fault(home: &Path, mut worker: Daemon, (disks, there): (&Path, &str)) -> Daemon {
    let is_away = |why: &str| {
        let check = ["proving", "check", "1"];
        let output = run_within(sealyard(home).args(check), COMMAND_MAX);
        let (said, error) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{why}: {said}{error}");
        assert!(said.starts_with("sector 1: path away: "), "{why}: {said}");
        assert!(said.ends_with("1 sectors checked: 1 path away\n"), "{why}: {said}");
        assert!(error.contains("nothing is said against their files"), "{why}: {error}");
        let error = not_rebuilt(home);
        assert!(error.contains("sector 1 is not sealed again") && error.contains(there), "{why}: {error}");
    };
    kill(&mut worker);
    is_away("killed");
    let aside = home.join("aside");
    fs::rename(disks, &aside).expect("unmounted");
    let mut worker = store(home);
    is_away("not mounted");
    kill(&mut worker);
    fs::rename(&aside, disks).expect("mounted");
    let worker = store(home);
    let good = |said: &String| said == "sector 1: good\n1 sectors checked: 1 good\n";
    let check = || text(&run_within(sealyard(home).args(["proving", "check", "1"]), COMMAND_MAX).stdout);
    ask_until("its files", FILLING_MAX, check, good);
    worker
}

/// The sector goes to a worker and comes back; that worker stands still meanwhile, so that the move can be looked at.
fn work_on_it_is_no_fault(home: &Path) {
    let worker = store(home);
    let disks = home.join("disks");
    let attach = ["storage", "attach", "--init", "--store", "--worker", "store"];
    let attached = ok(sealyard(home).args(attach).arg(&disks));
    let there = attached.split_whitespace().find(|word| word.len() == 36).expect("an id").to_owned();
    say(home, &["storage", "move", "1", &there]);
    let worker = a_path_that_is_away_is_no_fault(home, worker, (&disks, &there));
    signal(worker.id(), "-STOP");
    let (at, (_, here)) = (home.to_owned(), own_path(home));
    let back = std::thread::spawn(move || {
        run_within(sealyard(&at).args(["storage", "move", "1", &here]), COMMAND_MAX)
    });
    let locked = |found: &Value| found["locks"].as_array().is_some_and(|locks| !locks.is_empty());
    ask_until("the move", FILLING_MAX, || json(home, &["storage", "find", "1"]), locked);
    let proving = say(home, &["proving", "check", "1"]);
    let rebuild = not_rebuilt(home);
    signal(worker.id(), "-CONT");
    assert!(proving.starts_with("sector 1: locked: operator has its files (move to "), "{proving}");
    assert!(rebuild.contains("locked: operator has its files (move to "), "{rebuild}");
    let back = back.join().expect("the thread");
    assert!(back.status.success(), "{}", text(&back.stderr));
}

/// The host that holds the files proves them; a flipped byte is told with its file, wherever it is.
fn whether_it_can_be_proven_is_told(home: &Path) {
    let (path, id) = own_path(home);
    let check = |args: &[&str], code: i32| -> (String, Value) {
        let mut command = sealyard(home);
        let output = run_within(command.args(["proving", "check"]).args(args), COMMAND_MAX);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", text(&output.stderr));
        let said = text(&output.stdout);
        let json = serde_json::from_str(&said).unwrap_or_default();
        (said, json)
    };
    let (said, _) = check(&[], 0);
    assert_eq!(said, "sector 1: good\n1 sectors checked: 1 good\n");
    let (said, _) = check(&["--only-bad", "--storage-id", &id], 0);
    assert_eq!(said, "1 sectors checked: 1 good\n");
    check(&["99"], 14);
    let (said, _) = check(&["99", "1"], 14);
    assert!(said.starts_with("sector 99: unknown: MGR053") && said.contains("\nsector 1: good\n"), "{said}");
    let cache = path.join("cache/s-t01000-1");
    let files = [
        (path.join("sealed/s-t01000-1"), "sealed: "),
        (cache.join("p_aux"), "p_aux: "),
        (cache.join("sc-02-data-tree-r-last.dat"), "sc-02-data-tree-r-last.dat: "),
    ];
    for (file, told) in &files {
        let before = fs::read(file).expect("the file");
        let mut bytes = before.clone();
        *bytes.last_mut().expect("a byte") ^= 1;
        fs::write(file, bytes).expect("written");
        let (_, found) = check(&["--only-bad", "--json"], 13);
        assert_eq!((&found["bad"], &found["sectors"][0]["state"]), (&Value::from(1), &Value::from("bad")));
        let copy = &found["sectors"][0]["copies"][0];
        assert!(copy["detail"].as_str().is_some_and(|detail| detail.starts_with(told)), "{told}: {found:#}");
        assert_eq!((&copy["sealed"], &copy["cache"]), (&Value::from(id.clone()), &Value::from(id.clone())));
        fs::write(file, before).expect("written");
    }
    // Not needed to prove anything.
    fs::remove_file(cache.join("t_aux")).expect("t_aux");
    check(&["1"], 0);
}

/// The worker that holds the files computes them, and what it finds is kept.
fn scrubbing_tells_a_changed_byte(home: &Path) {
    assert_eq!(say(home, &["storage", "scrub", "--results"]), "nothing was scrubbed yet\n");
    let (path, id) = own_path(home);
    let said = say(home, &["storage", "scrub", "1"]);
    let intact = said.lines().filter(|row| row.contains("intact") && row.contains(&id)).count();
    assert!(intact == 2 && said.contains("sector 1 sealed"), "{said}");
    let kept = json(home, &["storage", "scrub", "--results"]);
    assert_eq!(
        (&kept["bad"], kept["files"].as_array().map(Vec::len)),
        (&Value::from(0), Some(2)),
        "{kept:#}"
    );
    let sealed = path.join("sealed/s-t01000-1");
    let mut bytes = fs::read(&sealed).expect("the replica");
    bytes[77] ^= 1;
    fs::write(&sealed, bytes).expect("written");
    let mut command = sealyard(home);
    let output = run_within(command.args(["storage", "scrub", "--json", "1"]), COMMAND_MAX);
    assert_eq!(output.status.code(), Some(13), "{}", text(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(told["bad"], 1, "{told:#}");
    let verdicts = |told: &Value| -> Vec<String> {
        let files = told["files"].as_array().expect("files").iter();
        files.map(|it| format!("{} {}", it["file"], it["verdict"]).replace('"', "")).collect()
    };
    let mut found = verdicts(&told);
    found.sort();
    assert_eq!(found, ["sealed differs", "unsealed intact"], "{told:#}");
    // Kept: when, by whom, what. It is told again without looking again.
    let kept = json(home, &["storage", "scrub", "--results", "1"]);
    let mut again = verdicts(&kept);
    again.sort();
    assert_eq!(again, found, "{kept:#}");
    assert!(kept["files"][0]["at_ms"].as_u64() > Some(0) && kept["files"][0]["path"] == *id, "{kept:#}");
    let said = say(home, &["storage", "scrub", "--results"]);
    assert!(said.contains(&format!("sector 1 sealed in {id}: differs (expected bagboea")), "{said}");
    assert!(said.contains(" ago"), "{said}");
    // In a directory of this host, by this process.
    let dir = path.to_string_lossy().into_owned();
    let output = run_within(sealyard(home).args(["storage", "scrub", "--dir", &dir]), COMMAND_MAX);
    let said = text(&output.stdout);
    assert!(said.contains("intact") && said.contains("differs"), "{said}");
}

/// What must be byte for byte as it was.
#[derive(PartialEq)]
struct Files([Vec<u8>; 2]);

impl Files {
    fn of(home: &Path) -> Self {
        let (path, _) = own_path(home);
        Self(["sealed", "unsealed"].map(|kind| fs::read(path.join(kind).join("s-t01000-1")).expect("a file")))
    }
}

/// Of the replica one byte is another: what is there is set aside, and its data, which is left, is sealed again.
fn a_bad_replica_is_set_aside_and_sealed_again(home: &Path, proven: &Value, whole: &Files) {
    let (path, _) = own_path(home);
    let sealed = path.join("sealed/s-t01000-1");
    let bad = fs::read(&sealed).expect("the replica");
    let check = run_within(sealyard(home).args(["proving", "check"]), COMMAND_MAX);
    let (code, told) = (check.status.code(), text(&check.stdout));
    assert!(code == Some(13) && told.starts_with("sector 1: bad: sealed: "), "{told}");
    let rebuild = || {
        let output = run_within(sealyard(home).args(["sectors", "rebuild", "1"]), PROVING_MAX);
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stderr)
    };
    rebuild();
    assert_eq!(
        (&status(home)["comm_r"], &status(home)["state"]),
        (&proven["comm_r"], &Value::from("Proving"))
    );
    assert!(Files::of(home) == *whole, "the replica or its data is not what it was");
    let files = |kind: &str| -> Vec<PathBuf> {
        let all = fs::read_dir(path.join(kind).join("fetching")).expect("a directory").flatten();
        all.map(|file| file.path()).collect()
    };
    assert!(files("sealed").iter().any(|file| fs::read(file).is_ok_and(|bytes| bytes == bad)), "deleted");
    assert!(files("cache").iter().any(|file| file.join("p_aux").is_file()), "its cache was deleted");
    let good = say(home, &["proving", "check"]);
    assert!(good.starts_with("sector 1: good"), "{good}");
    // Once more: it is proven, and stays as it is.
    let told = rebuild();
    assert!(told.contains("was proven; nothing was done"), "{told}");
    let rebuilt = status(home)["log"].to_string().matches("sealed again").count();
    assert_eq!(rebuilt, 1, "{:#}", status(home)["log"]);
}

/// All three of its files are deleted; the manager that has sealed and proven it seals it again from the files that were given.
fn it_comes_back<'a>(home: &Path, proven: &Value, names: impl Iterator<Item = &'a str>) {
    let (path, _) = own_path(home);
    for kind in ["sealed", "unsealed"] {
        fs::remove_file(path.join(kind).join("s-t01000-1")).expect("it is deleted");
    }
    fs::remove_dir_all(path.join("cache/s-t01000-1")).expect("the cache is deleted");
    let check = run_within(sealyard(home).args(["proving", "check"]), COMMAND_MAX);
    let (code, told) = (check.status.code(), text(&check.stdout));
    assert!(code == Some(13) && told.starts_with("sector 1: bad: sealed: "), "{told}");
    assert!(told.contains("sealed/s-t01000-1 is not there"), "{told}");
    let mut rebuild = sealyard(home);
    rebuild.args(["sectors", "rebuild", "1"]);
    for (data, name) in proven["data"].as_array().expect("data").iter().zip(names) {
        rebuild.args(["--piece", &format!("{}={name}", data["cid"].as_str().expect("a CID"))]);
    }
    let output = run_within(&mut rebuild, PROVING_MAX);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let again = status(home);
    for kept in ["comm_r", "comm_d", "ticket", "seed", "proof", "verified", "pieces", "data"] {
        assert_eq!(again[kept], proven[kept], "{kept}: {again:#}");
    }
    assert_eq!(again["state"], "Proving");
    assert_eq!(say(home, &["proving", "check"]), "sector 1: good\n1 sectors checked: 1 good\n");
}

/// How many sectors flow unless `SEALYARD_FLOW_SECTORS` says it; at most so many at once, and at least one comes later.
const FLOW: usize = 2;
const KEEP: usize = 2;

/// The manager pledges them by itself, another one for each that is proven, is killed on the way, and goes on.
#[test]
fn sectors_flow_unattended_to_proving() {
    let count = std::env::var("SEALYARD_FLOW_SECTORS").map_or(FLOW, |count| count.parse().expect("a number"));
    let keep = KEEP.min(count.saturating_sub(1));
    let bound = PROVING_MAX * u32::try_from(count).expect("a few");
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    parameters::generate(home);
    ok(sealyard(home).args(["init", "--actor", "t01000", "--sector-size", "2KiB"]));
    let config = format!("[sealing]\nkeep_in_pipeline = {keep}\n");
    fs::write(home.join(".sealyard/config.toml"), config).expect("config.toml");
    let start = || {
        let mut manager = Daemon::start("manager", sealyard(home).args(["run", "--listen", "127.0.0.1:0"]));
        manager.expect("listening on");
        manager
    };
    let sectors = || {
        let listed = json(home, &["sectors", "list"]);
        listed.as_array().expect("sectors").clone()
    };
    let proven = |sectors: &Vec<Value>| sectors.iter().filter(|it| it["state"] == "Proving").count();
    let mut manager = start();
    let has_replica = |sectors: &Vec<Value>| sectors.iter().any(|sector| sector["comm_r"].is_string());
    let before = ask_until("a replica", bound, sectors, has_replica);
    assert_eq!((before.len(), proven(&before)), (keep, 0), "{before:#?}");
    kill(&mut manager);
    let _manager = start();
    ask_until("the last pledge", bound, sectors, |sectors| sectors.len() >= count);
    let paused = say(home, &["sectors", "pledge", "--pause"]);
    assert!(paused.contains("paused by an operator") && paused.contains("--resume"), "{paused}");
    let all = ask_until("Proving", bound, sectors, |sectors| proven(sectors) == sectors.len());
    assert!(all.len() >= count, "{all:#?}");
    for (one, other) in all.iter().zip(all.iter().skip(1)) {
        assert_ne!(one["comm_r"], other["comm_r"]);
    }
    let told = say(home, &["proving", "check"]);
    let good = format!("{0} sectors checked: {0} good\n", all.len());
    assert!(told.ends_with(&good), "{told}");
    let why = json(home, &["sealing", "why", "pledge"]);
    assert_eq!(
        (&why["waits_for"], &why["in_pipeline"]),
        (&Value::from("paused"), &Value::from(0)),
        "{why:#}"
    );
    let resumed = say(home, &["sectors", "pledge", "--resume"]);
    assert!(resumed.contains("sectors are in the pipeline"), "{resumed}");
}

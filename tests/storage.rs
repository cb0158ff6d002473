//! Storage on a live system with real processes: where files are in the three states of a sector, and the care of paths.

mod system;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use system::{Daemon, ask_until, ok, refused, run_within, sealyard, text};

/// A 2 KiB sector is at Commit1 within seconds; a loaded machine gets more.
const SEALING_MAX: Duration = Duration::from_secs(240);

/// The manager's own worker takes nothing.
const NO_LOCAL_TASKS: &str = "[Storage]\nAllowAddPiece = false\nAllowPreCommit1 = false\nAllowPreCommit2 = false\n\
    AllowCommit = false\nAllowUnseal = false\n";

/// A manager without storage, worker `seal` with a path for sealing, worker `store` with one for storing.
struct Yard {
    home: tempfile::TempDir,
    seal: Daemon,
    _store: Daemon,
    _manager: Daemon,
}

impl Yard {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let at = home.path();
        ok(sealyard(at).args(["init", "--actor", "t01000", "--no-local-storage"]));
        fs::write(at.join(".sealyard/config.toml"), NO_LOCAL_TASKS).expect("config.toml");
        let mut manager = Daemon::start("manager", sealyard(at).args(["run", "--listen", "127.0.0.1:0"]));
        manager.expect("listening on");
        let tasks = ["--addpiece", "--precommit1", "--precommit2", "--commit"];
        let seal = worker(at, "seal", &tasks);
        let store = worker(at, "store", &["--unseal"]);
        let yard = Self { seal, _store: store, _manager: manager, home };
        yard.attach("seal", &["--seal"], "nvme");
        yard.attach("store", &["--store", "--keep-free", "1MiB"], "disks");
        yard
    }

    fn home(&self) -> &Path {
        self.home.path()
    }

    /// Has a worker make a storage path and open it, by way of the manager.
    fn attach(&self, worker: &str, uses: &[&str], name: &str) -> PathBuf {
        let dir = self.home().join(name);
        let mut command = sealyard(self.home());
        command.args(["storage", "attach", "--init", "--worker", worker]).args(uses).arg(&dir);
        let said = ok(&mut command);
        assert!(said.starts_with("attached ") && said.contains(name) && said.contains(worker), "{said}");
        dir
    }

    fn say(&self, args: &[&str]) -> String {
        ok(sealyard(self.home()).args(args))
    }

    fn json(&self, args: &[&str]) -> Value {
        let text = ok(sealyard(self.home()).args(args).arg("--json"));
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{args:?} printed no JSON ({error}): {text}"))
    }

    /// The id in a path's `sectorstore.json`.
    fn id(&self, name: &str) -> String {
        let bytes = fs::read(self.home().join(name).join("sectorstore.json")).expect("a storage path");
        let meta: Value = serde_json::from_slice(&bytes).expect("JSON");
        meta["ID"].as_str().expect("an id").to_owned()
    }
}

fn worker(home: &Path, name: &str, tasks: &[&str]) -> Daemon {
    let mut command = sealyard(home);
    command.args(["worker", "run", "--name", name, "--address", "127.0.0.1:0", "--worker-repo", name]);
    command.args(["--no-local-storage"]).args(tasks).env("IPFS_GATEWAY", "http://127.0.0.1:9/ipfs/");
    let mut worker = Daemon::start(name, &mut command);
    worker.expect("registered");
    worker
}

fn signal(pid: u32, signal: &str) {
    ok(Command::new("kill").args([signal, &pid.to_string()]));
}

fn place<'a>(found: &'a Value, id: &str) -> Option<&'a Value> {
    found["places"].as_array()?.iter().find(|place| place["path"] == *id)
}

#[test]
fn a_sectors_files_are_found_while_it_is_sealed_moved_and_stored() {
    let yard = Yard::new();
    let (seal, store) = (yard.id("nvme"), yard.id("disks"));
    yard.say(&["sectors", "pledge", "--until", "c1"]);

    // Sealing on a worker.
    let sealing = ask_until(
        "files",
        SEALING_MAX,
        || yard.json(&["storage", "find", "1"]),
        |found| {
            place(found, &seal).is_some_and(|place| place["types"].as_array().is_some_and(|it| it.len() == 3))
        },
    );
    let here = place(&sealing, &seal).expect("just found");
    assert_eq!(here["types"], serde_json::json!(["unsealed", "sealed", "cache"]), "{sealing:#}");
    assert_eq!((&here["remote"], &here["workers"][0]), (&Value::from(true), &Value::from("seal")));
    assert_eq!((&here["sealing"], &here["storage"]), (&Value::from(true), &Value::from(false)));
    let said = yard.say(&["storage", "find", "1"]);
    for words in [&format!("In {seal} (Unsealed, Sealed, Cache)"), "Sealing: true; Storage: false", "Remote"]
    {
        assert!(said.contains(words), "{words:?} is missing:\n{said}");
    }
    for kind in ["unsealed", "sealed", "cache"] {
        assert!(said.contains(&format!("/remote/{kind}/s-t01000-1")), "{kind}:\n{said}");
    }

    // Moving: its source stands still, so that the move can be looked at.
    let at_rest = |status: &Value| status["stopped"] == true && status["c1_sha256"].is_string();
    ask_until("Commit1", SEALING_MAX, || yard.json(&["sectors", "status", "1"]), at_rest);
    signal(yard.seal.id(), "-STOP");
    let home = yard.home().to_owned();
    let goal = store.clone();
    let moving = std::thread::spawn(move || {
        run_within(sealyard(&home).args(["storage", "move", "1", &goal]), SEALING_MAX)
    });
    let moved = ask_until(
        "the move",
        SEALING_MAX,
        || yard.json(&["storage", "find", "1"]),
        |found| found["locks"].as_array().is_some_and(|locks| !locks.is_empty()),
    );
    assert!(place(&moved, &seal).is_some() && place(&moved, &store).is_none(), "{moved:#}");
    assert_eq!(moved["locks"][0]["owner"], "operator", "{moved:#}");
    let said = yard.say(&["storage", "find", "1"]);
    assert!(said.contains("Locked: writes") && said.contains(&format!("move to {store}")), "{said}");
    let locks = yard.say(&["storage", "locks"]);
    assert!(locks.contains("sealed(W)") && locks.contains("operator for move to"), "{locks}");
    let second = refused(sealyard(yard.home()).args(["storage", "move", "1", &store]), 10);
    assert!(second.contains("sector 1 is being worked on"), "{second}");
    signal(yard.seal.id(), "-CONT");
    let output = moving.join().expect("the thread");
    assert!(output.status.success(), "{}", text(&output.stderr));

    // In storage.
    let stored = yard.json(&["storage", "find", "1"]);
    let there = place(&stored, &store).unwrap_or_else(|| panic!("{stored:#}"));
    assert_eq!(there["primary"], serde_json::json!(["unsealed", "sealed", "cache"]), "{stored:#}");
    assert!(place(&stored, &seal).is_none(), "{stored:#}");
    assert_eq!(stored["locks"], serde_json::json!([]));
    let said = yard.say(&["storage", "find", "1"]);
    assert!(said.contains("Sealing: false; Storage: true"), "{said}");
    assert!(said.contains("Primary: unsealed, sealed, cache") && !said.contains("Copy:"), "{said}");
    assert!(yard.home().join("disks/sealed/s-t01000-1").is_file());
    assert!(!yard.home().join("nvme/sealed/s-t01000-1").exists());
    listings_tell_it(&yard, &seal, &store);
    scrubbing_tells_a_changed_byte(&yard);
}

fn scrubbing_tells_a_changed_byte(yard: &Yard) {
    let disks = yard.home().join("disks").to_string_lossy().into_owned();
    let said = yard.say(&["storage", "scrub", "--dir", &disks, "1"]);
    let intact = said.lines().filter(|row| row.contains("intact")).count();
    assert!(intact == 2 && said.contains("sector 1 sealed"), "{said}");
    let sealed = yard.home().join("disks/sealed/s-t01000-1");
    let mut bytes = fs::read(&sealed).expect("the replica");
    bytes[77] ^= 1;
    fs::write(&sealed, bytes).expect("written");
    let mut command = sealyard(yard.home());
    command.args(["storage", "scrub", "--json", "--dir", &disks, "1"]);
    let output = run_within(&mut command, SEALING_MAX);
    assert_eq!(output.status.code(), Some(13), "{}", text(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(told["bad"], 1, "{told:#}");
    let verdicts: Vec<&str> =
        told["files"].as_array().expect("files").iter().filter_map(|it| it["verdict"].as_str()).collect();
    assert_eq!(verdicts, ["intact", "differs"], "{told:#}");
}

fn listings_tell_it(yard: &Yard, seal: &str, store: &str) {
    let listed = yard.say(&["storage", "list"]);
    for words in [seal, store, "Use: Seal", "Use: Store", "Sealed: 1", "Workers: store", "latency: "] {
        assert!(listed.contains(words), "{words:?} is missing:\n{listed}");
    }
    let sectors = yard.say(&["storage", "list", "sectors"]);
    let rows: Vec<&str> = sectors.lines().filter(|row| row.starts_with(store)).collect();
    assert_eq!(rows.len(), 3, "{sectors}");
    assert!(rows.iter().all(|row| row.contains("primary") && row.contains("Committing")), "{sectors}");
    assert_eq!(yard.json(&["storage", "list", "sectors"]).as_array().map(Vec::len), Some(1));
    assert_eq!(yard.say(&["storage", "locks"]), "no locks\n");
    let plan = yard.say(&["storage", "balance"]);
    assert!(plan.contains("even"), "one path has nothing to even out: {plan}");
}

#[test]
fn paths_of_a_worker_are_looked_after_from_afar() {
    let yard = Yard::new();
    let (disks, store) = (yard.home().join("disks"), yard.id("disks"));
    let keep = fs::read_to_string(disks.join("sealyard.json")).expect("what is kept free");
    assert!(keep.contains("\"KeepFree\": 1048576"), "{keep}");
    fs::write(disks.join("sealed/s-t01000-7"), vec![7; 2048]).expect("a file");
    fs::create_dir_all(disks.join("sealed/fetching")).expect("a directory");
    fs::write(disks.join("sealed/fetching/s-t01000-8"), "half").expect("a partial file");
    fs::write(disks.join("sealed/notes.txt"), "mine").expect("a foreign file");

    // The difference first, then the declaration.
    let said = yard.say(&["storage", "redeclare", "--id", &store, "--dry-run"]);
    assert!(said.contains("declare sealed of sector 7") && said.contains("nothing was changed"), "{said}");
    assert_eq!(yard.json(&["storage", "find", "7"])["places"], serde_json::json!([]));
    let survey = yard.say(&["storage", "cleanup", "--worker", "store"]);
    for words in
        ["s-t01000-7 (foreign", "no record of sector s-t01000-7", "notes.txt (foreign", "s-t01000-8 (partial"]
    {
        assert!(survey.contains(words), "{words:?} is missing:\n{survey}");
    }
    yard.say(&["storage", "redeclare", "--id", &store]);
    assert_eq!(yard.json(&["storage", "find", "7"])["places"][0]["primary"], serde_json::json!(["sealed"]));

    // What is offered goes, and nothing else: the partial file is old now.
    let old = std::time::SystemTime::now() - Duration::from_secs(7200);
    let partial = disks.join("sealed/fetching/s-t01000-8");
    fs::File::options().write(true).open(&partial).and_then(|file| file.set_modified(old)).expect("aged");
    let cleaned = yard.json(&["storage", "cleanup", "--worker", "store", "--really-do-it"]);
    assert_eq!(cleaned["cleaned"].as_array().map(Vec::len), Some(1), "{cleaned:#}");
    assert!(!partial.exists() && disks.join("sealed/notes.txt").exists());
    assert!(disks.join("sealed/s-t01000-7").exists());

    // A file that is gone is dropped.
    fs::remove_file(disks.join("sealed/s-t01000-7")).expect("lost");
    let said = yard.say(&["storage", "redeclare", "--all", "--worker", "store"]);
    assert!(said.contains("drop sealed of sector 7"), "{said}");
    assert_eq!(yard.json(&["storage", "find", "7"])["places"], serde_json::json!([]));

    let path = disks.to_string_lossy().into_owned();
    let line = refused(sealyard(yard.home()).args(["storage", "detach", "--worker", "store", &path]), 2);
    assert!(line.contains("--really-do-it"), "{line}");
    yard.say(&["storage", "detach", "--really-do-it", "--worker", "store", &path]);
    assert!(!yard.say(&["storage", "list"]).contains(&store) && disks.join("sectorstore.json").exists());
    let line = refused(sealyard(yard.home()).args(["storage", "cleanup", "--worker", "nobody"]), 10);
    assert!(line.contains("no worker \"nobody\"") && line.contains("seal"), "{line}");
    let line = refused(sealyard(yard.home()).args(["storage", "move", "1", &store]), 10);
    assert!(line.contains("no sector 1"), "{line}");
}

//! Storage on a live system with real processes: where files are in the three states of a sector, and the care of paths. The
//! sector is a rehearsal's, which has real files in real places and no minutes of proving.

mod system;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use system::wire::Wire;
use system::{Daemon, ask_until, executors, kill, ok, refused, run_within, sealyard, signal, text};

/// A 2 KiB sector is at Commit1 within seconds; a loaded machine gets more.
const SEALING_MAX: Duration = Duration::from_secs(300);

/// The manager's own worker takes nothing.
const NO_LOCAL_TASKS: &str = "[Storage]\nAllowAddPiece = false\nAllowPreCommit1 = false\nAllowPreCommit2 = false\n\
    AllowCommit = false\nAllowUnseal = false\n";

/// Commit2 takes 4 s, at the usual speed of 1000; all else is done in no time.
const PROFILE: &str = "[2KiB]\nc2 = \"4000s\"\n";

/// A manager without storage, worker `seal` with a path for sealing, worker `store` with one for storing.
struct Yard {
    home: tempfile::TempDir,
    _seal: Daemon,
    store: Daemon,
    manager: Daemon,
    /// Other hosts reach the manager's files by way of it.
    wire: Wire,
}

impl Yard {
    /// Of real sectors, or with more arguments those of a rehearsal.
    fn new(init: &[&str], executors: &[&str]) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let at = home.path();
        ok(sealyard(at).args(["init", "--actor", "t01000", "--no-local-storage"]).args(init));
        fs::write(at.join("profile.toml"), PROFILE).expect("a profile");
        fs::write(at.join(".sealyard/config.toml"), NO_LOCAL_TASKS).expect("config.toml");
        let wire = Wire::new();
        let advertised = ["run", "--listen", "127.0.0.1:0", "--advertise", &wire.address()];
        let mut manager = Daemon::start("manager", sealyard(at).args(advertised));
        manager.expect("listening on");
        let api = fs::read_to_string(at.join(".sealyard/api")).expect("its address");
        wire.leads_to(&format!("127.0.0.1:{}", api.split('/').nth(4).expect("/ip4/…/tcp/<port>/http")));
        let tasks = ["--addpiece", "--precommit1", "--precommit2", "--commit"];
        let seal = worker(at, "seal", &[&tasks[..], executors].concat());
        let store = worker(at, "store", &[&["--unseal"][..], executors].concat());
        let yard = Self { _seal: seal, store, manager, wire, home };
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

fn place<'a>(found: &'a Value, id: &str) -> Option<&'a Value> {
    found["places"].as_array()?.iter().find(|place| place["path"] == *id)
}

/// The three states that an operator asks about: being sealed on a worker, finalized in storage, moving. In each of them
/// `storage find` tells in words and as JSON where every file is, local or remote, primary or a copy.
#[test]
fn a_sectors_files_are_found_while_it_is_sealed_when_it_is_finalized_and_while_it_moves() {
    let executors = ["--executor", "all=rehearsal", "--rehearsal-profile", "profile.toml"];
    let yard = Yard::new(&["--rehearsal"], &executors);
    let (seal, store) = (yard.id("nvme"), yard.id("disks"));
    yard.attach("store", &["--seal"], "scratch");
    yard.say(&["sectors", "pledge"]);
    sealing_on_a_worker(&yard, &seal);
    finalized_in_storage(&yard, &seal, &store);
    unsealed_again_it_is_stored_too(&yard, &store);
    a_copy_is_no_primary(&yard, &seal);
    moving_to_a_path_of_the_manager(&yard, &store);
    declared_at_the_goal_and_not_yet_deleted_at_the_source(&yard, &store);
    listings_tell_it(&yard, &seal, &store);
    a_removed_sector_is_cleaned_up(&yard);
}

fn holds(found: &Value, path: &str, types: &[&str]) -> bool {
    place(found, path).is_some_and(|place| place["types"] == serde_json::json!(types))
}

fn sealing_on_a_worker(yard: &Yard, seal: &str) {
    let all = ["unsealed", "sealed", "cache"];
    // It stands still while it is looked at.
    let proving = || executors(yard.home(), "c2");
    let proving = ask_until("Commit2", SEALING_MAX, proving, |found| found.len() == 1)[0];
    signal(proving, "-STOP");
    let (found, said) = (yard.json(&["storage", "find", "1"]), yard.say(&["storage", "find", "1"]));
    signal(proving, "-CONT");
    assert!(holds(&found, seal, &all), "{found:#}");
    let here = place(&found, seal).expect("just found");
    assert_eq!((&here["remote"], &here["workers"][0]), (&Value::from(true), &Value::from("seal")));
    assert_eq!((&here["sealing"], &here["storage"]), (&Value::from(true), &Value::from(false)));
    assert_eq!(here["primary"], serde_json::json!(all), "{found:#}");
    for words in [&format!("In {seal} (Unsealed, Sealed, Cache)"), "Sealing: true; Storage: false", "Remote"]
    {
        assert!(said.contains(words), "{words:?} is missing:\n{said}");
    }
    assert!(said.contains("Worker: seal; Primary: unsealed, sealed, cache\n"), "{said}");
    for kind in all {
        assert!(said.contains(&format!("/remote/{kind}/s-t01000-1")), "{kind}:\n{said}");
    }
}

fn finalized_in_storage(yard: &Yard, seal: &str, store: &str) {
    let proving = |status: &Value| status["state"] == "Proving";
    ask_until("the proof", SEALING_MAX, || yard.json(&["sectors", "status", "1"]), proving);
    let stored = yard.json(&["storage", "find", "1"]);
    let there = place(&stored, store).unwrap_or_else(|| panic!("{stored:#}"));
    assert!(place(&stored, seal).is_none(), "{stored:#}");
    // Its data was zeros, which Finalize lets go.
    for of in ["types", "primary"] {
        assert_eq!(there[of], serde_json::json!(["sealed", "cache"]), "{stored:#}");
    }
    assert_eq!((&there["sealing"], &there["storage"]), (&Value::from(false), &Value::from(true)));
    let said = yard.say(&["storage", "find", "1"]);
    for words in [
        &format!("In {store} (Sealed, Cache)\n        Sealing: false; Storage: true\n"),
        "        Worker: store; Primary: sealed, cache\n        Remote\n",
        "/remote/sealed/s-t01000-1\n",
        "/remote/cache/s-t01000-1\n",
    ] {
        assert!(said.contains(words), "{words:?} is missing:\n{said}");
    }
}

/// What is unsealed on a path for sealing goes into storage afterwards, as with Lotus.
fn unsealed_again_it_is_stored_too(yard: &Yard, store: &str) {
    assert_eq!(yard.say(&["sectors", "unseal", "1"]), "sector 1 is unsealed\n");
    let all = ["unsealed", "sealed", "cache"];
    let found = yard.json(&["storage", "find", "1"]);
    assert!(holds(&found, store, &all), "{found:#}");
    assert_eq!(found["places"].as_array().map(Vec::len), Some(1), "nothing is left elsewhere: {found:#}");
    assert!(yard.home().join("disks/unsealed/s-t01000-1").is_file());
    assert!(!yard.home().join("scratch/unsealed/s-t01000-1").exists());
    let said = yard.say(&["storage", "find", "1"]);
    assert!(said.contains("Primary: unsealed, sealed, cache\n"), "{said}");
}

fn a_copy_is_no_primary(yard: &Yard, seal: &str) {
    let copy = yard.home().join("nvme/sealed/s-t01000-1");
    fs::copy(yard.home().join("disks/sealed/s-t01000-1"), &copy).expect("a copy");
    yard.say(&["storage", "redeclare", "--id", seal]);
    let found = yard.json(&["storage", "find", "1"]);
    let here = place(&found, seal).unwrap_or_else(|| panic!("{found:#}"));
    let (copies, primary) = (&here["copies"], &here["primary"]);
    assert_eq!((copies, primary), (&serde_json::json!(["sealed"]), &serde_json::json!([])), "{found:#}");
    let said = yard.say(&["storage", "find", "1"]);
    assert!(said.contains("Worker: seal; Primary: none; Copy: sealed\n"), "{said}");
    fs::remove_file(copy).expect("removed");
    yard.say(&["storage", "redeclare", "--id", seal]);
}

/// Its source stands still, so that the move can be looked at.
fn moving_to_a_path_of_the_manager(yard: &Yard, store: &str) {
    let shelf = yard.home().join("shelf");
    yard.say(&["storage", "attach", "--init", "--store", &shelf.to_string_lossy()]);
    let goal = yard.id("shelf");
    signal(yard.store.id(), "-STOP");
    let (home, to) = (yard.home().to_owned(), goal.clone());
    let moving = std::thread::spawn(move || {
        run_within(sealyard(&home).args(["storage", "move", "1", &to]), SEALING_MAX)
    });
    let moved = ask_until(
        "the move",
        SEALING_MAX,
        || yard.json(&["storage", "find", "1"]),
        |found| found["locks"].as_array().is_some_and(|locks| !locks.is_empty()),
    );
    assert!(holds(&moved, store, &["unsealed", "sealed", "cache"]) && place(&moved, &goal).is_none());
    assert_eq!(moved["locks"][0]["owner"], "operator", "{moved:#}");
    let said = yard.say(&["storage", "find", "1"]);
    assert!(said.contains(&format!("In {store} (Unsealed, Sealed, Cache)")), "{said}");
    assert!(said.contains("Locked: writes") && said.contains(&format!("move to {goal}")), "{said}");
    let locks = yard.say(&["storage", "locks"]);
    assert!(locks.contains("sealed(W)") && locks.contains("operator for move to"), "{locks}");
    let second = refused(sealyard(yard.home()).args(["storage", "move", "1", &goal]), 10);
    assert!(second.contains("sector 1 is being worked on"), "{second}");
    signal(yard.store.id(), "-CONT");
    let output = moving.join().expect("the thread");
    assert!(output.status.success(), "{}", text(&output.stderr));

    let stored = yard.json(&["storage", "find", "1"]);
    let there = place(&stored, &goal).unwrap_or_else(|| panic!("{stored:#}"));
    assert_eq!(there["primary"], serde_json::json!(["unsealed", "sealed", "cache"]), "{stored:#}");
    assert_eq!((&there["remote"], &there["local"]), (&Value::from(false), &shelf.to_string_lossy().into()));
    assert!(place(&stored, store).is_none(), "{stored:#}");
    assert_eq!(stored["locks"], serde_json::json!([]));
    let said = yard.say(&["storage", "find", "1"]);
    assert!(said.contains("Sealing: false; Storage: true"), "{said}");
    assert!(said.contains("Primary: unsealed, sealed, cache\n"), "{said}");
    assert!(said.contains(&format!("        Local ({})\n", shelf.display())), "{said}");
    assert!(shelf.join("sealed/s-t01000-1").is_file());
    assert!(!yard.home().join("disks/sealed/s-t01000-1").exists());
}

/// Back again, file by file: the goal has the first, and the source is being asked to delete it and has not heard of it. Both
/// have it then. And once more, so that all lies where it was.
fn declared_at_the_goal_and_not_yet_deleted_at_the_source(yard: &Yard, store: &str) {
    let all = ["unsealed", "sealed", "cache"];
    let shelf = yard.id("shelf");
    yard.wire.holds_deletions(true);
    let (home, to) = (yard.home().to_owned(), store.to_owned());
    let moving = std::thread::spawn(move || {
        run_within(sealyard(&home).args(["storage", "move", "1", &to]), SEALING_MAX)
    });
    yard.wire.expect_held(1, SEALING_MAX);
    let (moved, said) = (yard.json(&["storage", "find", "1"]), yard.say(&["storage", "find", "1"]));
    yard.wire.holds_deletions(false);
    for (path, local, types) in [(&*shelf, true, &all[..]), (store, false, &all[..1])] {
        assert!(holds(&moved, path, types), "{path}: {moved:#}");
        let there = place(&moved, path).expect("just found");
        assert_eq!(there["primary"], serde_json::json!(types), "{moved:#}");
        assert_eq!(there["remote"], Value::from(!local), "{moved:#}");
    }
    for words in [&format!("In {shelf} (Unsealed, Sealed, Cache)"), &format!("In {store} (Unsealed)")] {
        assert!(said.contains(words), "{words:?} is missing:\n{said}");
    }
    assert!(
        said.contains("Primary: unsealed, sealed, cache\n") && said.contains("Primary: unsealed\n"),
        "{said}"
    );
    assert_eq!(moved["conflicts"], serde_json::json!(["unsealed"]), "{moved:#}");
    assert!(said.contains("Locked: writes") && said.contains(&format!("move to {store}")), "{said}");
    let output = moving.join().expect("the thread");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let stored = yard.json(&["storage", "find", "1"]);
    assert!(holds(&stored, store, &all) && place(&stored, &shelf).is_none(), "{stored:#}");
    yard.say(&["storage", "move", "1", &shelf]);
}

/// Writes a file of nobody, which takes room on disk from then on.
fn synced(file: &Path) {
    fs::write(file, vec![7; 2048]).and_then(|()| fs::File::open(file)?.sync_all()).expect("a file");
}

fn a_removed_sector_is_cleaned_up(yard: &Yard) {
    let shelf = yard.home().join("shelf");
    synced(&shelf.join("sealed/s-t01000-7"));
    let line = refused(sealyard(yard.home()).args(["sectors", "remove", "1"]), 2);
    assert!(line.contains("--really-do-it"), "{line}");
    let before = yard.say(&["storage", "cleanup"]);
    assert!(!before.contains("s-t01000-1 "), "{before}");
    let removed = yard.json(&["sectors", "remove", "--really-do-it", "1"]);
    assert_eq!(removed, serde_json::json!({"sector": 1, "state": "Removed"}));
    assert_eq!(yard.json(&["sectors", "status", "1"])["state"], removed["state"]);
    assert_eq!(yard.json(&["sectors", "list"]), serde_json::json!([]));
    let survey = yard.say(&["storage", "cleanup"]);
    for words in ["sealed/s-t01000-1 (removed sector", "sector 1 was removed", "s-t01000-7 (foreign"] {
        assert!(survey.contains(words), "{words:?} is missing:\n{survey}");
    }
    for unlooked in ["s-t01000-7 (foreign, 0 B", "cache/s-t01000-1 (removed sector, 0 B"] {
        assert!(!survey.contains(unlooked), "with its size:\n{survey}");
    }
    assert!(shelf.join("sealed/s-t01000-1").exists(), "only shown so far");
    let cleaned = yard.json(&["storage", "cleanup", "--really-do-it"]);
    let gone = cleaned["cleaned"].as_array().expect("a list").iter().filter(|it| it["kept"].is_null());
    let freed: Vec<_> = gone.map(|it| it["bytes"].as_u64().unwrap_or(0)).collect();
    assert!(freed.len() == 3 && freed.iter().sum::<u64>() > 0, "{cleaned:#}");
    for kind in ["unsealed", "sealed", "cache"] {
        assert!(!shelf.join(kind).join("s-t01000-1").exists(), "{kind}");
    }
    assert!(shelf.join("sealed/s-t01000-7").exists(), "nobody's file is nobody's to delete");
    assert_eq!(yard.json(&["storage", "find", "1"])["places"], serde_json::json!([]));
    let log = yard.json(&["sectors", "status", "1"])["log"].to_string();
    assert!(log.contains("was removed, says") && log.contains("its sector was removed"), "{log}");
    let line = refused(sealyard(yard.home()).args(["sectors", "unseal", "1"]), 14);
    assert!(line.contains("no sector 1"), "{line}");
}

fn listings_tell_it(yard: &Yard, seal: &str, store: &str) {
    let shelf = yard.id("shelf");
    let listed = yard.say(&["storage", "list"]);
    for words in [seal, store, &shelf, "Use: Seal", "Use: Store", "Sealed: 1", "Workers: store", "latency: "]
    {
        assert!(listed.contains(words), "{words:?} is missing:\n{listed}");
    }
    let sectors = yard.say(&["storage", "list", "sectors"]);
    let rows: Vec<&str> = sectors.lines().filter(|row| row.starts_with(&shelf)).collect();
    assert_eq!(rows.len(), 3, "{sectors}");
    assert!(rows.iter().all(|row| row.contains("primary") && row.contains("Proving")), "{sectors}");
    assert_eq!(yard.json(&["storage", "list", "sectors"]).as_array().map(Vec::len), Some(1));
    assert_eq!(yard.say(&["storage", "locks"]), "no locks\n");
    assert!(!yard.say(&["storage", "balance"]).is_empty());
}

#[test]
fn paths_of_a_worker_are_looked_after_from_afar() {
    let yard = Yard::new(&[], &[]);
    let (disks, store) = (yard.home().join("disks"), yard.id("disks"));
    let keep = fs::read_to_string(disks.join("sealyard.json")).expect("what is kept free");
    assert!(keep.contains("\"KeepFree\": 1048576"), "{keep}");
    synced(&disks.join("sealed/s-t01000-7"));
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
    let survey = yard.say(&["storage", "cleanup", "--worker", "store"]);
    assert!(
        survey.contains("s-t01000-7 (foreign, ") && !survey.contains("s-t01000-7 (foreign, 0 B"),
        "{survey}"
    );

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

#[test]
fn a_path_that_nobody_serves_any_more_is_forgotten_by_its_id() {
    let mut yard = Yard::new(&[], &[]);
    let store = yard.id("disks");
    let detach = ["storage", "detach", "--id", &store];
    let sure = [&detach[..], &["--really-do-it"]].concat();
    let line = refused(sealyard(yard.home()).args(&sure), 10);
    assert!(line.contains("is served by"), "{line}");
    kill(&mut yard.store);
    signal(yard.manager.id(), "-TERM");
    assert_eq!(yard.manager.end(), Some(0));
    yard.manager =
        Daemon::start("manager", sealyard(yard.home.path()).args(["run", "--listen", "127.0.0.1:0"]));
    yard.manager.expect("listening on");
    assert!(yard.say(&["storage", "list"]).contains(&store), "it is remembered");
    let line = refused(sealyard(yard.home()).args(detach), 2);
    assert!(line.contains("--really-do-it"), "{line}");
    assert_eq!(yard.say(&sure), format!("detached {store}\n"));
    assert!(!yard.say(&["storage", "list"]).contains(&store));
    let line = refused(sealyard(yard.home()).args(&sure), 10);
    assert!(line.contains("the manager knows no storage path"), "{line}");
}

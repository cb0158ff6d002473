//! A rehearsal of a cluster that seals 32 GiB sectors, with real processes: files of the true lengths, two workers, kills on
//! the way; and what keeps it apart from real sealing.

mod system;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use system::addresses::free_addresses;
use system::{Daemon, ask_until, executors, hold, ok, refused, run_within, sealyard, signal, text};

/// The whole rehearsal takes seconds; a loaded machine gets more.
const REHEARSAL_MAX: Duration = Duration::from_secs(300);

/// The manager's own worker takes nothing.
const NO_LOCAL_TASKS: &str = "[Storage]\nAllowAddPiece = false\nAllowPreCommit1 = false\nAllowPreCommit2 = false\n\
    AllowCommit = false\nAllowUnseal = false\n";

/// PreCommit1 takes 5 s here, and PreCommit2 15 s: paths tell how full they are every 10 s.
const PROFILE: &str = "[32GiB]\npc1 = \"10000s\"\npc2 = \"30000s\"\n";

const GIB: u64 = 1 << 30;
const MANAGER: usize = 0;
const NAMES: [&str; 2] = ["left", "right"];
/// Each worker's tasks.
const TASKS: [&[&str]; 2] = [&["--addpiece", "--precommit1"], &["--precommit2", "--commit"]];

/// A manager of rehearsals and two workers with a storage path each.
struct Yard {
    home: tempfile::TempDir,
    addresses: [String; 3],
    daemons: [Option<Daemon>; 3],
}

impl Yard {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let init = ["init", "--actor", "t01000", "--no-local-storage", "--sector-size", "32GiB"];
        let line = refused(sealyard(home.path()).args(init), 9);
        assert!(line.contains("need a chain"), "{line}");
        let said = ok(sealyard(home.path()).args(init).arg("--rehearsal"));
        assert!(said.contains("REHEARSAL"), "{said}");
        fs::write(home.path().join(".sealyard/config.toml"), NO_LOCAL_TASKS).expect("config.toml");
        fs::write(home.path().join("profile.toml"), PROFILE).expect("a profile");
        let mut yard = Self { home, addresses: free_addresses(), daemons: [None, None, None] };
        for which in 0..3 {
            yard.start(which);
        }
        for name in NAMES {
            let dir = yard.path(name);
            let mut command = sealyard(yard.home.path());
            ok(command.args(["storage", "attach", "--init", "--seal", "--store", "--worker", name]).arg(dir));
        }
        yard
    }

    fn start(&mut self, which: usize) {
        let mut command = sealyard(self.home.path());
        let mut daemon = match which.checked_sub(1) {
            None => Daemon::start("manager", command.args(["run", "--listen", &self.addresses[MANAGER]])),
            Some(worker) => {
                let name = NAMES[worker];
                command.args(["worker", "run", "--name", name, "--worker-repo", name, "--no-local-storage"]);
                command.args(["--executor", "all=rehearsal", "--rehearsal-speed", "2000"]);
                command.args(["--rehearsal-profile", "profile.toml"]);
                command.args(["--rehearsal-machine", "memory=256GiB,cpus=32,gpus=1,disk=2TiB"]);
                command.args(["--address", &self.addresses[which]]).args(TASKS[worker]);
                Daemon::start(name, &mut command)
            }
        };
        daemon.expect(if which == MANAGER { "REHEARSAL" } else { "registered" });
        self.daemons[which] = Some(daemon);
    }

    fn kill(&mut self, which: usize) {
        let mut daemon = self.daemons[which].take().expect("it runs");
        ok(Command::new("kill").args(["-9", &daemon.id().to_string()]));
        daemon.end();
    }

    fn json(&self, args: &[&str]) -> Value {
        let text = ok(sealyard(self.home.path()).args(args).arg("--json"));
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{args:?} printed no JSON ({error}): {text}"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(format!("{name}-path"))
    }

    /// What `storage list` says that the files of a worker's path take.
    fn taken(&self, name: &str) -> u64 {
        let paths = self.json(&["storage", "list"]);
        let path = paths.as_array().expect("paths").iter().find(|path| path["workers"][0] == name);
        let figure = |key: &str| path.expect("its path")[key].as_u64().expect("bytes");
        figure("capacity") - figure("fs_available")
    }

    fn hold(&self, task: &str) -> u32 {
        hold(self.home.path(), task, REHEARSAL_MAX)
    }
}

#[test]
fn a_32_gib_sector_is_rehearsed_over_two_workers_killed_on_the_way() {
    let mut yard = Yard::new();
    ok(sealyard(yard.home.path()).args(["sectors", "pledge"]));

    let executor = yard.hold("pc1");
    yard.kill(MANAGER);
    yard.start(MANAGER);
    assert_eq!(executors(yard.home.path(), "pc1"), [executor]);
    yard.kill(1);
    yard.start(1);
    assert_eq!(executors(yard.home.path(), "pc1"), [executor]);
    signal(executor, "-CONT");

    // While PreCommit2 is at work the replica and its whole cache lie at the right worker.
    let executor = yard.hold("pc2");
    let cache = 13 * 32 * GIB;
    ask_until("a whole cache", REHEARSAL_MAX, || yard.taken("right"), |taken| *taken >= cache);
    yard.kill(2);
    yard.start(2);
    signal(executor, "-CONT");
    let jobs = yard.json(&["sealing", "jobs", "--all"]);
    assert!(jobs.as_array().expect("jobs").iter().all(|job| job["rehearsal"] == true), "{jobs:#}");

    let sector = || yard.json(&["sectors", "status", "1"]);
    let done = ask_until("its end", REHEARSAL_MAX, sector, |sector| sector["state"] == "Proving");
    assert_eq!((&done["rehearsal"], &done["chain"]), (&true.into(), &"REHEARSAL".into()), "{done:#}");
    assert_eq!(done["verified"], Value::Null, "nobody says that its proof is valid");
    for args in [
        &["sectors", "list"][..],
        &["sectors", "status", "1"],
        &["storage", "find", "1"],
        &["storage", "list"],
        &["sealing", "jobs", "--all"],
        &["sealing", "why", "1"],
        &["workers", "list"],
        &["worker", "list"],
        &["info"],
    ] {
        let said = ok(sealyard(yard.home.path()).args(args));
        assert!(said.contains("REHEARSAL"), "{args:?}: {said}");
    }

    let found = yard.json(&["storage", "find", "1"]);
    assert_eq!(found["rehearsal"], true);
    let holder = NAMES.into_iter().find(|name| yard.path(name).join("sealed/s-t01000-1").exists());
    let holder = holder.expect("one has the replica");
    let files = listing(&yard.path(holder).join("cache/s-t01000-1"));
    let sealed = fs::metadata(yard.path(holder).join("sealed/s-t01000-1")).expect("the replica");
    assert_eq!(sealed.len(), 32 * GIB);
    assert_eq!(files.len(), 10, "{files:?}");
    assert_eq!(files["sc-02-data-tree-r-last-0.dat"], 9_586_976);
    let bytes = files.values().sum::<u64>() + 32 * GIB;
    let taken = ask_until("its room", REHEARSAL_MAX, || yard.taken(holder), |taken| *taken < bytes + GIB / 4);
    assert!(taken >= bytes, "{taken} bytes for files of {bytes}");
    for name in NAMES.into_iter().filter(|name| *name != holder) {
        ask_until("nothing left there", REHEARSAL_MAX, || yard.taken(name), |taken| *taken < GIB);
    }
    assert!(blocks(yard.home.path()) < 256 << 20, "empty files take no room");
    assert!(executors(yard.home.path(), "exec").is_empty(), "no executor is left");
}

#[test]
fn rehearsals_and_real_work_never_meet() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    ok(sealyard(home).args(["init", "--actor", "t01000", "--no-local-storage"]));
    fs::write(home.join(".sealyard/config.toml"), NO_LOCAL_TASKS).expect("config.toml");
    let mut manager = Daemon::start("manager", sealyard(home).args(["run", "--listen", "127.0.0.1:0"]));
    manager.expect("listening on");
    let worker = ["worker", "run", "--worker-repo", "w", "--address", "127.0.0.1:0"];
    let line = refused(sealyard(home).args(worker).args(["--executor", "pc1=rehearsal"]), 9);
    assert!(line.contains("real sectors") && line.contains("init --rehearsal"), "{line}");
    assert!(!home.join("w").exists(), "nothing was written");
    let line = refused(sealyard(home).args(worker).args(["--rehearsal-speed", "9"]), 2);
    assert!(line.contains("for rehearsals"), "{line}");
    drop(manager);

    let other = home.join("played");
    fs::create_dir(&other).expect("a directory");
    ok(sealyard(&other).args(["init", "--actor", "t01000", "--no-local-storage", "--rehearsal"]));
    let mut manager = Daemon::start("manager", sealyard(&other).args(["run", "--listen", "127.0.0.1:0"]));
    manager.expect("REHEARSAL");
    let line = run_within(sealyard(&other).args(worker), REHEARSAL_MAX);
    assert!(!line.status.success());
    let line = text(&line.stderr);
    assert!(line.contains("MGR016") && line.contains("all=rehearsal"), "{line}");
}

/// What the real executors and those of a rehearsal leave in a cache, by task.
#[test]
fn the_files_of_a_rehearsal_are_as_long_as_real_ones() {
    for (size, proof) in [(2_u64 << 10, 5), (8 << 20, 6)] {
        let dirs = [tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory")];
        let played: [&[&str]; 2] = [&[], &["--rehearsal-speed", "1000000"]];
        let mut outputs = [json!(null), json!(null)];
        let unpadded = size / 128 * 127;
        let ticket = "11".repeat(32);
        for task in ["AP", "PC1", "PC2", "FIN"] {
            for which in 0..2 {
                let input = match task {
                    "AP" => json!({ "existing": [], "size": unpadded, "source": "zeros" }),
                    "PC1" => json!({ "ticket": ticket, "pieces": [outputs[which]] }),
                    "PC2" => json!({ "pc1": outputs[which] }),
                    _ => json!({}),
                };
                outputs[which] = perform(dirs[which].path(), task, &input, proof, played[which]);
            }
            let [real, rehearsed] = [0, 1].map(|which: usize| lengths(dirs[which].path()));
            assert_eq!(real, rehearsed, "{task} of {size} bytes");
        }
    }
}

/// Runs one executor in `dir` and gives its output.
fn perform(dir: &Path, task: &str, input: &Value, proof: u64, played: &[&str]) -> Value {
    let named = |kind: &str| dir.join(kind).to_string_lossy().into_owned();
    let request = json!({
        "version": 1,
        "sector": { "id": { "miner": 1000, "number": 1 }, "proof": proof },
        "work": { "task": task, "input": input },
        "files": { "unsealed": named("unsealed"), "sealed": named("sealed"), "cache": named("cache") },
    });
    let (asked, report) = (dir.join("request.json"), dir.join("report.json"));
    fs::write(&asked, request.to_string()).expect("a request");
    let mut command = sealyard(dir);
    command.arg("exec").args(played).arg(task.to_lowercase()).arg("--input").arg(&asked);
    ok(command.arg("--output").arg(&report));
    let report: Value = serde_json::from_slice(&fs::read(&report).expect("a report")).expect("JSON");
    report["done"]["output"].clone()
}

/// Names and lengths of a sector's files. That of `t_aux` depends on where it lies.
fn lengths(dir: &Path) -> BTreeMap<String, u64> {
    let mut files = BTreeMap::new();
    for kind in ["unsealed", "sealed"] {
        files.extend(fs::metadata(dir.join(kind)).map(|found| (kind.to_owned(), found.len())));
    }
    if dir.join("cache").exists() {
        files.extend(listing(&dir.join("cache")).into_iter().filter(|(name, _)| name != "t_aux"));
    }
    files
}

fn listing(dir: &Path) -> BTreeMap<String, u64> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry"));
    let named = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().expect("a name");
        (name, entry.metadata().expect("a file").len())
    };
    entries.map(named).collect()
}

/// Bytes on disk below `dir`.
fn blocks(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => blocks(&entry.path()),
        Ok(found) => found.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

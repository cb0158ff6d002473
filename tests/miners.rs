//! Two miners in one cluster: their sectors with one number are sealed by one worker, with real proofs up to PreCommit2, come back
//! from lost, lie in the paths that admit their miner, are found and moved by their names, and when the one's files are
//! deleted and made again, the other's are as they were.

mod system;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use system::{COMMAND_MAX, Daemon, ask_until, json as answer, ok, refused, run_within, sealyard, snapshot};

/// Two 2 KiB sectors up to PreCommit2 take seconds; a loaded machine gets more.
const SEALING_MAX: Duration = Duration::from_secs(600);
/// The manager's own worker takes nothing, so that the other does.
const NO_LOCAL_TASKS: &str = "[Storage]\nAllowAddPiece = false\nAllowPreCommit1 = false\nAllowPreCommit2 = false\n\
    AllowCommit = false\nAllowUnseal = false\n";
const MINERS: [&str; 2] = ["f01000", "f02000"];

/// A manager of both miners with one worker. Dropped, all of it ends.
struct Cluster {
    home: PathBuf,
    repo: &'static str,
    _manager: Daemon,
    _worker: Daemon,
}

impl Cluster {
    /// Its worker stores in one path for `f02000` alone, and in one for all the others.
    fn start(home: &Path, repo: &'static str) -> Self {
        let init = ["init", "--actor", MINERS[0], "--sector-size", "2KiB", "--no-local-storage"];
        let own = |words: &[&str]| {
            let mut command = sealyard(home);
            command.args(["--repo", repo]).args(words);
            command
        };
        ok(&mut own(&init));
        fs::write(home.join(repo).join("config.toml"), NO_LOCAL_TASKS).expect("config.toml");
        let added = ok(&mut own(&["miners", "add", MINERS[1]]));
        assert!(added.contains("f02000 is served"), "{added}");
        let again = refused(&mut own(&["miners", "add", MINERS[1]]), 9);
        assert!(again.contains("MGR181"), "{again}");
        let mut manager = Daemon::start(repo, &mut own(&["run", "--listen", "127.0.0.1:0"]));
        manager.expect("listening on");
        let meanwhile = refused(&mut own(&["miners", "add", "f03000"]), 3);
        assert!(meanwhile.contains("in use by process"), "{meanwhile}");

        let worker_repo = format!("{repo}-W");
        let run = ["worker", "run", "--name", "W", "--address", "127.0.0.1:0", "--worker-repo", &worker_repo];
        let tasks = ["--addpiece", "--precommit1", "--precommit2"];
        let mut worker = Daemon::start("W", own(&run).args(tasks));
        worker.expect("registered");
        let this = Self { home: home.to_owned(), repo, _manager: manager, _worker: worker };
        for (name, filter, id) in [("for-one", "DenyMiners", 1), ("for-two", "AllowMiners", 2)] {
            let dir = this.path(name);
            fs::create_dir(&dir).expect("a directory");
            let meta = json!({
                "ID": format!("6a3f8c1e-0000-4000-8000-00000000000{id}"), "Weight": 10, "CanSeal": false,
                "CanStore": true, filter: [MINERS[1]],
            });
            fs::write(dir.join("sectorstore.json"), meta.to_string()).expect("a path");
            let dir = dir.to_string_lossy().into_owned();
            ok(&mut this.command(&["storage", "attach", "--worker-repo", &worker_repo, &dir]));
        }
        this
    }

    fn command(&self, words: &[&str]) -> std::process::Command {
        let mut command = sealyard(&self.home);
        command.args(["--repo", self.repo]).args(words);
        command
    }

    fn answer(&self, words: &[&str]) -> Value {
        let all: Vec<&str> = ["--repo", self.repo].into_iter().chain(words.iter().copied()).collect();
        answer(&self.home, &all)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.join(format!("{}-{name}", self.repo))
    }

    /// The files of a miner's sector in a path, by its number among the miners.
    fn files(&self, path: &str, miner: u64) -> [PathBuf; 2] {
        let dir = self.path(path);
        [dir.join(format!("sealed/s-t0{miner}-1")), dir.join(format!("cache/s-t0{miner}-1"))]
    }

    fn status(&self, name: &str) -> Value {
        self.answer(&["sectors", "status", name])
    }

    /// Where its sealed file is known to be.
    fn found(&self, name: &str) -> Vec<String> {
        let found = self.answer(&["storage", "find", name]);
        let places = found["places"].as_array().expect("places").iter();
        let sealed = places.filter(|place| place["types"].to_string().contains("sealed"));
        sealed.map(|place| place["path"].as_str().expect("an id").to_owned()).collect()
    }
}

/// Seals sector 1 of each and another one of the first, and writes for each miner the file of lost sectors. Gives the CommR of both sectors 1.
fn seal_both(home: &Path) -> Vec<String> {
    let cluster = Cluster::start(home, "first");
    for (miner, number) in [(MINERS[0], 1), (MINERS[1], 1), (MINERS[0], 2)] {
        let pledged = cluster.answer(&["sectors", "pledge", "--miner", miner]);
        assert_eq!(pledged[0]["number"], number, "each miner counts its own: {pledged}");
    }
    let stranger = refused(&mut cluster.command(&["sectors", "pledge", "--miner", "f03000"]), 1);
    assert!(stranger.contains("MGR051"), "{stranger}");
    let mut sealed = Vec::new();
    for (miner, numbers) in [(MINERS[0], &[1, 2][..]), (MINERS[1], &[1])] {
        let mut entries = Vec::new();
        for number in numbers {
            // Nobody here takes Commit2; whether Commit1 is done already is of no matter.
            let done = |status: &Value| status["comm_r"].is_string() && status["state"] == "Committing";
            let name = format!("{miner}/{number}");
            let status = ask_until("a replica", SEALING_MAX, || cluster.status(&name), done);
            let tasks = status["tasks"].as_array().expect("tasks");
            let done = tasks.iter().filter(|task| task["state"] == "done");
            assert!(done.clone().all(|task| task["worker"] == "W") && done.count() >= 3, "{status:#}");
            let ticket = hex::decode(status["ticket"].as_str().expect("a ticket")).expect("hex");
            entries.push(json!({
                "SectorNumber": number, "SealProof": status["proof_type"], "SealedCID": {"/": status["comm_r"]},
                "Ticket": base64::engine::general_purpose::STANDARD.encode(ticket),
            }));
        }
        sealed.push(entries[0]["SealedCID"]["/"].as_str().expect("CommR").to_owned());
        let file = json!({"Miner": miner, "SectorSize": 2048, "SectorInfos": entries});
        fs::write(home.join(format!("{miner}.json")), file.to_string()).expect("the file");
    }
    assert_ne!(sealed[0], sealed[1], "a replica is its miner's");
    let unclear = refused(&mut cluster.command(&["sectors", "status", "1"]), 1);
    assert!(unclear.contains("MGR180") && unclear.contains("f01000/1 and f02000/1"), "{unclear}");
    let listed = ok(&mut cluster.command(&["sectors", "list"]));
    assert!(MINERS.iter().all(|miner| listed.contains(&format!("{miner}/1"))), "{listed}");
    let why = ok(&mut cluster.command(&["sealing", "why", "f02000/1"]));
    assert!(why.contains("Sector f02000/1"), "{why}");
    sealed
}

#[test]
fn two_miners_sectors_with_one_number_live_side_by_side() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    let sealed = seal_both(home);
    only_a_miner_without_sectors_is_removed(home);

    // Both come back in another cluster, each in the path that admits its miner.
    let cluster = Cluster::start(home, "second");
    for (miner, count) in MINERS.into_iter().zip([2, 1]) {
        let file = format!("{miner}.json");
        let told = ok(&mut cluster.command(&["repair", "run", "--manager", "--metadata", &file]));
        assert!(told.contains(&format!("{count} of {count} sectors are back")), "{told}");
    }
    let ids: Vec<String> = (1..=2).map(|id| format!("6a3f8c1e-0000-4000-8000-00000000000{id}")).collect();
    for (number, miner) in MINERS.iter().enumerate() {
        let name = format!("{miner}/1");
        let status = cluster.status(&name);
        assert_eq!(
            (&status["state"], &status["comm_r"]),
            (&json!("Proving"), &json!(sealed[number])),
            "{name}"
        );
        assert_eq!(cluster.found(&name), [ids[number].clone()], "{name} lies in the path for it");
    }
    let checked = cluster.answer(&["proving", "check"]);
    assert_eq!((&checked["checked"], &checked["bad"]), (&json!(3), &json!(0)), "{checked:#}");

    // A path that does not admit the miner gets nothing; one that admits all gets what is named.
    let refused_there = refused(&mut cluster.command(&["storage", "move", "f01000/1", &ids[1]]), 10);
    assert!(refused_there.contains("f01000") || refused_there.contains("t01000"), "{refused_there}");
    let anyone = cluster.path("anyone").to_string_lossy().into_owned();
    let attach = ["storage", "attach", "--init", "--store", "--worker-repo", "second-W", &anyone, "--json"];
    let attached = ok(&mut cluster.command(&attach));
    let attached: Value = serde_json::from_str(&attached).expect("JSON");
    let id = attached["id"].as_str().expect("its id").to_owned();
    let others = cluster.files("for-one", 1000).map(|file| contents(&file));
    let replica = contents(&cluster.files("for-two", 2000)[0]);
    ok(&mut cluster.command(&["storage", "move", "f02000/1", &id]));
    assert_eq!((cluster.found("f02000/1"), cluster.found("f01000/1")), (vec![id], vec![ids[0].clone()]));

    // Deleted, it is told by its name, and made again. The other's files are never touched.
    let [replica_file, cache] = cluster.files("anyone", 2000);
    fs::remove_file(&replica_file).expect("the replica is deleted");
    fs::remove_dir_all(cache).expect("its cache, too");
    ok(&mut cluster.command(&["storage", "redeclare", "--all", "--drop-missing", "--worker", "W"]));
    let checked = refused(&mut cluster.command(&["proving", "check"]), 13);
    assert!(checked.contains("1 sectors cannot be proven"), "{checked}");
    let only = ok(&mut cluster.command(&["proving", "check", "f01000/1"]));
    assert!(only.contains("sector f01000/1: good"), "{only}");
    let told = ok(&mut cluster.command(&["sectors", "rebuild", "f02000", "1"]));
    assert!(told.contains("1 of 1 sectors are back"), "{told}");
    let [back] = &cluster.found("f02000/1")[..] else { panic!("it is in one place") };
    let back = if *back == ids[1] { "for-two" } else { "anyone" };
    assert!(contents(&cluster.files(back, 2000)[0]) == replica, "byte for byte");
    assert!(cluster.files("for-one", 1000).map(|file| contents(&file)) == others, "as they were");
    let checked = cluster.answer(&["proving", "check"]);
    assert_eq!((&checked["checked"], &checked["bad"]), (&json!(3), &json!(0)), "{checked:#}");
    a_number_means_what_it_meant_at_the_start(&cluster);
}

/// In the repo of a manager that does not run any more.
fn only_a_miner_without_sectors_is_removed(home: &Path) {
    let miners = |words: &[&str]| {
        let mut command = sealyard(home);
        command.args(["--repo", "first", "miners"]).args(words);
        command
    };
    let told = refused(&mut miners(&["remove", MINERS[1]]), 9);
    assert!(told.contains("MGR205") && told.contains("1 sectors of it"), "{told}");
    let told = refused(&mut miners(&["remove", MINERS[0]]), 9);
    assert!(told.contains("MGR205") && told.contains("was not added"), "{told}");
    ok(&mut miners(&["add", "f03000"]));
    let payers = format!("{NO_LOCAL_TASKS}[chain]\npre_commit_from = [\"f03001\"]\n");
    fs::write(home.join("first/config.toml"), payers).expect("config.toml");
    let told = run_within(&mut miners(&["remove", "f03000", "--json"]), COMMAND_MAX);
    let aloud = String::from_utf8_lossy(&told.stderr);
    assert!(told.status.success(), "{aloud}");
    assert!(aloud.contains("name f03001: if some are f03000's alone, take them out"), "{aloud}");
    let told: Value = serde_json::from_slice(&told.stdout).expect("JSON");
    assert_eq!(told["miners"], json!(MINERS));
    let told = refused(&mut miners(&["remove", "f03000"]), 9);
    assert!(told.contains("MGR205"), "{told}");
}

/// Sector 2, by its number alone, while the other miner gets one with this number.
fn a_number_means_what_it_meant_at_the_start(cluster: &Cluster) {
    let dir = cluster.path("for-one");
    fs::remove_file(dir.join("sealed/s-t01000-2")).expect("the replica is deleted");
    fs::remove_dir_all(dir.join("cache/s-t01000-2")).expect("its cache, too");
    ok(&mut cluster.command(&["storage", "redeclare", "--all", "--drop-missing", "--worker", "W"]));
    ok(&mut cluster.command(&["workers", "disable", "W"]));
    // Named twice it is one.
    let mut rebuild =
        Daemon::start("rebuild", &mut cluster.command(&["sectors", "rebuild", "2", "f01000/2"]));
    let begun = |status: &Value| status["state"] != "Proving";
    ask_until("its beginning", SEALING_MAX, || cluster.status("2"), begun);
    let pledged = cluster.answer(&["sectors", "pledge", "--miner", MINERS[1]]);
    assert_eq!(pledged[0]["number"], 2, "{pledged}");
    let unclear = refused(&mut cluster.command(&["sectors", "status", "2"]), 1);
    assert!(unclear.contains("f01000/2 and f02000/2"), "{unclear}");
    ok(&mut cluster.command(&["workers", "enable", "W"]));
    let code = rebuild.end();
    let said = rebuild.said();
    assert!(code == Some(0) && said.contains("sector f01000/2 is back"), "{code:?}: {said}");
    assert!(said.contains("1 of 1 sectors are back"), "{said}");
    let only = ok(&mut cluster.command(&["proving", "check", "f01000/2"]));
    assert!(only.contains("sector f01000/2: good"), "{only}");
}

/// Of a file, or of all in a directory.
fn contents(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    if path.is_dir() { snapshot(path) } else { vec![(PathBuf::new(), fs::read(path).expect("it is there"))] }
}

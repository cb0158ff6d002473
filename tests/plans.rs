//! Plans of workers and of their sealing threads, with real processes and real proofs: lost sectors are sealed again on one
//! worker and new ones sealed on another; a `config.toml` in the thread's directory changes that before the next sector.

mod system;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use system::{COMMAND_MAX, Daemon, ask_until, json as answer, ok, refused, run_within, sealyard, text};

/// A 2 KiB sector takes seconds; a loaded machine gets more.
const SEALING_MAX: Duration = Duration::from_secs(600);
/// The manager's own worker takes nothing, so that the two others do.
const NO_LOCAL_TASKS: &str = "[Storage]\nAllowAddPiece = false\nAllowPreCommit1 = false\nAllowPreCommit2 = false\n\
    AllowCommit = false\nAllowUnseal = false\n";

/// Seals two sectors by another manager, and says what they were sealed from and to.
fn sealed_elsewhere(home: &Path) -> [Value; 2] {
    ok(sealyard(home).args(["--repo", "first", "init", "--actor", "t01000", "--sector-size", "2KiB"]));
    let run = ["--repo", "first", "run", "--listen", "127.0.0.1:0"];
    let mut manager = Daemon::start("first", sealyard(home).args(run));
    manager.expect("listening on");
    ok(sealyard(home).args(["--repo", "first", "sectors", "pledge", "--count", "2", "--until", "c1"]));
    [1, 2].map(|number| {
        let ask = || answer(home, &["--repo", "first", "sectors", "status", &number.to_string()]);
        let status = ask_until("a replica", SEALING_MAX, ask, |status| status["stopped"] == true);
        let ticket = hex::decode(status["ticket"].as_str().expect("a ticket")).expect("hex");
        let ticket = base64::engine::general_purpose::STANDARD.encode(ticket);
        json!({
            "SectorNumber": number, "SealProof": status["proof_type"], "Ticket": ticket,
            "SealedCID": {"/": status["comm_r"]},
        })
    })
}

/// A manager, worker `new` for new sectors, and worker `again` for lost ones, with a sealing thread that says no plan.
struct Yard {
    home: PathBuf,
    _running: Vec<Daemon>,
}

impl Yard {
    fn new(home: &Path) -> Self {
        ok(sealyard(home).args(["init", "--actor", "t01000", "--sector-size", "2KiB", "--no-local-storage"]));
        fs::write(home.join(".sealyard/config.toml"), NO_LOCAL_TASKS).expect("config.toml");
        fs::create_dir(home.join("again")).expect("a repo");
        let thread = format!("[[sealing_thread]]\nlocation = \"{}\"\n", home.join("nvme").display());
        fs::write(home.join("again/config.toml"), thread).expect("config.toml");
        let mut manager = Daemon::start("manager", sealyard(home).args(["run", "--listen", "127.0.0.1:0"]));
        manager.expect("listening on");
        let mut running = vec![manager];
        for (name, plan) in [("new", "sealer"), ("again", "rebuild")] {
            let words = ["worker", "run", "--name", name, "--plan", plan, "--address", "127.0.0.1:0"];
            let tasks = ["--addpiece", "--precommit1", "--precommit2", "--worker-repo", name];
            let mut worker = Daemon::start(name, sealyard(home).args(words).args(tasks));
            worker.expect("registered");
            running.push(worker);
        }
        Self { home: home.to_owned(), _running: running }
    }

    fn run(&self, words: &[&str]) -> String {
        ok(sealyard(&self.home).args(words))
    }

    /// Waits until the sealing thread of `again` is like that.
    fn thread(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let ask = || {
            let listed = answer(&self.home, &["worker", "list"]);
            let all = listed.as_array().expect("workers");
            let again = all.iter().find(|worker| worker["name"] == "again").expect("it is listed");
            again["threads"][0].clone()
        };
        ask_until(what, COMMAND_MAX, ask, is)
    }

    fn hot(&self) -> PathBuf {
        self.home.join("nvme/config.toml")
    }

    fn status(&self, number: u64) -> Value {
        answer(&self.home, &["sectors", "status", &number.to_string()])
    }

    /// The workers that sealed a sector.
    fn sealers(&self, number: u64) -> Vec<String> {
        let status = self.status(number);
        let tasks = status["tasks"].as_array().expect("tasks").iter();
        let of = |task: &Value| {
            task["task"].as_str().is_some_and(|task| task.contains("precommit") || task.contains("addpiece"))
        };
        let mut workers: Vec<_> = tasks
            .filter(|task| of(task))
            .map(|task| task["worker"].as_str().unwrap_or("-").to_owned())
            .collect();
        workers.sort();
        workers.dedup();
        workers
    }

    fn pledge(&self) {
        self.run(&["sectors", "pledge", "--until", "c1"]);
    }

    fn sealed(&self, number: u64) {
        ask_until("a replica", SEALING_MAX, || self.status(number), |status| status["stopped"] == true);
    }

    fn repair(&self, entry: &Value) {
        let file = json!({"Miner": "f01000", "SectorSize": 2048, "SectorInfos": [entry]});
        fs::write(self.home.join("lost.json"), file.to_string()).expect("the file");
        let repair = ["repair", "run", "--manager", "--metadata", "lost.json"];
        let told = run_within(sealyard(&self.home).args(repair), SEALING_MAX);
        assert!(text(&told.stdout).contains("1 of 1 sectors are back"), "{}", text(&told.stderr));
    }
}

/// While nobody takes it, it is under way; and it is through when somebody has.
fn a_lost_sector_is_listed_while_it_is_under_way(yard: &Yard) {
    fs::remove_file(yard.home.join("store/sealed/s-t01000-2")).expect("its replica is deleted");
    fs::remove_dir_all(yard.home.join("store/cache/s-t01000-2")).expect("its cache, too");
    yard.run(&["storage", "redeclare", "--all", "--worker", "again", "--drop-missing"]);
    let listed = |words: &[&str]| {
        let listed = answer(&yard.home, words);
        let all = listed.as_array().expect("sectors").iter();
        all.map(|sector| sector["sector"]["number"].as_u64().expect("a number")).collect::<Vec<_>>()
    };
    let under_way = || listed(&["sectors", "list", "--rebuild", "--sealing=false"]);
    assert_eq!(under_way(), Vec::<u64>::new(), "all that were lost are back");
    let rebuild = ["sectors", "rebuild", "f01000", "2"];
    let mut rebuild = Daemon::start("rebuild", sealyard(&yard.home).args(rebuild));
    ask_until("a rebuild", COMMAND_MAX, under_way, |numbers| !numbers.is_empty());
    assert_eq!(under_way(), [2]);
    assert_eq!(listed(&["util", "sealer", "sectors", "list", "--rebuild", "--sealing=false"]), [2]);
    assert_eq!(listed(&["sectors", "list", "--rebuild", "--sealing=false", "--offline"]), [1]);
    let state = yard.run(&["sectors", "state", "f01000", "2"]);
    assert!(state.contains("Rebuild:") && !state.contains("Rebuild:\n    done"), "{state}");
    let told = refused(sealyard(&yard.home).args(["sectors", "state", "f01000", "2", "--offline"]), 14);
    assert!(told.contains("sector 2 is under way"), "{told}");
    fs::remove_file(yard.hot()).expect("it is there");
    assert_eq!(rebuild.end(), Some(0), "{}", rebuild.said());
    assert_eq!(under_way(), Vec::<u64>::new());
    assert_eq!(listed(&["sectors", "list", "--rebuild", "--sealing=false", "--offline"]), [1, 2]);
    only_one_path_is_checked(yard);
}

fn only_one_path_is_checked(yard: &Yard) {
    let check = |words: &[&str], code: i32| {
        let output = run_within(
            sealyard(&yard.home).args(["proving", "check", "--storage-id"]).args(words),
            COMMAND_MAX,
        );
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let meta = fs::read(yard.home.join("store/sectorstore.json")).expect("a path");
    let meta: Value = serde_json::from_slice(&meta).expect("JSON");
    let store = meta["ID"].as_str().expect("an id");
    assert_eq!(check(&[store], 0), "sector 1: good\nsector 2: good\n2 sectors checked: 2 good\n");
    let said = check(&[store, "2", "99"], 14);
    assert_eq!(said, "sector 2: good\n2 sectors checked: 1 good, 1 unknown\n");
    assert_eq!(check(&["another"], 14), "", "there is no such path");
}

/// By their host's name, for example: each is one of its own, and a name that both have is refused.
fn two_workers_of_one_name_are_two(yard: &Yard) {
    let words = ["worker", "run", "--name", "again", "--address", "127.0.0.1:0", "--worker-repo", "twin"];
    let mut twin = Daemon::start("twin", sealyard(&yard.home).args(words).arg("--precommit1"));
    twin.expect("registered");
    let both = || {
        let all = answer(&yard.home, &["worker", "list"]);
        all.as_array().expect("workers").iter().filter(|one| one["name"] == "again").cloned().collect()
    };
    let both = ask_until("the twin's path", COMMAND_MAX, both, |both: &Vec<Value>| {
        both.len() == 2
            && both.iter().all(|one| one["locations"].as_array().is_some_and(|all| !all.is_empty()))
    });
    let [one, other] = &both[..] else { panic!("{both:#?}") };
    let places = |one: &Value| one["locations"].as_array().cloned().expect("locations");
    assert!(!places(one).iter().any(|place| places(other).contains(place)), "{both:#?}");
    let told = refused(sealyard(&yard.home).args(["worker", "info", "again"]), 1);
    for one in &both {
        let session = one["session"].as_str().expect("a session");
        assert!(told.contains(session), "{told}");
        assert_eq!(answer(&yard.home, &["worker", "info", session])["now"]["session"], session);
    }
}

#[test]
fn new_and_lost_sectors_go_where_the_plans_say() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path().canonicalize().expect("a path without links");
    let [first, second] = sealed_elsewhere(&home);
    let yard = Yard::new(&home);
    let closed = yard.thread("a closed thread", |thread| thread["state"] == "closed");
    assert!(
        closed["last_error"].as_str().is_some_and(|error| error.contains("nvme is not there")),
        "{closed:#}"
    );
    for (use_, path) in [("--seal", "nvme"), ("--store", "store")] {
        yard.run(&["storage", "attach", "--init", use_, "--worker-repo", "again", path]);
    }
    let idle = yard.thread("an idle thread", |thread| thread["state"] == "idle");
    let expected = json!({
        "index": 1, "location": home.join("nvme"), "path": idle["path"], "plan": "rebuild", "pending": null,
        "sectors": [], "paused": false, "state": "idle", "last_error": "",
    });
    assert_eq!(idle, expected);

    // By its address, too, as `worker list` shows it.
    let by_name = answer(&home, &["worker", "info", "again"]);
    let url = by_name["worker"]["url"].as_str().expect("a URL");
    let address = url.trim_start_matches("http://").trim_end_matches("/rpc/v0");
    assert!(address.starts_with("127.0.0.1:"), "{url}");
    let by_address = answer(&home, &["worker", "info", address]);
    for told in ["name", "url", "session"] {
        assert_eq!(by_address["worker"][told], by_name["worker"][told], "{told}");
    }
    assert_eq!((&by_name["worker"]["name"], &by_name["now"]["name"]), (&json!("again"), &json!("again")));
    refused(sealyard(&home).args(["worker", "info", "127.0.0.1:1"]), 14);

    // The second one first: whatever is pledged afterwards gets a higher number.
    yard.repair(&second);
    assert_eq!(yard.sealers(2), ["again"]);
    yard.pledge();
    yard.sealed(3);
    assert_eq!(yard.sealers(3), ["new"]);

    // Nobody is left for a new sector, and everybody is told why.
    yard.run(&["worker", "pause", "new"]);
    yard.pledge();
    let why = |said: &String| said.contains("this worker's plan is rebuild, and this sector is a new one");
    let said = ask_until("the reason", COMMAND_MAX, || yard.run(&["sealing", "why", "4"]), why);
    assert!(said.contains("--plan sealer"), "{said}");

    // A file in the thread's directory changes its plan; the sector that waits is the next one.
    fs::write(yard.hot(), "plan = \"sealer\"\n").expect("the file");
    yard.sealed(4);
    assert_eq!(yard.sealers(4), ["again"]);
    let sealing = yard.thread("the sector", |thread| thread["state"] == "sealing");
    assert_eq!((&sealing["plan"], &sealing["pending"]), (&json!("sealer"), &Value::Null), "{sealing:#}");
    assert_eq!(sealing["sectors"], json!([{"miner": 1000, "number": 4}]));

    // Without it the next one is a lost one again; the one that is there began under the other plan.
    fs::remove_file(yard.hot()).expect("it is there");
    let pending = yard.thread("the worker's plan", |thread| thread["pending"] == "rebuild");
    assert_eq!(pending["plan"], "sealer", "{pending:#}");
    for told in [yard.run(&["worker", "list"]), yard.run(&["worker", "info", "again"])] {
        assert!(told.contains("plan sealer, then rebuild, sealing s-t01000-4"), "{told}");
    }

    // A file that is no good changes nothing, and is told.
    fs::write(yard.hot(), "plan = \"snapup\"\n").expect("the file");
    let broken = yard.thread("the error", |thread| thread["last_error"] != "");
    assert_eq!((&broken["plan"], &broken["pending"]), (&json!("sealer"), &json!("rebuild")), "{broken:#}");
    assert!(
        broken["last_error"]
            .as_str()
            .is_some_and(|error| error.contains("must be any, sealer, rebuild or none"))
    );
    yard.repair(&first);
    assert_eq!(yard.sealers(1), ["again"]);

    // A thread that takes nothing is paused.
    fs::write(yard.hot(), "plan = \"none\"\n").expect("the file");
    let paused = yard.thread("a pause", |thread| thread["paused"] == true);
    assert_eq!(paused["last_error"], "", "{paused:#}");
    a_lost_sector_is_listed_while_it_is_under_way(&yard);
    two_workers_of_one_name_are_two(&yard);
    let told = refused(sealyard(&home).args(["worker", "run", "--plan", "snapup"]), 2);
    assert!(told.contains("is no plan") || told.contains("--plan"), "{told}");
}

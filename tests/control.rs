//! An operator's control over scheduling, by its commands and with real processes: workers that get no more work, limits,
//! priorities, aborts. What is set holds at once and after a restart of the manager.

mod system;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use system::{Daemon, ask_until, executors, hold, ok, refused, sealyard};

/// An 8 MiB sector is at PreCommit1 within seconds; a loaded machine gets more.
const SEALING_MAX: Duration = Duration::from_secs(300);

/// The manager's own worker takes nothing.
const NO_LOCAL_TASKS: &str = "[Storage]\nAllowAddPiece = false\nAllowPreCommit1 = false\nAllowPreCommit2 = false\n\
    AllowCommit = false\nAllowUnseal = false\n";

/// A repo with this configuration.
fn init(home: &Path, size: &str, config: &str) {
    ok(sealyard(home).args(["init", "--actor", "t01000", "--sector-size", size, "--no-local-storage"]));
    std::fs::write(home.join(".sealyard/config.toml"), format!("{NO_LOCAL_TASKS}{config}"))
        .expect("config.toml");
}

fn run_manager(home: &Path, address: &str) -> Daemon {
    let mut manager = Daemon::start("manager", sealyard(home).args(["run", "--listen", address]));
    manager.expect("listening on");
    manager
}

fn run_worker(home: &Path, name: &str, args: &[&str], variables: &[(&str, &str)]) -> Daemon {
    let mut command = sealyard(home);
    command.args(["worker", "run", "--name", name, "--address", "127.0.0.1:0", "--worker-repo", name]);
    let mut worker = Daemon::start(name, command.args(args).envs(variables.iter().copied()));
    worker.expect("registered");
    worker
}

fn json(home: &Path, args: &[&str]) -> Value {
    let told = ok(sealyard(home).args(args).arg("--json"));
    serde_json::from_str(&told).unwrap_or_else(|error| panic!("{args:?} printed no JSON ({error}): {told}"))
}

/// The worker of this name as `workers list` has it.
fn listed(home: &Path, name: &str) -> Value {
    let workers = json(home, &["workers", "list"]);
    let found = workers.as_array().expect("a list").iter().find(|worker| worker["name"] == name).cloned();
    found.unwrap_or_else(|| panic!("no {name} in {workers:#}"))
}

/// The first job of this task, once it is in this state.
fn job(home: &Path, task: &str, state: &str) -> Value {
    let of = |jobs: &Value| {
        let jobs = jobs.as_array().expect("a list");
        jobs.iter().find(|job| job["task"] == task && job["state"] == state).cloned()
    };
    let asked = || json(home, &["sealing", "jobs", "--all"]);
    of(&ask_until(&format!("{task} {state}"), SEALING_MAX, asked, |jobs| of(jobs).is_some()))
        .expect("just seen")
}

fn named(job: &Value) -> String {
    format!("{}.{}", job["attempt"]["task"], job["attempt"]["attempt"])
}

#[test]
fn a_disabled_worker_stays_so_over_a_restart_and_a_drained_one_is_waited_for() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    init(home, "2KiB", "");
    let mut first = run_manager(home, "127.0.0.1:0");
    let line = first.expect("listening on");
    let address =
        line.split_whitespace().find_map(|word| word.strip_suffix(';')).expect("an address").to_owned();
    let _worker = run_worker(home, "A", &["--addpiece", "--precommit1"], &[]);

    let line = refused(sealyard(home).args(["workers", "cordon", "nobody"]), 1);
    assert!(line.contains("no worker \"nobody\"") && line.contains("A"), "{line}");
    let said = ok(sealyard(home).args(["workers", "cordon", "A"]));
    assert!(
        said.contains("A is cordoned: it takes no new sectors") && said.contains("nothing is left"),
        "{said}"
    );
    assert_eq!(json(home, &["workers", "disable", "A"])["mode"], "disabled");
    ok(sealyard(home).args(["sectors", "pledge"]));
    assert!(ok(sealyard(home).args(["workers", "list"])).contains("disabled by "));

    ok(Command::new("kill").args(["-9", &first.id().to_string()]));
    assert_eq!(first.end(), None, "it was killed");
    let _second = run_manager(home, &address);
    let back = || json(home, &["workers", "list"]);
    let is_back = |workers: &Value| {
        workers.as_array().is_some_and(|all| all.iter().any(|worker| worker["name"] == "A"))
    };
    ask_until("the worker's return", SEALING_MAX, back, is_back);
    assert_eq!(listed(home, "A")["mode"], "disabled");
    assert_eq!(job(home, "seal/v0/addpiece", "queued")["worker"], Value::Null);

    let said = ok(sealyard(home).args(["workers", "enable", "A"]));
    assert!(said.contains("A is enabled"), "{said}");
    job(home, "seal/v0/precommit/1", "done");
    let said = ok(sealyard(home).args(["workers", "drain", "A", "--wait"]));
    assert!(said.contains("A is drained: nothing is left there"), "{said}");
    assert_eq!(listed(home, "A")["mode"], "draining");
}

#[test]
fn limits_of_every_kind_are_shown_beside_their_use_and_change_at_once() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    init(home, "2KiB", "[Scheduler.WorkerCaps.A]\nAP = 4\n[Scheduler.MachineCaps.rack-7]\n\"PC1+PC2\" = 2\n");
    let _manager = run_manager(home, "127.0.0.1:0");
    let own = ["--machine", "rack-7", "--max", "UNS=2,PC2+C2=1", "--commit=false"];
    let _a = run_worker(home, "A", &own, &[("PC1_2K_MAX_CONCURRENT", "3")]);
    let _b = run_worker(home, "B", &["--machine", "rack-7", "--commit=false"], &[]);

    let a = listed(home, "A");
    assert_eq!(
        (&a["limits"]["PC1"], &a["limits"]["AP"], &a["limits"]["UNS"]),
        (&3.into(), &4.into(), &2.into()),
        "{a:#}"
    );
    assert_eq!((&a["machine"], &listed(home, "B")["machine"]), (&"rack-7".into(), &"rack-7".into()));
    let said = ok(sealyard(home).args(["workers", "list"]));
    for words in
        ["PC2+C2 0/1 (worker)", "AP 0/4 (config.toml)", "MACHINE: rack-7", "PC1+PC2 0/2 (config.toml)"]
    {
        assert!(said.contains(words), "{words:?} is missing in:\n{said}");
    }
    let set = json(home, &["workers", "caps", "A", "PC1=0", "AP=none", "UNS=9"]);
    let caps: Vec<String> = set["caps"]
        .as_array()
        .expect("caps")
        .iter()
        .map(|cap| {
            format!(
                "{}={} {}",
                cap["group"].as_str().unwrap_or_default(),
                cap["most"],
                cap["origin"].as_str().unwrap_or_default()
            )
        })
        .collect();
    assert_eq!(caps, ["AP=null operator", "PC1=0 operator", "PC2+C2=1 worker", "UNS=2 worker"]);
    let overruled: Vec<_> =
        set["caps"].as_array().expect("caps").iter().map(|cap| &cap["overruled"]).collect();
    assert_eq!(overruled[..3], [&Value::Null; 3], "{set:#}");
    assert_eq!(*overruled[3], serde_json::json!({"most": 9, "origin": "operator"}), "{set:#}");
    let said = ok(sealyard(home).args(["workers", "caps", "A"]));
    for words in
        ["UNS 0/2 (worker; 9 by operator is without effect above it)", "lower limit on UNS", "`--max`"]
    {
        assert!(said.contains(words), "{words:?} is missing in:\n{said}");
    }
    assert_eq!(listed(home, "A")["limits"]["PC1"], 0);
    let machine = json(home, &["workers", "caps", "rack-7", "PC1+PC2=default", "C2=1"]);
    assert_eq!((&machine["machine"], &machine["caps"][0]["most"]), (&true.into(), &2.into()), "{machine:#}");
    let line = refused(sealyard(home).args(["workers", "caps", "A", "PC9=1"]), 2);
    assert!(line.contains("PC9") && line.contains("PC1"), "{line}");
    let line = refused(sealyard(home).args(["workers", "caps", "--machine", "rack-8"]), 1);
    assert!(line.contains("known machines: rack-7"), "{line}");
    let line = refused(sealyard(home).args(["worker", "run", "--max", "PC1=none"]), 2);
    assert!(line.contains("PC1=3"), "{line}");
}

#[test]
fn a_worker_s_tasks_are_switched_where_it_runs_and_the_manager_knows_at_once() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    init(home, "2KiB", "");
    let _manager = run_manager(home, "127.0.0.1:0");
    let _worker = run_worker(home, "A", &["--addpiece", "--precommit1"], &[]);
    let said = ok(sealyard(home).args(["worker", "tasks", "disable", "pc1", "--worker-repo", "A"]));
    assert!(said.contains("offers AP C1 FIN GET now"), "{said}");
    let has = |task: &'static str| {
        move |worker: &Value| {
            worker["tasks"].as_array().is_some_and(|tasks| tasks.iter().any(|it| *it == task))
        }
    };
    let pc1 = "seal/v0/precommit/1";
    ask_until("PC1's leaving", SEALING_MAX, || listed(home, "A"), |worker| !has(pc1)(worker));
    let line = refused(sealyard(home).args(["worker", "tasks", "enable", "PC2", "--worker-repo", "A"]), 1);
    assert!(line.contains("was not started with PC2"), "{line}");
    let line = refused(sealyard(home).args(["worker", "tasks", "enable", "FIN", "--worker-repo", "A"]), 2);
    assert!(line.contains("\"FIN\"") && line.contains("PC1"), "{line}");
    ok(sealyard(home).args(["worker", "tasks", "enable", "--all", "--worker-repo", "A"]));
    ask_until("PC1's return", SEALING_MAX, || listed(home, "A"), has(pc1));
}

#[test]
fn an_abort_kills_the_executor_and_frees_everything_and_a_priority_is_shown() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path();
    init(home, "8MiB", "");
    let _manager = run_manager(home, "127.0.0.1:0");
    let _worker = run_worker(home, "A", &["--addpiece", "--precommit1"], &[]);
    ok(sealyard(home).args(["sectors", "pledge"]));
    let said = ok(sealyard(home).args(["sealing", "priority", "1", "7"]));
    assert!(said.contains("sector 1: priority 7 (it was 0)"), "{said}");
    hold(&home.join("A"), "pc1", SEALING_MAX);
    let running = job(home, "seal/v0/precommit/1", "running");
    assert_eq!(running["priority"], 7, "{running:#}");
    let doing = || executors(&home.join("A"), "pc1");
    let said = ok(sealyard(home).args(["sealing", "abort", &named(&running)]));
    assert!(said.contains("was killed, and everything that it held is free"), "{said}");
    assert_eq!(doing(), [0; 0], "the executor is gone");
    let worker = listed(home, "A");
    assert_eq!(
        (&worker["cpu"][0], &worker["ram"][0]),
        (&0.into(), &0.into()),
        "nothing is charged: {worker:#}"
    );
    let said = ok(sealyard(home).args(["sectors", "status", "--log", "1"]));
    assert!(said.contains("is to end, says ") && said.contains("SealPreCommit1Failed"), "{said}");
    let line = refused(sealyard(home).args(["sealing", "abort", &named(&running)]), 1);
    assert!(line.contains("neither runs nor waits"), "{line}");
    let line = refused(sealyard(home).args(["sealing", "priority", "sector-one", "1"]), 2);
    assert!(line.contains("task:5"), "{line}");
}

//! A process killed at every crash point of the recovery table (`sealtasks::recovery`), with real processes and real proofs
//! of 2 KiB: each sector gets where it would have got, every task has one accepted result, and nothing is left behind.
#![expect(clippy::print_stdout, reason = "whoever reads the output sees what each crash cost")]

mod system;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sealtasks::recovery::crash_points;
use serde_json::Value;
use system::{COMMAND_MAX, Daemon, ask_until, executors, ok, run_within, sealyard};

/// One sector takes a few seconds, one that lost a step a few more.
const SEALING_MAX: Duration = Duration::from_secs(180);

/// The manager's own worker takes nothing, so that the two others do.
const NO_LOCAL_TASKS: &str = "[Storage]\nAllowAddPiece = false\nAllowPreCommit1 = false\nAllowPreCommit2 = false\n\
    AllowCommit = false\nAllowUnseal = false\n";

/// The tasks of a sector up to Commit1, by the name in `sectors status` and by the executor's word.
const TASKS: [(&str, &str); 4] = [
    ("seal/v0/addpiece", "ap"),
    ("seal/v0/precommit/1", "pc1"),
    ("seal/v0/precommit/2", "pc2"),
    ("seal/v0/commit/1", "c1"),
];

/// A manager and two workers, each of which can be started to die at a point.
struct Yard {
    home: PathBuf,
    listen: String,
    running: BTreeMap<&'static str, Daemon>,
    addresses: BTreeMap<&'static str, String>,
}

impl Yard {
    fn new(home: &Path) -> Self {
        ok(sealyard(home).args(["init", "--actor", "t01000", "--sector-size", "2KiB", "--no-local-storage"]));
        std::fs::write(home.join(".sealyard/config.toml"), NO_LOCAL_TASKS).expect("config.toml");
        let (running, addresses) = (BTreeMap::new(), BTreeMap::new());
        let mut yard = Self { home: home.to_owned(), listen: "127.0.0.1:0".into(), running, addresses };
        yard.start("manager", None);
        let said = yard.daemon("manager").expect("listening on");
        let listen = said.split_whitespace().find(|word| word.starts_with("127.0.0.1:"));
        yard.listen = listen.expect("an address").trim_end_matches(';').to_owned();
        for name in ["A", "B"] {
            yard.start(name, None);
            let workers = yard.json(&["workers", "list"]);
            let found = workers.as_array().and_then(|all| all.iter().find(|worker| worker["name"] == name));
            let url = found.and_then(|worker| worker["url"].as_str()).expect("it is listed");
            let address = url.trim_start_matches("http://").trim_end_matches("/rpc/v0").to_owned();
            yard.addresses.insert(name, address);
        }
        yard
    }

    fn daemon(&mut self, name: &str) -> &mut Daemon {
        self.running.get_mut(name).expect("it was started")
    }

    /// Starts a process, to die at a point.
    fn start(&mut self, name: &'static str, dies: Option<&str>) {
        let mut command = sealyard(&self.home);
        let ready = if name == "manager" {
            command.args(["run", "--listen", &self.listen]);
            "listening on"
        } else {
            let address = self.addresses.get(name).map_or("127.0.0.1:0", String::as_str);
            command.args(["worker", "run", "--name", name, "--address", address, "--worker-repo", name]);
            let tasks: &[&str] =
                if name == "A" { &["--addpiece", "--precommit1"] } else { &["--precommit2", "--commit"] };
            // No gateway is reachable from a test; Commit2 is not needed here.
            command.args(tasks).env("IPFS_GATEWAY", "http://127.0.0.1:9/ipfs/");
            "registered"
        };
        if let Some(point) = dies {
            command.env("SEALYARD_CRASH_AT", point);
        }
        let mut daemon = Daemon::start(name, &mut command);
        daemon.expect(ready);
        self.running.insert(name, daemon);
    }

    fn kill(&mut self, name: &'static str) {
        let mut daemon = self.running.remove(name).expect("it was started");
        signal(daemon.id(), "-9");
        assert_eq!(daemon.end(), None, "killed, not exited");
    }

    fn json(&self, args: &[&str]) -> Value {
        let text = ok(sealyard(&self.home).args(args).arg("--json"));
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{args:?} printed no JSON ({error}): {text}"))
    }

    /// Has the executor of PreCommit1 or PreCommit2 die.
    fn executors_die(&self, worker: &str, at: Option<&str>) {
        let task = if worker == "A" { "pc1" } else { "pc2" };
        let text = at.map(|point| format!("[executor.{task}.env]\nSEALYARD_CRASH_AT = {point:?}\n"));
        std::fs::write(self.home.join(worker).join("config.toml"), text.unwrap_or_default())
            .expect("config.toml");
    }

    /// Pledges a sector and has the process die at the point on its way; then that process starts again.
    fn die_at(&mut self, point: &'static str, number: usize) {
        let mark = self.home.join(format!("died-at-{point}"));
        let wish = format!("{point}@{}", mark.display());
        let worker = if number.is_multiple_of(2) { "A" } else { "B" };
        let (process, is_executor) = match point.split_once('.').expect("a process and a place").0 {
            "manager" => ("manager", false),
            "executor" => (worker, true),
            _ => (worker, false),
        };
        self.kill(process);
        if is_executor {
            self.executors_die(worker, Some(&wish));
        }
        self.start(process, (!is_executor).then_some(&wish));
        // A manager that dies before it has committed the pledge does not answer it either.
        let pledged = run_within(&mut self.pledge(), COMMAND_MAX).status.success();
        assert!(pledged || process == "manager", "{point}: the pledge was not taken");
        ask_until(point, SEALING_MAX, || mark.exists(), |died| *died);
        if is_executor {
            self.executors_die(worker, None);
            self.kill(process);
        } else {
            assert_eq!(self.daemon(process).end(), None, "killed, not exited");
        }
        self.start(process, None);
        let status = ["sectors", "status", &number.to_string()].map(str::to_owned);
        if !run_within(sealyard(&self.home).args(status), COMMAND_MAX).status.success() {
            assert!(!pledged, "{point}: what was answered is durable");
            ok(&mut self.pledge());
        }
    }

    fn pledge(&self) -> Command {
        let mut command = sealyard(&self.home);
        command.args(["sectors", "pledge", "--until", "c1"]);
        command
    }

    /// Waits for Commit1 of a sector. A step that failed is tried again at once rather than after its pause.
    fn sealed(&mut self, number: usize, point: &str) {
        let number = number.to_string();
        let status = || {
            let status = self.json(&["sectors", "status", &number]);
            if status["state"].as_str().is_some_and(|state| state.ends_with("Failed")) {
                // It may have gone on by itself meanwhile.
                run_within(sealyard(&self.home).args(["sectors", "retry", &number]), COMMAND_MAX);
            }
            status
        };
        let done = |status: &Value| status["c1_sha256"].is_string() && status["stopped"] == true;
        ask_until(&format!("Commit1 after {point}"), SEALING_MAX, status, done);
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        // Executors outlive whoever started them; a test that fails leaves none behind.
        for (_, task) in TASKS {
            executors(&self.home, task).into_iter().for_each(|process| signal(process, "-9"));
        }
    }
}

fn signal(process: u32, signal: &str) {
    // It may be gone already.
    let _ = Command::new("kill").args([signal, &process.to_string()]).status();
}

#[test]
fn a_sector_survives_a_kill_at_every_point_of_the_recovery_table() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path().canonicalize().expect("a path without links");
    let mut yard = Yard::new(&home);
    for (before, point) in crash_points().enumerate() {
        let number = before + 1;
        yard.die_at(point, number);
        yard.sealed(number, point);
        let idle = |jobs: &Value| *jobs == Value::Array(Vec::new());
        ask_until("nothing waits or runs", SEALING_MAX, || yard.json(&["sealing", "jobs"]), idle);
        let status = yard.json(&["sectors", "status", &number.to_string()]);
        for (task, word) in TASKS {
            let rows = status["tasks"].as_array().expect("tasks").iter().filter(|row| row["task"] == task);
            let states: Vec<_> = rows.map(|row| row["state"].as_str().unwrap_or("-")).collect();
            let accepted = states.iter().filter(|state| **state == "done").count();
            assert_eq!(accepted, 1, "{point}: {task} has one accepted result: {states:?}");
            assert_eq!(executors(&home, word), Vec::<u32>::new(), "{point}: no executor of {word} is left");
            println!("{point:32} {word:4} {states:?}");
        }
        for worker in ["A", "B"] {
            let calls = home.join(worker).join("calls");
            let left = || std::fs::read_dir(&calls).expect("calls").count();
            ask_until(&format!("{point}: no call's directory is left"), SEALING_MAX, left, |left| *left == 0);
        }
    }
}

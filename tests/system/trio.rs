//! A manager and two workers: A does AddPiece and PreCommit1, B PreCommit2 and Commit1. Each comes back to the address that
//! it had, and can be started to die at a crash point (`sealtasks::recovery`).
#![allow(dead_code, reason = "each test target uses its part of this")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::addresses::free_addresses;
use super::{COMMAND_MAX, Daemon, ask_until, executors, json, run_within, sealyard};

/// One sector takes a few seconds, one that lost a step a few more.
pub const SEALING_MAX: Duration = Duration::from_secs(300);

/// The manager's own worker takes nothing, so that the two others do.
pub const NO_LOCAL_TASKS: &str = "[Storage]\nAllowAddPiece = false\nAllowPreCommit1 = false\nAllowPreCommit2 = false\n\
    AllowCommit = false\nAllowUnseal = false\n";

/// The tasks of a sector up to Commit1, by the name in `sectors status` and by the executor's word.
pub const TASKS: [(&str, &str); 4] = [
    ("seal/v0/addpiece", "ap"),
    ("seal/v0/precommit/1", "pc1"),
    ("seal/v0/precommit/2", "pc2"),
    ("seal/v0/commit/1", "c1"),
];

/// By these names they are started.
pub const NAMES: [&str; 3] = ["manager", "A", "B"];

/// How far sectors go, and with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To Commit1, with real proofs.
    Commit1,
    /// All the way to a path of B that stores, with real proofs.
    Storage,
    /// The same, played: real processes and files, and no proof.
    Rehearsal,
}

/// Where sectors lie that go all the way.
pub const STORE: &str = "store";

/// The three, as far as they run.
pub struct Trio {
    pub home: PathBuf,
    way: Way,
    /// What each process is started with.
    variables: Vec<(&'static str, OsString)>,
    running: BTreeMap<&'static str, Daemon>,
    addresses: [String; 3],
}

impl Trio {
    /// Nothing is started yet.
    pub fn new(home: &Path, variables: Vec<(&'static str, OsString)>) -> Self {
        let (home, way, addresses) = (home.to_owned(), Way::Commit1, free_addresses());
        Self { home, way, variables, running: BTreeMap::new(), addresses }
    }

    /// Three that run, of which B has a path that stores.
    pub fn all_the_way(home: &Path, way: Way) -> Self {
        let mut trio = Self::new(home, Vec::new());
        trio.way = way;
        trio.init();
        NAMES.into_iter().for_each(|name| trio.start(name, None));
        let attach = ["storage", "attach", "--init", "--store", "--worker", "B"];
        super::ok(trio.command().args(attach).arg(home.join(STORE)));
        trio
    }

    /// The program with what each process is started with.
    pub fn command(&self) -> Command {
        let mut command = sealyard(&self.home);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Makes the manager's repo, of 2 KiB sectors and without tasks of its own.
    pub fn init(&self) {
        let init = ["init", "--actor", "t01000", "--sector-size", "2KiB", "--no-local-storage"];
        let rehearsal = (self.way == Way::Rehearsal).then_some("--rehearsal");
        super::ok(self.command().args(init).args(rehearsal));
        std::fs::write(self.home.join(".sealyard/config.toml"), NO_LOCAL_TASKS).expect("config.toml");
    }

    /// Starts a process, to die at a point.
    pub fn start(&mut self, name: &'static str, dies: Option<&str>) {
        self.start_with(name, dies.map(|wish| ("SEALYARD_CRASH_AT", wish)));
    }

    /// Starts a process that stands still at a point, so that nobody hears of it before all of them end.
    pub fn start_to_stand(&mut self, name: &'static str, wish: &str) {
        self.start_with(name, Some(("SEALYARD_STOP_AT", wish)));
    }

    fn start_with(&mut self, name: &'static str, wish: Option<(&str, &str)>) {
        let mut command = self.command();
        let place = NAMES.iter().position(|known| *known == name).expect("one of them");
        let address = self.addresses[place].as_str();
        let ready = if name == "manager" {
            command.args(["run", "--listen", address]);
            "listening on"
        } else {
            command.args(["worker", "run", "--name", name, "--address", address, "--worker-repo", name]);
            let tasks: &[&str] = match (name, self.way) {
                ("A", _) => &["--addpiece", "--precommit1"],
                (_, Way::Commit1) => &["--precommit2", "--commit"],
                // With values, so that it also releases what is unsealed.
                _ => &["--addpiece=false", "--precommit1=false", "--unseal=true"],
            };
            if self.way == Way::Rehearsal {
                command.args(["--executor", "all=rehearsal"]);
            }
            // No gateway is reachable from a test; parameters are there or not needed.
            command.args(tasks).env("IPFS_GATEWAY", "http://127.0.0.1:9/ipfs/");
            "registered"
        };
        command.envs(wish);
        let mut daemon = Daemon::start(name, &mut command);
        if wish.is_some() {
            daemon.expect_or_end(ready);
        } else {
            daemon.expect(ready);
        }
        self.running.insert(name, daemon);
    }

    pub fn daemon(&mut self, name: &str) -> &mut Daemon {
        self.running.get_mut(name).expect("it was started")
    }

    /// Ends one by force.
    pub fn kill(&mut self, name: &str) {
        let mut daemon = self.running.remove(name).expect("it was started");
        signal(daemon.id(), "-9");
        assert_eq!(daemon.end(), None, "killed, not exited");
    }

    /// Ends all of them by force, executors included, none of which goes on while the others are ended.
    pub fn kill_all(&mut self) {
        let mut all: Vec<u32> = self.running.values().map(Daemon::id).collect();
        all.extend(TASKS.into_iter().flat_map(|(_, task)| executors(&self.home, task)));
        all.iter().for_each(|process| signal(*process, "-STOP"));
        all.iter().for_each(|process| signal(*process, "-9"));
        std::mem::take(&mut self.running).into_values().for_each(|mut daemon| {
            daemon.end();
        });
        let left = || TASKS.into_iter().flat_map(|(_, task)| executors(&self.home, task)).count();
        ask_until("the executors have ended", COMMAND_MAX, left, |left| *left == 0);
    }

    /// The command that pledges a sector up to Commit1.
    pub fn pledge(&self) -> Command {
        let mut command = sealyard(&self.home);
        command.args(["sectors", "pledge", "--until", "c1"]);
        command
    }

    /// Waits until a sector is at Commit1 and nothing else is under way, and gives its status. A step that failed is tried
    /// again at once rather than after its pause.
    pub fn sealed(&self, number: u64, what: &str) -> Value {
        let is_sealed = |status: &Value| status["c1_sha256"].is_string() && status["stopped"] == true;
        self.at_rest(number, &format!("Commit1 after {what}"), is_sealed)
    }

    /// The same of a sector that goes all the way.
    pub fn stored(&self, number: u64, what: &str) -> Value {
        let is_stored = |status: &Value| status["state"] == "Proving";
        self.at_rest(number, &format!("its place in storage after {what}"), is_stored)
    }

    fn at_rest(&self, number: u64, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        let number = number.to_string();
        let status = || {
            let status = json(&self.home, &["sectors", "status", &number]);
            if status["state"].as_str().is_some_and(|state| state.ends_with("Failed")) {
                // It may have gone on by itself meanwhile.
                run_within(sealyard(&self.home).args(["sectors", "retry", &number]), COMMAND_MAX);
            }
            status
        };
        ask_until(what, SEALING_MAX, status, done);
        let idle = |jobs: &Value| *jobs == Value::Array(Vec::new());
        ask_until("nothing waits or runs", SEALING_MAX, || json(&self.home, &["sealing", "jobs"]), idle);
        json(&self.home, &["sectors", "status", &number])
    }
}

impl Drop for Trio {
    fn drop(&mut self) {
        // Executors outlive whoever started them; a test that fails leaves none behind.
        for (_, task) in TASKS {
            executors(&self.home, task).into_iter().for_each(|process| signal(process, "-9"));
        }
    }
}

/// How each attempt of a task ended, by a sector's status. One of them is the accepted one.
pub fn ends_of<'a>(status: &'a Value, task: &str, what: &str) -> Vec<&'a str> {
    let rows = status["tasks"].as_array().expect("tasks").iter().filter(|row| row["task"] == task);
    let states: Vec<_> = rows.map(|row| row["state"].as_str().unwrap_or("-")).collect();
    let accepted = states.iter().filter(|state| **state == "done").count();
    assert_eq!(accepted, 1, "{what}: {task} has one accepted result: {states:?}");
    states
}

fn signal(process: u32, signal: &str) {
    // It may be gone already.
    let _ = Command::new("kill").args([signal, &process.to_string()]).status();
}

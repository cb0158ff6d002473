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
pub const SEALING_MAX: Duration = Duration::from_secs(180);

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

/// The three, as far as they run.
pub struct Trio {
    pub home: PathBuf,
    /// What each process is started with.
    variables: Vec<(&'static str, OsString)>,
    running: BTreeMap<&'static str, Daemon>,
    addresses: [String; 3],
}

impl Trio {
    /// Nothing is started yet.
    pub fn new(home: &Path, variables: Vec<(&'static str, OsString)>) -> Self {
        Self { home: home.to_owned(), variables, running: BTreeMap::new(), addresses: free_addresses() }
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
        super::ok(self.command().args(init));
        std::fs::write(self.home.join(".sealyard/config.toml"), NO_LOCAL_TASKS).expect("config.toml");
    }

    /// Starts a process, to die at a point.
    pub fn start(&mut self, name: &'static str, dies: Option<&str>) {
        let mut command = self.command();
        let place = NAMES.iter().position(|known| *known == name).expect("one of them");
        let address = self.addresses[place].as_str();
        let ready = if name == "manager" {
            command.args(["run", "--listen", address]);
            "listening on"
        } else {
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
        let number = number.to_string();
        let status = || {
            let status = json(&self.home, &["sectors", "status", &number]);
            if status["state"].as_str().is_some_and(|state| state.ends_with("Failed")) {
                // It may have gone on by itself meanwhile.
                run_within(sealyard(&self.home).args(["sectors", "retry", &number]), COMMAND_MAX);
            }
            status
        };
        let done = |status: &Value| status["c1_sha256"].is_string() && status["stopped"] == true;
        ask_until(&format!("Commit1 after {what}"), SEALING_MAX, status, done);
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

//! What must be so when all have come to rest.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{HEALING_MAX, KINDS, STORE, WORKERS, Yard};
use crate::system::{COMMAND_MAX, ask_until, at_work, run_within};

/// The tasks that have one accepted result each; the last only in the sector that goes all the way.
const RESULTS: [&str; 5] = [
    "seal/v0/addpiece",
    "seal/v0/precommit/1",
    "seal/v0/precommit/2",
    "seal/v0/commit/1",
    "seal/v0/commit/2",
];

impl Yard {
    /// Every sector is whole, every task has one accepted result, and nothing is left of what was begun. Gives the time that
    /// failed attempts ran (milliseconds), and the copies left by moves.
    pub fn check(&self) -> (u64, usize) {
        let home = self.home.as_path();
        let empty = |found: &Value| *found == Value::Array(Vec::new());
        ask_until("nothing waits or runs", HEALING_MAX, || self.json(&["sealing", "jobs"]), empty);
        let sectors = self.json(&["sectors", "list"]);
        let (mut lost_ms, mut copies) = (0, 0);
        for sector in sectors.as_array().expect("a list") {
            let number = sector["sector"]["number"].to_string();
            let status = self.json(&["sectors", "status", &number]);
            let rows = status["tasks"].as_array().expect("tasks");
            let is_whole = self.whole.is_some_and(|whole| whole.to_string() == number);
            for task in RESULTS.iter().take(if is_whole { 5 } else { 4 }) {
                let of_task = rows.iter().filter(|row| row["task"] == *task);
                let done = of_task.filter(|row| row["state"] == "done").count();
                assert_eq!(done, 1, "sector {number}: {task} has one accepted result: {rows:#?}");
            }
            for row in rows.iter().filter(|row| row["state"] == "failed") {
                let time = |key: &str| row[key].as_u64().unwrap_or_default();
                if time("started_ms") > 0 {
                    lost_ms += time("ended_ms").saturating_sub(time("started_ms"));
                }
            }
            // Every size has proofs of its own, in the order of the sizes.
            let size = if status["proof_type"].as_i64().map(|proof| proof % 5) == Some(1) {
                8 << 20
            } else {
                2 << 10
            };
            if is_whole {
                let stored = home.join(STORE).join("sealed").join(format!("s-t01000-{number}"));
                assert_eq!(fs::metadata(stored).map(|found| found.len()).ok(), Some(size), "{status:#}");
                assert_eq!(status["state"], "Proving", "{status:#}");
            } else {
                copies += self.copies_left(&number, size);
            }
        }
        ask_until("nothing is locked", HEALING_MAX, || self.json(&["storage", "locks"]), empty);
        let promised = || {
            let paths = self.json(&["storage", "list"]);
            paths.as_array().expect("paths").iter().filter_map(|path| path["reserved"].as_u64()).sum::<u64>()
        };
        ask_until("no room is promised", HEALING_MAX, promised, |bytes| *bytes == 0);
        for worker in WORKERS {
            let calls = home.join(worker).join("calls");
            let left = || fs::read_dir(&calls).expect("calls").count();
            ask_until("no call's directory is left", HEALING_MAX, left, |left| *left == 0);
        }
        ask_until("no executor is left", HEALING_MAX, || at_work::left(&self.home), Vec::is_empty);
        self.nothing_charged();
        let foreign = || {
            // What was half-fetched when its fetcher was killed is offered by the next scan, and goes with it.
            run_within(self.command(0).args(["storage", "cleanup", "--really-do-it"]), COMMAND_MAX);
            self.foreign(&sectors)
        };
        // A source that was cut off when it was to be deleted is asked again within half a minute.
        ask_until("no file is left that is of no sector", HEALING_MAX, foreign, Vec::is_empty);
        self.nothing_half_written();
        let info = self.json(&["info"]);
        assert_eq!(info["alerts"], Value::Array(Vec::new()), "{info:#}");
        (lost_ms, copies)
    }

    /// No worker's processors or memory are counted as used.
    fn nothing_charged(&self) {
        let workers = || self.json(&["workers", "list"]);
        let is_free = |workers: &Value| {
            let mut rows = workers.as_array().expect("workers").iter();
            rows.all(|row| row["cpu"][0] == 0 && row["ram"][0] == 0 && row["running"] == json!({}))
        };
        ask_until("nothing is charged to a worker", HEALING_MAX, workers, is_free);
    }

    /// No file lies anywhere under a name that only what is being written has.
    fn nothing_half_written(&self) {
        let none = |found: &Vec<PathBuf>| found.is_empty();
        // Who is at work may be writing.
        ask_until("nothing is half-written", HEALING_MAX, || self.half_written(), none);
    }

    fn half_written(&self) -> Vec<PathBuf> {
        let (mut dirs, mut found) = (vec![self.home.clone()], Vec::new());
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                let path = entry.path();
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    dirs.push(path);
                } else if path.extension().is_some_and(|end| end == "tmp" || end == "part") {
                    found.push(path);
                }
            }
        }
        found
    }

    /// The replica is whole, with its cache, where PreCommit2 was. How many copies are left besides: one that is moved is
    /// copied before it goes, and who is killed in between does not ask for its end again.
    fn copies_left(&self, number: &str, replica_bytes: u64) -> usize {
        let name = format!("s-t01000-{number}");
        let place = |worker: &str, kind: &str| self.home.join(worker).join(kind).join(&name);
        let bytes = fs::metadata(place("B", "sealed")).map(|found| found.len());
        assert_eq!(bytes.ok(), Some(replica_bytes), "sector {number}'s replica");
        assert!(place("B", "cache").is_dir(), "sector {number}'s cache");
        ["sealed", "cache"].into_iter().filter(|kind| place("A", kind).exists()).count()
    }

    /// Files that are of no sector, half-fetched ones included, and notes of what a move still owes.
    fn foreign(&self, sectors: &Value) -> Vec<String> {
        let numbers = sectors.as_array().expect("a list").iter();
        let known: BTreeSet<_> = numbers.map(|row| format!("s-t01000-{}", row["sector"]["number"])).collect();
        let mut found = Vec::new();
        for (worker, kind) in WORKERS.into_iter().flat_map(|worker| KINDS.map(|kind| (worker, kind))) {
            let Ok(entries) = fs::read_dir(self.home.join(worker).join(kind)) else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let is_empty_dir =
                    || fs::read_dir(entry.path()).is_ok_and(|mut inside| inside.next().is_none());
                if !known.contains(&name) && !is_empty_dir() {
                    found.push(format!("{worker}/{kind}/{name}"));
                }
            }
        }
        found
    }
}

//! A process killed at every crash point of the recovery table (`sealtasks::recovery`), with real processes and real proofs
//! of 2 KiB: each sector gets where it would have got, every task has one accepted result, and nothing is left behind. A
//! worker's points are met in one task of each of two workers, an executor's first by it alone and then by its worker with it.
//!
//! `SEALYARD_CRASH_POINTS=all` has each of them met in every task that comes there.
#![expect(clippy::print_stdout, reason = "whoever reads the output sees what each crash cost")]

mod system;

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use sealtasks::recovery::crash_points;
use serde_json::Value;
use system::spares::{self, POINTS};
use system::trio::{NAMES, SEALING_MAX, TASKS, Trio, ends_of};
use system::{COMMAND_MAX, ask_until, executors, ok, run_within, sealyard};

/// What worker A returns, and B: a fetch, which no executor does, comes to some of the points alone.
const OF_A: [&str; 2] = ["ReturnAddPiece", "ReturnSealPreCommit1"];
const OF_B: [&str; 3] = ["ReturnFetch", "ReturnSealPreCommit2", "ReturnSealCommit1"];
const FETCHED: [&str; 4] = ["worker.accepted", "worker.declared", "worker.journalled", "worker.acknowledged"];

/// Tasks whose executors die, and their workers. The first does not take a spare.
const EXECUTED: [(&str, &str); 3] = [("pc1", "A"), ("pc2", "B"), ("c1", "B")];

/// Who dies while a sector is sealed.
enum Death {
    /// A process that is started to die there.
    Process(&'static str, String),
    /// An executor of a task, alone or with its worker behind it.
    Executor { task: &'static str, worker: &'static str, alone: bool },
}

/// What happens to one sector: the point, and who dies there.
type Life = (&'static str, Vec<Death>);

/// At this point everybody who comes there, in this task or in all.
fn lives(at: usize, point: &'static str, all: bool) -> Vec<Life> {
    let process = point.split_once('.').expect("a process and a place").0;
    if process == "manager" {
        return vec![(point, vec![Death::Process("manager", point.to_owned())])];
    }
    if process == "executor" {
        let tasks = if POINTS.contains(&point) { &EXECUTED[1..] } else { &EXECUTED[..] };
        let tasks = tasks.iter().cycle().skip(at).take(if all { tasks.len() } else { 1 });
        let deaths = tasks.flat_map(|(task, worker)| {
            [true, false].map(|alone| vec![Death::Executor { task, worker, alone }])
        });
        return deaths.map(|deaths| (point, deaths)).collect();
    }
    if POINTS.contains(&point) {
        return vec![(point, vec![Death::Process("B", point.to_owned())])];
    }
    let of_b = if FETCHED.contains(&point) { &OF_B[..] } else { &OF_B[1..] };
    let turns = if all { 0..of_b.len() } else { at..at + 1 };
    let both = |turn: usize| {
        let deeds = [("A", OF_A[turn % OF_A.len()]), ("B", of_b[turn % of_b.len()])];
        deeds.map(|(worker, deed)| Death::Process(worker, format!("{point}/{deed}"))).into()
    };
    turns.map(|turn| (point, both(turn))).collect()
}

/// Has executors of a task die, or no more.
fn executors_die(home: &Path, worker: &str, wish: Option<(&str, &str)>) {
    let text = wish.map(|(task, wish)| format!("[executor.{task}.env]\nSEALYARD_CRASH_AT = {wish:?}\n"));
    std::fs::write(home.join(worker).join("config.toml"), text.unwrap_or_default()).expect("config.toml");
}

impl Death {
    fn who(&self) -> &'static str {
        match self {
            Self::Process(who, _) => who,
            Self::Executor { worker, .. } => worker,
        }
    }

    /// Starts the process to die so; gives the file that is made then.
    fn prepare(&self, trio: &mut Trio, point: &str, number: u64) -> PathBuf {
        let (home, who) = (trio.home.clone(), self.who());
        let mark = home.join(format!("{who}-died-{number}"));
        let at = |place: &str| format!("{place}@{}", mark.display());
        trio.kill(who);
        match self {
            Self::Process(_, place) => trio.start(who, Some(&at(place))),
            Self::Executor { task, .. } => {
                executors_die(&home, who, Some((task, &at(point))));
                trio.start(who, None);
            }
        }
        if POINTS.contains(&point) {
            spares::ready(&home, who);
        }
        mark
    }

    /// Once it has died, whoever has to be there is started again.
    fn bury(&self, trio: &mut Trio) {
        let who = self.who();
        match self {
            Self::Process(..) => {
                assert_eq!(trio.daemon(who).end(), None, "killed, not exited");
                trio.start(who, None);
            }
            Self::Executor { alone, .. } => {
                // It counts from the worker's next start on; the file is there, so that nobody dies again before.
                executors_die(&trio.home, who, None);
                if !alone {
                    trio.kill(who);
                    trio.start(who, None);
                }
            }
        }
    }
}

/// Pledges a sector and has processes die at the point on its way.
fn die(trio: &mut Trio, (point, deaths): &Life, number: u64) {
    let marks: Vec<_> = deaths.iter().map(|death| death.prepare(trio, point, number)).collect();
    // A manager that dies before it has committed the pledge does not answer it either.
    let pledged = run_within(&mut trio.pledge(), COMMAND_MAX).status.success();
    let is_manager = deaths.iter().any(|death| death.who() == "manager");
    assert!(pledged || is_manager, "{point}: the pledge was not taken");
    for (death, mark) in deaths.iter().zip(marks) {
        ask_until(point, SEALING_MAX, || mark.exists(), |died| *died);
        death.bury(trio);
    }
    let status = ["sectors", "status", &number.to_string()].map(str::to_owned);
    if !run_within(sealyard(&trio.home).args(status), COMMAND_MAX).status.success() {
        assert!(!pledged, "{point}: what was answered is durable");
        ok(&mut trio.pledge());
    }
}

/// The classes of a sector's failures, by the manager's own record.
fn failures(home: &Path, number: u64) -> Vec<String> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let state = Connection::open_with_flags(home.join(".sealyard/state.db"), flags).expect("the state");
    let number = i64::try_from(number).expect("small");
    let record = "SELECT record FROM sector WHERE number = ?1";
    let record: String = state.query_row(record, [number], |row| row.get(0)).expect("a record");
    let record: Value = serde_json::from_str(&record).expect("JSON");
    let kept = record["failures"]["kept"].as_array().expect("failures").iter();
    kept.map(|failure| failure["class"].as_str().expect("a class").to_owned()).collect()
}

/// As the table says of an executor that dies alone: before its report is there its call fails, with class compute, and that step
/// alone is done again; of one that is no call's yet, or whose work is done, nobody has to hear.
fn was_told(home: &Path, status: &Value, number: u64, point: &str, task: &str) {
    let (name, _) = TASKS.into_iter().find(|(_, word)| *word == task).expect("a task");
    let fails = ["executor.begun", "executor.worked"].contains(&point);
    let ends: &[&str] = if fails { &["failed", "done"] } else { &["done"] };
    assert_eq!(ends_of(status, name, point), ends, "{point}: {status:#}");
    let classes: &[&str] = if fails { &["compute"] } else { &[] };
    assert_eq!(failures(home, number), classes, "{point}: {status:#}");
    for (other, _) in TASKS.into_iter().filter(|(_, word)| *word != task) {
        assert_eq!(ends_of(status, other, point), ["done"], "{point}: nothing else is done again");
    }
}

#[test]
fn a_sector_survives_a_kill_at_every_point_of_the_recovery_table() {
    let all = std::env::var_os("SEALYARD_CRASH_POINTS").is_some();
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path().canonicalize().expect("a path without links");
    let mut trio = Trio::new(&home, Vec::new());
    trio.init();
    NAMES.into_iter().for_each(|name| trio.start(name, None));
    let lives: Vec<_> = crash_points().enumerate().flat_map(|(at, point)| lives(at, point, all)).collect();
    for (number, life) in (1..).zip(&lives) {
        die(&mut trio, life, number);
        let (point, deaths) = life;
        let status = trio.sealed(number, point);
        for (task, word) in TASKS {
            let states = ends_of(&status, task, point);
            assert_eq!(executors(&home, word), Vec::<u32>::new(), "{point}: no executor of {word} is left");
            println!("{point:32} {word:4} {states:?}");
        }
        if let [Death::Executor { task, alone: true, .. }] = deaths.as_slice() {
            was_told(&home, &status, number, point, task);
        }
        for worker in ["A", "B"] {
            let calls = home.join(worker).join("calls");
            let left = || std::fs::read_dir(&calls).expect("calls").count();
            ask_until(&format!("{point}: no call's directory is left"), SEALING_MAX, left, |left| *left == 0);
        }
    }
}

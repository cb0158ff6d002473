//! The power of the whole machine is cut, and the disk loses what was not synced (`platter`): what somebody was told to be done
//! is there when everything starts again, and every sector gets where it would have got. Real processes, real proofs of 2 KiB.
//!
//! `SEALYARD_POWER_CUTS=all` cuts at every crash point of manager, worker and executor and loses in each of the ways.
#![expect(clippy::print_stdout, reason = "whoever reads the output sees what each cut cost")]

mod platter;
mod system;

use std::path::PathBuf;
use std::process::Command;

use platter::yard::Yard;
use platter::{CUTS, Cut, Platter};
use rusqlite::Connection;
use sealtasks::recovery::crash_points;
use system::spares::POINTS;
use system::trio::{NAMES, SEALING_MAX, TASKS, ends_of};
use system::{COMMAND_MAX, ask_until, json, ok, run_within, signal};

/// Where the power is cut when not everywhere: where somebody has just been told that something is done.
const CHOSEN: [(&str, &str, Cut); 6] = [
    // A worker has accepted a call, and its manager noted that.
    ("manager.after.call_accepted", "A", Cut::Nothing),
    // Files have moved to the next worker, and their source is deleted.
    ("worker.acquired", "B", Cut::Deletions),
    // An executor has written its report.
    ("executor.reported", "A", Cut::Names),
    ("executor.reported", "B", Cut::Nothing),
    // A worker has noted a result, and may have declared its files.
    ("worker.journalled", "B", Cut::Names),
    // A manager has taken a result, and the worker may forget it.
    ("worker.acknowledged", "A", Cut::Nothing),
];

/// Whether a task is done once although the power was cut there: it was done before, and nothing of that is lost. What comes
/// after it may have begun meanwhile.
fn is_done_once(point: &str, worker: &str, word: &str) -> bool {
    let last = match (point, worker) {
        ("executor.reported", "A") => "pc1",
        ("executor.reported", _) => "pc2",
        // The first call of B is a fetch.
        ("worker.acquired" | "worker.ended" | "worker.declared" | "worker.journalled", "B") => "pc1",
        ("worker.ended" | "worker.declared" | "worker.journalled", _) => "ap",
        ("manager.after.call_returned" | "worker.acknowledged", _) => "ap",
        _ => return false,
    };
    TASKS.iter().take_while(|(_, known)| *known != last).any(|(_, known)| *known == word) || word == last
}

impl Yard {
    /// Pledges a sector and cuts the power when a process dies at the point. Gives the sector's number.
    fn cut_at(&mut self, point: &'static str, worker: &'static str, cut: Cut) -> u64 {
        let mark = self.aside.join(format!("{point}-{worker}-{cut:?}"));
        let wish = format!("{point}@{}", mark.display());
        let process = if point.starts_with("manager.") { "manager" } else { worker };
        self.trio.kill(process);
        self.start(process, Some(&wish));
        let output = run_within(&mut self.trio.pledge(), COMMAND_MAX);
        // A manager that dies before it has committed the pledge does not answer it either.
        let pledged = output.status.success();
        assert!(pledged || process == "manager", "{point}: the pledge was not taken");
        ask_until(point, SEALING_MAX, || mark.exists(), |died| *died);
        self.cut(cut);
        self.look(point, worker, cut);
        // By looking a database is brought up to date, and nobody saw that being synced.
        self.platter.settle();
        NAMES.into_iter().for_each(|name| self.start(name, None));
        // The one that is pledged last has the highest number. What was not answered may be there all the same.
        let there = || -> Vec<u64> {
            let sectors = json(&self.trio.home, &["sectors", "list"]);
            let rows = sectors.as_array().expect("a list").iter();
            rows.filter_map(|sector| sector["sector"]["number"].as_u64()).collect()
        };
        let mut numbers = there();
        if !pledged && numbers.len() == self.pledged {
            ok(&mut self.trio.pledge());
            numbers = there();
        }
        self.pledged += 1;
        assert_eq!(numbers.len(), self.pledged, "{point}, {cut:?}: an answered pledge is there: {numbers:?}");
        numbers.into_iter().max().expect("one at least")
    }

    /// What the disk alone says, before anything starts on it.
    fn look(&self, point: &str, worker: &str, cut: Cut) {
        let count = |file: PathBuf, query: &str| {
            let db = Connection::open(&file).expect("a database");
            db.query_row(query, [], |row| row.get::<_, i64>(0)).expect("a count")
        };
        let journal =
            |worker: &str, query: &str| count(self.trio.home.join(worker).join("journal.db"), query);
        let state = |query: &str| count(self.trio.home.join(".sealyard/state.db"), query);
        match point {
            "manager.after.call_accepted" => {
                let calls = state("SELECT count(*) FROM call WHERE state = 'held'");
                let known = journal("A", "SELECT count(*) FROM call WHERE phase <> 'acknowledged'");
                assert_eq!((calls, known), (1, 1), "{cut:?}: the call that was answered");
            }
            "worker.journalled" => {
                let held = journal(worker, "SELECT count(*) FROM call WHERE phase = 'returning'");
                assert_eq!(held, 1, "{cut:?}: the result that is to be returned");
            }
            "manager.after.call_returned" | "worker.acknowledged" => {
                let taken = state(
                    "SELECT count(*) FROM call WHERE state = 'returned' AND returned_ms = (SELECT max(returned_ms) FROM call)",
                );
                assert!(taken > 0, "{cut:?}: the result that was acknowledged");
            }
            _ => {}
        }
    }

    /// Waits for Commit1 of a sector, with one accepted result of each task.
    fn sealed(&self, number: u64, (point, worker, cut): (&str, &str, Cut)) {
        let what = format!("{point}, {cut:?}");
        let status = self.trio.sealed(number, &what);
        for (task, word) in TASKS {
            let states = ends_of(&status, task, &what);
            if is_done_once(point, worker, word) {
                assert_eq!(states, ["done"], "{what}: {task} is not done again: {status:#}");
            }
            println!("{point:32} {cut:10?} {word:4} {states:?}");
        }
    }
}

/// The cuts of this run.
fn cuts() -> Vec<(&'static str, &'static str, Cut)> {
    if std::env::var("SEALYARD_POWER_CUTS").is_ok_and(|which| which == "all") {
        let at = |point| ["A", "B"].into_iter().flat_map(move |worker| CUTS.map(|cut| (point, worker, cut)));
        // What the disk loses is seen in processes of their own alone.
        return crash_points().filter(|point| !POINTS.contains(point)).flat_map(at).collect();
    }
    CHOSEN.to_vec()
}

#[test]
fn what_was_acknowledged_is_there_after_a_power_cut() {
    let top = tempfile::tempdir().expect("a directory");
    let top = top.path().canonicalize().expect("a path without links");
    let mut yard = Yard::new(&top);
    for (point, worker, cut) in cuts() {
        let number = yard.cut_at(point, worker, cut);
        yard.sealed(number, (point, worker, cut));
    }
    // A snapshot of the index counts as soon as the manager has ended in order.
    let manager = yard.trio.daemon("manager");
    signal(manager.id(), "-TERM");
    manager.end();
    let snapshot = yard.trio.home.join(".sealyard/index.snapshot");
    let written = std::fs::read(&snapshot).expect("the manager wrote it when it ended");
    yard.cut(Cut::Nothing);
    assert!(std::fs::read(&snapshot).is_ok_and(|left| left == written), "the whole snapshot");
    yard.start("manager", None);
    yard.trio.daemon("manager").expect("the index remembers");
}

#[test]
fn the_platter_loses_what_is_not_synced_and_nothing_else() {
    let top = tempfile::tempdir().expect("a directory");
    let top = top.path().canonicalize().expect("a path without links");
    for cut in CUTS {
        let (root, aside) = (top.join(format!("{cut:?}")), top.join(format!("{cut:?}-aside")));
        std::fs::create_dir_all(root.join("dir")).expect("a directory");
        std::fs::write(root.join("dir/old"), "old").expect("written");
        let platter = Platter::new(&root, &aside);
        // `sync FILE` syncs a file or a directory; `mv` and the shell's own writing sync nothing.
        let script = "printf synced > dir/a; sync dir/a dir; printf '+later' >> dir/a; printf unsynced > dir/b; \
             rm dir/old; mkdir new; printf c > new/c; sync new/c";
        let mut shell = Command::new("sh");
        shell.args(["-ec", script]).current_dir(&root).envs(platter.variables());
        assert!(shell.status().expect("a shell").success());
        platter.cut(cut);
        let read = |name: &str| std::fs::read_to_string(root.join(name)).ok();
        assert_eq!(read("dir/a").as_deref(), Some("synced"), "{cut:?}");
        let (old, unsynced, new) = match cut {
            Cut::Nothing => (Some("old"), None, None),
            Cut::Deletions => (None, None, None),
            Cut::Names => (None, Some(""), Some("c")),
        };
        assert_eq!(read("dir/old").as_deref(), old, "{cut:?}");
        assert_eq!(read("dir/b").as_deref(), unsynced, "{cut:?}");
        assert_eq!(read("new/c").as_deref(), new, "{cut:?}");
    }
}

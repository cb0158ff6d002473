//! A process killed at every crash point of the recovery table (`sealtasks::recovery`), with real processes and real proofs
//! of 2 KiB: each sector gets where it would have got, every task has one accepted result, and nothing is left behind.
#![expect(clippy::print_stdout, reason = "whoever reads the output sees what each crash cost")]

mod system;

use std::path::Path;

use sealtasks::recovery::crash_points;
use system::spares::{self, POINTS};
use system::trio::{NAMES, SEALING_MAX, TASKS, Trio, ends_of};
use system::{COMMAND_MAX, ask_until, executors, ok, run_within, sealyard};

/// Has the executor of PreCommit1 or PreCommit2 die.
fn executors_die(home: &Path, worker: &str, at: Option<&str>) {
    let task = if worker == "A" { "pc1" } else { "pc2" };
    let text = at.map(|point| format!("[executor.{task}.env]\nSEALYARD_CRASH_AT = {point:?}\n"));
    std::fs::write(home.join(worker).join("config.toml"), text.unwrap_or_default()).expect("config.toml");
}

/// Pledges a sector and has the process die at the point on its way; then that process starts again.
fn die_at(trio: &mut Trio, point: &'static str, number: u64) {
    let mark = trio.home.join(format!("died-at-{point}"));
    let wish = format!("{point}@{}", mark.display());
    let worker = if number.is_multiple_of(2) && !POINTS.contains(&point) { "A" } else { "B" };
    let (process, is_executor) = match point.split_once('.').expect("a process and a place").0 {
        "manager" => ("manager", false),
        "executor" => (worker, true),
        _ => (worker, false),
    };
    trio.kill(process);
    if is_executor {
        executors_die(&trio.home, worker, Some(&wish));
    }
    trio.start(process, (!is_executor).then_some(&wish));
    if POINTS.contains(&point) {
        spares::ready(&trio.home, worker);
    }
    // A manager that dies before it has committed the pledge does not answer it either.
    let pledged = run_within(&mut trio.pledge(), COMMAND_MAX).status.success();
    assert!(pledged || process == "manager", "{point}: the pledge was not taken");
    ask_until(point, SEALING_MAX, || mark.exists(), |died| *died);
    if is_executor {
        executors_die(&trio.home, worker, None);
        trio.kill(process);
    } else {
        assert_eq!(trio.daemon(process).end(), None, "killed, not exited");
    }
    trio.start(process, None);
    let status = ["sectors", "status", &number.to_string()].map(str::to_owned);
    if !run_within(sealyard(&trio.home).args(status), COMMAND_MAX).status.success() {
        assert!(!pledged, "{point}: what was answered is durable");
        ok(&mut trio.pledge());
    }
}

#[test]
fn a_sector_survives_a_kill_at_every_point_of_the_recovery_table() {
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path().canonicalize().expect("a path without links");
    let mut trio = Trio::new(&home, Vec::new());
    trio.init();
    NAMES.into_iter().for_each(|name| trio.start(name, None));
    for (number, point) in (1..).zip(crash_points()) {
        die_at(&mut trio, point, number);
        let status = trio.sealed(number, point);
        for (task, word) in TASKS {
            let states = ends_of(&status, task, point);
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

//! Manager, workers and executors are killed, paused and ended at random while sectors are sealed, with real processes and
//! real proofs; at the end every sector got where it was to get, every task has one accepted result, and nothing is left.
//!
//! `SEALYARD_CHAOS_SECONDS` (120) and `SEALYARD_CHAOS_SEED` (1) say how long and which schedule; the seed decides what is
//! done, the machine when it comes about. From five minutes on every second sector has 8 MiB; from 30 minutes on one of 2 KiB
//! goes all the way, and manager, worker and executor are each killed once in its Commit2. The long run is
//! `SEALYARD_CHAOS_SECONDS=1800 cargo test --workspace --test chaos -- --nocapture`.
#![expect(clippy::print_stdout, reason = "the histogram is what the long run is for")]

mod system;
mod turmoil;

use std::time::{Duration, Instant};

use system::dice::Dice;
use turmoil::{Cut, PROCESSES, TASKS, Yard};

/// A run of so many seconds has larger sectors, too.
const LONG: u64 = 300;
/// And one of so many a sector that goes all the way, with Commit2.
const WHOLE: u64 = 1800;

#[test]
fn sectors_are_sealed_whatever_is_killed_paused_or_ended() {
    let seconds = from_environment("SEALYARD_CHAOS_SECONDS", 120);
    let seed = from_environment("SEALYARD_CHAOS_SEED", 1);
    println!("seed {seed}, {seconds} s");
    let mut dice = Dice(seed);
    let home = tempfile::tempdir().expect("a directory");
    let home = home.path().canonicalize().expect("a path without links");
    let mut yard = Yard::new(&home, seconds >= LONG);
    if seconds >= WHOLE {
        yard.pledge_whole();
    }
    let begun = Instant::now();
    let span = Duration::from_secs(seconds);
    let is_met = |yard: &Yard| {
        let cuts: usize = yard.cuts.values().sum();
        yard.kills.values().all(|count| *count > 0) && (yard.hosts.is_none() || cuts > 0)
    };
    // A slow machine gets longer to fill every cell.
    while begun.elapsed() < span || !is_met(&yard) && begun.elapsed() < span * 10 {
        yard.look_after(true);
        yard.kill_in_commit2(&mut dice);
        match dice.below(3) {
            0 => yard.disturb(&mut dice),
            _ => {
                let (process, task) = yard.least_tried(&mut dice);
                yard.kill(process, task, &mut dice);
            }
        }
        // Some work is done between two blows.
        std::thread::park_timeout(dice.millis(100, 1200));
    }
    yard.heal();
    let (lost_ms, copies) = yard.check();

    let kills: usize = yard.kills.values().chain(yard.commit2_kills.values()).sum();
    let cuts: usize = yard.cuts.values().sum();
    println!("{:>9} {:>5} {:>5} {:>5} {:>5} {:>5}", "kills in", TASKS[0], TASKS[1], TASKS[2], TASKS[3], "c2");
    for process in PROCESSES {
        let row = TASKS.map(|task| format!("{:>5}", yard.kills[&(process, task)]));
        println!("{process:>9} {} {:>5}", row.join(" "), yard.commit2_kills[process]);
    }
    println!(
        "{kills} kills, {} pauses, {} cuts of the network{} ({} between the workers), {} ended by SIGTERM, {} started again that ended by themselves; {} sectors sealed; \
         {:.2} task-seconds lost per kill; {copies} copies left where they were moved from",
        yard.pauses,
        cuts,
        if yard.hosts.is_some() { "" } else { " (LEFT OUT: not permitted here)" },
        yard.cuts[&Cut::Between],
        yard.ends,
        yard.restarted_by_themselves,
        yard.pledged,
        Duration::from_millis(lost_ms).as_secs_f64() / kills.max(1) as f64
    );
    assert!(yard.kills.values().all(|count| *count > 0), "a cell is empty: {:?}", yard.kills);
    let executors: usize = TASKS.iter().map(|task| yard.kills[&("executor", *task)]).sum();
    let is_long = seconds >= WHOLE;
    assert!(yard.hosts.is_none() || cuts > 0, "the network was permitted, and never cut");
    // The long run is one with networks.
    assert!(
        !is_long || yard.cuts.values().all(|count| *count > 0),
        "a way to cut the network was not met: {:?}",
        yard.cuts
    );
    assert!(!is_long || executors >= 100, "{executors} executors were killed");
    let once = PROCESSES.map(|process| (process, usize::from(is_long))).into();
    assert_eq!(yard.commit2_kills, once, "so often each was killed in Commit2");
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is no number")))
}

//! What the manager, the worker and the executor's process add to a stage of sealing.
//!
//! In every round one sector is sealed up to Commit1 in each of three ways, one after the other: through a manager and a
//! worker, whose times are those of the manager's own record, from the commit by which the scheduler's placing takes effect to
//! the commit by which the stage's result is accepted, in whole milliseconds; by `sealyard exec` alone, a process for each stage,
//! with its request and its report; and by bare calls of the proofs room in this process. All three end with the files on
//! stable storage. The first rounds are not counted: after them the program is in the page cache, the parents caches are made,
//! and this process holds them. The worker has spare executors, as it has by default, and every sector begins when
//! they are ready; the executors alone are new processes.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use sealtasks::SectorSize;

use crate::bare::{By, seal};
use crate::system::spares;
use crate::system::trio::TASKS;
use crate::system::{Daemon, ask_until, ok, sealyard};
use crate::{Size, median, verdict, yard};

/// Over the bare call, for sectors of 2 KiB, in milliseconds.
const OVER_MOST: f64 = 10.0;
/// Times the bare call, for sectors of 8 MiB.
const TIMES_MOST: f64 = 1.01;
/// Rounds that are not counted.
const WARMING: usize = 2;
/// One sector.
const SEALING_MAX: Duration = Duration::from_secs(300);

/// What a stage took in one round, in milliseconds.
#[derive(Clone, Copy)]
struct Sample {
    /// From its placing to the acceptance of its result.
    managed: f64,
    /// Of that, from the start of the executor to its result, by the worker's clock.
    working: f64,
    /// The executor's process alone.
    executor: f64,
    /// The bare call.
    bare: f64,
}

pub(crate) fn table(size: Size) {
    let (small, large) = match size {
        Size::Quick => (1, 0),
        Size::Whole => (40, 7),
    };
    let home =
        tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on the disk of the build");
    let yard = Yard::new(home.path());
    let samples = yard.rounds(SectorSize::KiB2, small);
    show("2 KiB", &samples, |sample| {
        let over = sample.managed - sample.bare;
        format!("{over:>8.1} ms over   <= {OVER_MOST} ms   {}", verdict(over <= OVER_MOST))
    });
    if large > 0 {
        let samples = yard.rounds(SectorSize::MiB8, large);
        show("8 MiB", &samples, |sample| {
            let times = sample.managed / sample.bare;
            format!("{times:>8.3} times     <= {TIMES_MOST}    {}", verdict(times <= TIMES_MOST))
        });
    }
}

/// A manager and a worker, each a process.
struct Yard<'a> {
    home: &'a Path,
    _worker: Daemon,
    _manager: Daemon,
}

impl<'a> Yard<'a> {
    fn new(home: &'a Path) -> Self {
        let manager = yard::manager(home, "2KiB");
        let worker = yard::worker(home, "A", &["--addpiece", "--precommit1", "--precommit2"]);
        Self { home, _worker: worker, _manager: manager }
    }

    /// The four stages' samples, round by round.
    fn rounds(&self, size: SectorSize, rounds: usize) -> Vec<[Sample; 4]> {
        let one = |round: usize| {
            // Nor are they started beside what is timed.
            spares::ready(self.home, "A");
            let managed = self.managed(size);
            spares::ready(self.home, "A");
            let dir = self.home.join("bare");
            let (executor, bare) = (seal(&dir, size, By::Executor), seal(&dir, size, By::Call));
            let sample = |at: usize| {
                let (managed, working) = managed[at];
                Sample { managed, working, executor: executor[at], bare: bare[at] }
            };
            (round >= WARMING).then(|| [0, 1, 2, 3].map(sample))
        };
        (0..rounds + WARMING).filter_map(one).collect()
    }

    /// Seals a sector through the manager: what each stage took, and of that its executor.
    fn managed(&self, size: SectorSize) -> [(f64, f64); 4] {
        let size = size.to_string();
        let pledge = ["sectors", "pledge", "--until", "c1", "--sector-size", &size];
        let said = ok(sealyard(self.home).args(pledge));
        let number: i64 =
            said.trim().rsplit(' ').next().and_then(|word| word.parse().ok()).expect("a number");
        // Not by commands: they would take processors from what is timed.
        let state = Connection::open_with_flags(
            self.home.join(".sealyard/state.db"),
            OpenFlags::SQLITE_OPEN_READ_ONLY,
        )
        .expect("the manager's state");
        let took = |kind: &str| {
            let sql = "SELECT a.ended_ms - a.bound_ms, a.ended_ms - a.started_ms FROM attempt a JOIN task t ON t.id = a.task
                       WHERE t.number = ?1 AND t.kind = ?2 AND a.state = 'done' AND t.ended_ms > 0";
            state.query_row(sql, (number, kind), |row| Ok((row.get(0)?, row.get(1)?))).ok()
        };
        let (last, _) = TASKS[3];
        let is_done = |took: &Option<(f64, f64)>| took.is_some();
        ask_until("Commit1", SEALING_MAX, || took(last), is_done);
        TASKS.map(|(kind, _)| took(kind).unwrap_or_else(|| panic!("{kind} of sector {number} was done once")))
    }
}

fn show(size: &str, rounds: &[[Sample; 4]], judged: impl Fn(&Sample) -> String) {
    println!("a sector of {size}, {} rounds of three ways in turns, medians in ms", rounds.len());
    println!(
        "    {:<5}{:>20}{:>14}{:>16}{:>12}",
        "", "placed to accepted", "of that work", "executor alone", "bare call"
    );
    for (at, (_, stage)) in TASKS.iter().enumerate() {
        let middle = |of: fn(&Sample) -> f64| median(rounds.iter().map(|round| of(&round[at])).collect());
        let sample = Sample {
            managed: middle(|sample| sample.managed),
            working: middle(|sample| sample.working),
            executor: middle(|sample| sample.executor),
            bare: middle(|sample| sample.bare),
        };
        let stage = stage.to_ascii_uppercase();
        let Sample { managed, working, executor, bare } = sample;
        println!(
            "    {stage:<5}{managed:>20.1}{working:>14.1}{executor:>16.1}{bare:>12.2}   {}",
            judged(&sample)
        );
    }
}

//! Makespan over its lower bound, for our core and for the model of Lotus, on the traces that ship and on fresh seeds.
//!
//! `cargo bench -p sched --bench makespan [-- --seeds N] [-- --from SEED] [-- --threads N]`. The clock is virtual: what is
//! measured is how good the decisions are, not how fast. "Life" is how long a sector is under way on average.

#![expect(clippy::print_stdout, reason = "the table is what it is for")]

use std::env::args;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use sched::sim::bound::{Bound, lower_bound};
use sched::sim::lotus::{Lotus, LotusOptions};
use sched::sim::trace::{SHIPPED, Trace};
use sched::sim::{Engine, Report, Scheduler, Settings};
use sched::{Options, Sched};
use sealtasks::ResourceTable;

/// Goals of the issue.
const MEAN_MOST: f64 = 1.05;
const P99_MOST: f64 = 1.15;
/// Not more than this worse than Lotus, on this share of traces.
const WORSE_MOST: f64 = 1.01;
const WORSE_SHARE: f64 = 0.99;

/// What came of one trace.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    seed: u64,
    workers: usize,
    sectors: usize,
    bound: Bound,
    ours: u64,
    lotus: u64,
    /// Milliseconds that a sector is under way on average, with ours and with Lotus's.
    lives: (u64, u64),
}

impl Outcome {
    fn over_bound(&self) -> f64 {
        self.ours as f64 / self.bound.makespan().get() as f64
    }

    fn lotus_over_bound(&self) -> f64 {
        self.lotus as f64 / self.bound.makespan().get() as f64
    }

    fn over_lotus(&self) -> f64 {
        self.ours as f64 / self.lotus as f64
    }
}

fn main() -> ExitCode {
    let fresh = number("--seeds").unwrap_or(1000);
    let from = number("--from").unwrap_or(1_000_000);
    let threads = number("--threads").unwrap_or(2).max(1);
    println!(
        "makespan over its lower bound; virtual time, 32 GiB sectors, distributions in sched/src/sim/trace.rs"
    );
    println!("shipped traces:");
    println!(
        "    seed workers sectors  bound h   ours h  lotus h  ours/LB lotus/LB ours/lotus  life h   lotus  bound by"
    );
    let start = Instant::now();
    let shipped = measure(&SHIPPED, threads);
    for one in &shipped {
        line(one);
    }
    let mut reached = verdict("shipped", &shipped);
    if fresh > 0 {
        let seeds: Vec<u64> = (from..from + fresh).collect();
        let outcomes = measure(&seeds, threads);
        reached &= verdict("fresh seeds", &outcomes);
        println!("the ten worst by ours/LB:");
        let mut worst = outcomes.clone();
        worst.sort_by(|a, b| b.over_bound().total_cmp(&a.over_bound()));
        worst.iter().take(10).for_each(line);
        println!("the ten worst by ours/lotus:");
        worst.sort_by(|a, b| b.over_lotus().total_cmp(&a.over_lotus()));
        worst.iter().take(10).for_each(line);
    }
    println!("took {:.0} s on {threads} threads", start.elapsed().as_secs_f64());
    if reached { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn number(name: &str) -> Option<u64> {
    let mut words = args().skip_while(|word| word != name).skip(1);
    words.next()?.parse().ok()
}

fn measure(seeds: &[u64], threads: u64) -> Vec<Outcome> {
    let next = AtomicU64::new(0);
    let mut all: Vec<Outcome> = std::thread::scope(|scope| {
        let worker = || {
            let mut mine = Vec::new();
            while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                mine.push(compare(*seed));
            }
            mine
        };
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        handles.into_iter().flat_map(|handle| handle.join().expect("no trace panics")).collect()
    });
    all.sort_by_key(|outcome| outcome.seed);
    all
}

fn compare(seed: u64) -> Outcome {
    let trace = Trace::drawn(seed);
    let bound = lower_bound(&trace.cluster, &trace.workload, &ResourceTable::builtin());
    let bound = bound.expect("every trace can be done");
    let ours = run(Sched::new(Options { seed, ..Options::default() }), &trace);
    let lotus = run(Lotus::new(LotusOptions { seed, ..LotusOptions::default() }), &trace);
    Outcome {
        seed,
        workers: trace.cluster.workers.len(),
        sectors: trace.workload.jobs.len(),
        bound,
        ours: ours.makespan.get(),
        lotus: lotus.makespan.get(),
        lives: (mean_life(&ours), mean_life(&lotus)),
    }
}

fn run<S: Scheduler>(scheduler: S, trace: &Trace) -> Report {
    let engine = Engine::new(scheduler, &trace.cluster, trace.workload.clone(), Settings::default(), ());
    let report = engine.run().expect("nothing watches");
    assert_eq!((report.unfinished, report.failed), (0, 0), "seed {}: every sector ends", trace.seed);
    report
}

/// Milliseconds from a sector's arrival to its end, on average.
fn mean_life(report: &Report) -> u64 {
    let lives = report.sectors.iter().map(|sector| sector.to.get() - sector.from.get());
    lives.sum::<u64>() / report.sectors.len().max(1) as u64
}

fn line(one: &Outcome) {
    let hours = |millis: u64| millis as f64 / 3_600_000.0;
    println!(
        "{:>8} {:>4} {:>7} {:>8.2} {:>8.2} {:>8.2} {:>8.4} {:>8.4} {:>10.4} {:>7.1} {:>7.1}  {}",
        one.seed,
        one.workers,
        one.sectors,
        hours(one.bound.makespan().get()),
        hours(one.ours),
        hours(one.lotus),
        one.over_bound(),
        one.lotus_over_bound(),
        one.over_lotus(),
        hours(one.lives.0),
        hours(one.lives.1),
        one.bound.limit(),
    );
}

/// Prints the figures beside the goals. Returns whether all are reached.
fn verdict(what: &str, outcomes: &[Outcome]) -> bool {
    let count = outcomes.len() as f64;
    let mut over: Vec<f64> = outcomes.iter().map(Outcome::over_bound).collect();
    over.sort_by(f64::total_cmp);
    let mean = over.iter().sum::<f64>() / count;
    let lotus = outcomes.iter().map(Outcome::lotus_over_bound).sum::<f64>() / count;
    let p99 = over[(over.len() * 99).div_ceil(100) - 1];
    let not_worse = outcomes.iter().filter(|one| one.over_lotus() <= WORSE_MOST).count() as f64 / count;
    let word = |good: bool| if good { "reached" } else { "NOT reached" };
    let goals = [mean <= MEAN_MOST, p99 <= P99_MOST, not_worse >= WORSE_SHARE];
    println!("{what}: {} traces, Lotus's mean {lotus:.4}", outcomes.len());
    println!("  mean      {mean:.4}  goal at most {MEAN_MOST}: {}", word(goals[0]));
    println!("  p99       {p99:.4}  goal at most {P99_MOST}: {}", word(goals[1]));
    println!(
        "  at most 1 % worse than Lotus on {:.1} %  goal {:.0} %: {}",
        not_worse * 100.0,
        WORSE_SHARE * 100.0,
        word(goals[2])
    );
    goals.iter().all(|goal| *goal)
}

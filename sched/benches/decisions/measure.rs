//! The measurements. Each makes its own state, warms it and then measures one thing.

use std::fs::read_to_string;
use std::hint::black_box;
use std::time::{Duration, Instant};

use sched::sim::lotus::{Lotus, LotusOptions};
use sched::{Event, Millis, Sched};

use crate::trace::Cluster;

/// So many attempts end at once: as many as the manager tells the scheduler of before it handles the first.
const BATCH: u64 = Sched::LOOK_AHEAD_MOST as u64;
/// Of so many decisions one waiting task is cancelled.
const CANCEL_EVERY: u64 = 100;
/// The model of Lotus is not run for longer.
const LOTUS_TIME_MOST: Duration = Duration::from_secs(20);

/// How fast decisions come, and how long each takes.
#[derive(Clone, Copy, Debug)]
pub struct Decisions {
    /// Nanoseconds per decision, by the clock.
    pub wall: f64,
    /// Nanoseconds per decision that this thread was on a CPU; 0: the system does not tell.
    pub cpu: f64,
    pub p50: Duration,
    pub p99: Duration,
    /// Tasks that run.
    pub running: usize,
}

impl Decisions {
    /// Nanoseconds per decision on one core of its own.
    pub fn nanos(&self) -> f64 {
        if self.cpu > 0.0 { self.cpu } else { self.wall }
    }
}

/// A full cluster in which attempts end, the oldest first, [`BATCH`] at once. Inside the timer: `look_ahead` for each
/// batch, then for each end `handle(Ended)`, the draining of the actions, `handle(Started)` for each `Start`, and one
/// `Cancel` per hundred ends. The quantiles are of ends that come alone, without a look ahead. Outside: the submission of as many
/// tasks as have left, after every tenth of the queue or every thousand ends.
pub fn decisions(tasks: u64, workers: u64, wanted: u64) -> Decisions {
    let mut cluster = Cluster::new(tasks, workers);
    let chunk = (tasks / 10).clamp(1, 1000);
    let mut warm = 2 * cluster.running() as u64;
    while warm > 0 {
        (0..chunk).for_each(|_| {
            cluster.turn();
        });
        cluster.refill();
        warm = warm.saturating_sub(chunk);
    }
    let (mut starts, mut wall, mut cpu, mut turns) = (0, Duration::ZERO, 0, 0);
    while starts < wanted {
        let (at, before) = (Instant::now(), on_cpu());
        for turn in 0..chunk {
            if turn % BATCH == 0 {
                cluster.look_ahead();
            }
            turns += 1;
            starts += cluster.turn();
            if turns % CANCEL_EVERY == 0 {
                let task = cluster.some_waiting();
                cluster.cancel(task);
            }
        }
        wall += at.elapsed();
        cpu += on_cpu() - before;
        cluster.refill();
    }
    let mut each = Vec::new();
    while (each.len() as u64) < wanted / 4 {
        for _ in 0..chunk {
            let at = Instant::now();
            let started = cluster.turn();
            let took = at.elapsed();
            each.extend((started > 0).then_some(took));
        }
        cluster.refill();
    }
    let per = |nanos: f64| nanos / starts as f64;
    let (p50, p99) = (quantile(&mut each, 50), quantile(&mut each, 99));
    let running = cluster.running();
    Decisions { wall: per(wall.as_nanos() as f64), cpu: per(cpu as f64), p50, p99, running }
}

/// What coming and going costs at a depth of so many tasks: the medians of submitting a task that has to wait and of
/// cancelling it, and median and 99th percentile from submitting a task that a worker is free for to its `Start`.
#[derive(Clone, Copy, Debug)]
pub struct Latencies {
    pub enqueue: Duration,
    pub cancel: Duration,
    pub start_p50: Duration,
    pub start_p99: Duration,
}

/// As [`Latencies`] says. Requests are made outside the timers.
pub fn latencies(tasks: u64, workers: u64, samples: usize) -> Latencies {
    let mut cluster = Cluster::new(tasks, workers);
    let (mut enqueue, mut cancel, mut start) = (Vec::new(), Vec::new(), Vec::new());
    while enqueue.len() < samples {
        let kind = cluster.any_kind();
        let (starts, (_, event)) = (cluster.starts(), cluster.submission(kind));
        let at = Instant::now();
        cluster.send(event);
        let took = at.elapsed();
        if cluster.starts() == starts {
            enqueue.push(took);
        }
        let task = cluster.some_waiting();
        let at = Instant::now();
        cluster.cancel(task);
        cancel.push(at.elapsed());
    }
    for _ in 0..samples {
        let (starts, (_, event)) = (cluster.starts(), cluster.quick());
        let at = Instant::now();
        cluster.send(event);
        start.push(at.elapsed());
        assert_eq!(cluster.starts(), starts + 1, "a worker was free for it");
        cluster.end_last();
    }
    let (start_p50, start_p99) = (quantile(&mut start, 50), quantile(&mut start, 99));
    Latencies { enqueue: quantile(&mut enqueue, 50), cancel: quantile(&mut cancel, 50), start_p50, start_p99 }
}

/// Bytes of this process's memory per waiting task, in a fresh process, beyond the benchmark's own books.
pub fn bytes_per_task(tasks: u64, workers: u64) -> f64 {
    let mut cluster = Cluster::new(1_000, workers);
    let waiting = cluster.waiting();
    // Some of what is submitted starts at once.
    cluster.make_room(2 * tasks as usize);
    let before = resident();
    cluster.fill(tasks + waiting);
    let after = resident();
    black_box(&cluster.sched);
    after.saturating_sub(before) as f64 / tasks as f64
}

/// What the model of Lotus needs on the same trace.
#[derive(Clone, Copy, Debug)]
pub struct Theirs {
    /// Nanoseconds per waiting task and open window, over the first cycle, in which all windows are open.
    pub per_pair: f64,
    /// Nanoseconds per task that starts when one ends, as [`decisions`] measures ours.
    pub per_start: f64,
}

/// As [`Theirs`] says. The queue is filled while Lotus still waits for its workers to come, or filling it would take a
/// cycle per task.
pub fn lotus(tasks: u64, workers: u64, wanted: u64) -> Theirs {
    const READY: Millis = Millis::new(10_000);
    let options = LotusOptions { init_wait: Millis::new(1_000), ..LotusOptions::default() };
    let mut cluster = Cluster::of(Lotus::new(options), workers);
    cluster.fill(tasks);
    let before = on_cpu();
    cluster.send_at(READY, Event::Tick);
    let per_pair = (on_cpu() - before) as f64 / cluster.sched.work().pairs.max(1) as f64;
    cluster.fill(tasks);
    let (at, before, first) = (Instant::now(), on_cpu(), cluster.starts());
    while cluster.starts() - first < wanted && at.elapsed() < LOTUS_TIME_MOST {
        cluster.turn();
    }
    let (spent, starts) = ((on_cpu() - before) as f64, (cluster.starts() - first).max(1));
    Theirs { per_pair, per_start: spent / starts as f64 }
}

fn quantile(all: &mut [Duration], percent: usize) -> Duration {
    all.sort_unstable();
    all.get(all.len() * percent / 100).copied().unwrap_or_default()
}

/// Nanoseconds that this thread has been on a CPU.
fn on_cpu() -> u64 {
    let text = read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
}

/// Bytes of memory that this process has now.
fn resident() -> u64 {
    let text = read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map_or(0, |kib| kib * 1024)
}

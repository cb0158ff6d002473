//! What the scheduler costs with T tasks waiting and W workers, beside the goals, in one table.
//!
//! `cargo bench -p sched --bench decisions [-- --quick | -- --cell T W | -- --coming T]`. A decision is one placement: an
//! attempt ends, and the core decides what takes its slot (`Start` with its whole plan). `--quick` runs a corner of the table in seconds. Figures are
//! of one thread; where the system tells how long that thread was on a CPU, throughput is per second of that, so that
//! other programs cost only what they do to the caches. Quantiles are by the clock, with a reading of it in each sample.

#![expect(clippy::print_stdout, reason = "the table is what it is for")]

mod measure;
mod trace;

use std::env::{args, current_exe};
use std::fs::read_to_string;
use std::process::{Command, ExitCode};
use std::time::Duration;

use measure::Decisions;

const TASKS: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];
const WORKERS: [u64; 4] = [10, 100, 1_000, 10_000];
/// Decisions measured per cell of the table.
const DECISIONS: u64 = 200_000;
const SAMPLES: usize = 50_000;

/// Goals, as the issue and the list of figures state them.
const RATE_LEAST: f64 = 1e6;
const SLOWER_BY_TASKS_MOST: f64 = 4.0;
const SLOWER_BY_WORKERS_MOST: f64 = 2.0;
const ENQUEUE_MOST: Duration = Duration::from_micros(1);
const CANCEL_MOST: Duration = Duration::from_micros(1);
const START_P50_MOST: Duration = Duration::from_micros(50);
const START_P99_MOST: Duration = Duration::from_millis(1);
const BYTES_MOST: f64 = 300.0;
/// Above this cost per task and window the model of Lotus is no fair comparison.
const LOTUS_PAIR_MOST: f64 = 1000.0;
/// Tasks, workers, and by what factor ours is to be faster.
const LOTUS: [(u64, u64, f64); 2] = [(16_000, 100, 1000.0), (1_000, 1_000, 300.0)];

fn main() -> ExitCode {
    let arguments: Vec<_> = args().skip(1).collect();
    // What cargo itself hands to a benchmark is no request of ours.
    let wanted: Vec<_> = arguments.iter().map(String::as_str).filter(|wanted| *wanted != "--bench").collect();
    match wanted[..] {
        ["--memory", tasks] => {
            let tasks = tasks.parse().unwrap_or(0);
            println!("{}", measure::bytes_per_task(tasks, 100));
        }
        ["--coming", tasks] => {
            println!("{}", machine());
            coming_and_going(&[tasks.parse().unwrap_or(1_000)], SAMPLES);
        }
        ["--cell", tasks, workers] => {
            let (tasks, workers) = (tasks.parse().unwrap_or(1_000), workers.parse().unwrap_or(100));
            println!("{}", machine());
            decisions(&[tasks], &[workers], DECISIONS);
        }
        _ => {
            let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
            // `cargo bench` says so; `cargo test` only sees to it that the benchmark still runs.
            table(has("--quick") || !has("--bench"));
        }
    }
    ExitCode::SUCCESS
}

fn table(quick: bool) {
    println!("{}", machine());
    println!("inside the timer: Ended, all actions drained, Started per Start, one Cancel per 100 ends");
    println!("outside: Submit, which keeps T as it is; staging is off; 8 task types, 2 sizes,");
    println!("1 000 paths of inputs and one per worker; 1 of 1 000 tasks is due when it comes\n");
    let (tasks, workers) = if quick { (&TASKS[..2], &WORKERS[..2]) } else { (&TASKS[..], &WORKERS[..]) };
    let (wanted, samples) = if quick { (5_000, 1_000) } else { (DECISIONS, SAMPLES) };
    let cells = decisions(tasks, workers, wanted);
    let deepest = cells.last().expect("a table has rows");
    println!();
    let corner = deepest.last().map_or(0.0, Decisions::nanos);
    let (t, w) = (tasks[tasks.len() - 1], workers[workers.len() - 1]);
    let rate = 1e9 / corner;
    row(&format!("decisions/s at T={t} W={w}"), &format!("{rate:.0}"), ">= 1000000", rate >= RATE_LEAST);
    let worst_of = |ratios: Vec<f64>| ratios.into_iter().fold(0.0, f64::max);
    let by_tasks =
        worst_of((0..workers.len()).map(|at| deepest[at].nanos() / cells[0][at].nanos()).collect());
    let name = format!("slower from T={} to {t}, worst W", tasks[0]);
    row(&name, &format!("{by_tasks:.2} times"), "<= 4", by_tasks <= SLOWER_BY_TASKS_MOST);
    let from = workers.iter().position(|workers| *workers == 100).unwrap_or(0);
    let by_workers =
        worst_of(cells.iter().map(|row| row[row.len() - 1].nanos() / row[from].nanos()).collect());
    let name = format!("slower from W={} to {w}, worst T", workers[from]);
    row(&name, &format!("{by_workers:.2} times"), "<= 2", by_workers <= SLOWER_BY_WORKERS_MOST);
    coming_and_going(tasks, samples);
    memory(t);
    for (tasks, workers, goal) in if quick { &LOTUS[1..] } else { &LOTUS[..] } {
        beside_lotus(*tasks, *workers, *goal, wanted);
    }
}

fn decisions(tasks: &[u64], workers: &[u64], wanted: u64) -> Vec<Vec<Decisions>> {
    let heads = ["T", "W", "ns on CPU", "ns by clock", "decisions/s", "p50", "p99", "running"];
    println!(
        "{:>8} {:>6} {:>10} {:>12} {:>12} {:>10} {:>10} {:>8}",
        heads[0], heads[1], heads[2], heads[3], heads[4], heads[5], heads[6], heads[7]
    );
    let cell = |tasks: u64, workers: u64| {
        let it = measure::decisions(tasks, workers, wanted);
        let rate = 1e9 / it.nanos();
        println!(
            "{tasks:>8} {workers:>6} {:>10.0} {:>12.0} {rate:>12.0} {:>10.2?} {:>10.2?} {:>8}",
            it.cpu, it.wall, it.p50, it.p99, it.running
        );
        it
    };
    tasks.iter().map(|tasks| workers.iter().map(|workers| cell(*tasks, *workers)).collect()).collect()
}

fn coming_and_going(tasks: &[u64], samples: usize) {
    for tasks in tasks {
        let it = measure::latencies(*tasks, 100, samples);
        let name = format!("enqueue at T={tasks}, median");
        row(&name, &format!("{:.2?}", it.enqueue), "<= 1 us", it.enqueue <= ENQUEUE_MOST);
        let name = format!("cancel at T={tasks}, median");
        row(&name, &format!("{:.2?}", it.cancel), "<= 1 us", it.cancel <= CANCEL_MOST);
        let name = format!("submit to start at T={tasks}, median");
        row(&name, &format!("{:.2?}", it.start_p50), "<= 50 us", it.start_p50 <= START_P50_MOST);
        let name = format!("submit to start at T={tasks}, p99");
        row(&name, &format!("{:.2?}", it.start_p99), "<= 1 ms", it.start_p99 <= START_P99_MOST);
    }
}

/// In a process of its own, whose memory nothing else has touched.
fn memory(tasks: u64) {
    let child =
        current_exe().and_then(|exe| Command::new(exe).args(["--memory", &tasks.to_string()]).output());
    let told =
        child.ok().and_then(|output| String::from_utf8(output.stdout).ok()?.trim().parse::<f64>().ok());
    let name = format!("memory per waiting task at T={tasks}");
    match told {
        Some(bytes) => row(&name, &format!("{bytes:.0} B"), "<= 300 B", bytes <= BYTES_MOST),
        None => row(&name, "not measured", "<= 300 B", false),
    }
}

fn beside_lotus(tasks: u64, workers: u64, goal: f64, wanted: u64) {
    let (theirs, ours) =
        (measure::lotus(tasks, workers, wanted.min(1_000)), measure::decisions(tasks, workers, wanted));
    println!(
        "the model of Lotus at T={tasks} W={workers}: {:.0} ns per task and window, {:.0} ns per start; ours {:.0} ns",
        theirs.per_pair,
        theirs.per_start,
        ours.nanos()
    );
    let name = format!("decisions/s over Lotus's at T={tasks} W={workers}");
    if theirs.per_pair > LOTUS_PAIR_MOST {
        row(&name, "void: its model is too slow", &format!(">= {goal:.0}"), false);
    } else {
        let ratio = theirs.per_start / ours.nanos();
        row(&name, &format!("{ratio:.0} times"), &format!(">= {goal:.0}"), ratio >= goal);
    }
}

fn row(name: &str, measured: &str, goal: &str, reached: bool) {
    println!(
        "{name:<46} {measured:>14}   goal {goal:<11} {}",
        if reached { "reached" } else { "NOT reached" }
    );
}

/// What it runs on, and what else runs there.
fn machine() -> String {
    let processors = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let count = processors.lines().filter(|line| line.starts_with("processor")).count();
    let load = read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').take(3).collect::<Vec<_>>().join(" ");
    format!("{count} x {}; load {load}", model.unwrap_or("unknown processor"))
}

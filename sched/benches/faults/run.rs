//! Plays many fault schedules and prints what they went through.
//!
//! `cargo run --release -p sched --example faults -- --schedules 1000000 --seed 1 --threads 2` is the full run. A
//! schedule that breaks a rule is made shorter and recorded; `--replay FILE` plays the record to the same violation. The
//! run fails where a rule was broken and where anything that must be seen was not. A schedule in which less happened than
//! must is played and checked like any other, but not counted: one more takes its place. `--expect-violation` turns it round: it is for planted bugs, and fails where none was found. `--brief` says
//! one line.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use sched::sim::Violation;
use sched::sim::faults::{Coverage, Entry, Schedule, replay, run, shorten};

/// A schedule with fewer events does not count.
const EVENTS_MIN: u64 = 500;
/// So many runs are spent on making one failing schedule shorter.
const SHORTEN_RUNS: usize = 2000;
/// Below this many schedules a way that was not seen is no wonder.
const ALL_SEEN_FROM: u64 = 100_000;

struct Arguments {
    schedules: u64,
    seed: u64,
    threads: u64,
    check_every: u64,
    replay: Option<String>,
    record: String,
    expect_violation: bool,
    brief: bool,
}

fn arguments() -> Result<Arguments, String> {
    let mut arguments = Arguments {
        schedules: 10_000,
        seed: 1,
        threads: 1,
        check_every: 24,
        replay: None,
        record: "faults.jsonl".to_owned(),
        expect_violation: false,
        brief: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(name) = words.next() {
        if name == "--expect-violation" {
            arguments.expect_violation = true;
            continue;
        }
        if name == "--brief" {
            arguments.brief = true;
            continue;
        }
        let value = words.next().ok_or_else(|| format!("{name} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{name} {value}: expected a whole number"));
        match name.as_str() {
            "--schedules" => arguments.schedules = number()?,
            "--seed" => arguments.seed = number()?,
            "--threads" => arguments.threads = number()?.max(1),
            "--check-every" => arguments.check_every = number()?.max(1),
            "--replay" => arguments.replay = Some(value),
            "--record" => arguments.record = value,
            _ => {
                return Err(format!(
                    "{name}: expected --schedules, --seed, --threads, --check-every, --replay, --record, \
                     --expect-violation or --brief"
                ));
            }
        }
    }
    Ok(arguments)
}

/// What one thread found.
#[derive(Default)]
struct Share {
    coverage: Coverage,
    /// Schedules that were too small to count.
    small: u64,
    failure: Option<(u64, Violation)>,
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    if let Some(file) = &arguments.replay {
        return play_again(file);
    }
    // A scheduler that panics is a finding; what it said stands in the violation.
    std::panic::set_hook(Box::new(|_| {}));
    let begin = Instant::now();
    let Share { coverage, small, failure } = all(&arguments);
    let seconds = begin.elapsed().as_secs_f64();
    if arguments.brief {
        return brief(&arguments, &coverage, failure);
    }
    print!("{}", table(&coverage));
    println!(
        "{} schedules, {} events, fewest {} in one, {small} smaller ones not counted; {:.0} s on {} threads, {:.0} schedules/s, {:.2} µs per event",
        coverage.schedules,
        coverage.events(),
        coverage.events_min,
        seconds,
        arguments.threads,
        coverage.schedules as f64 / seconds,
        seconds * 1e6 * arguments.threads as f64 / coverage.events().max(1) as f64
    );
    match failure {
        Some((seed, violation)) => {
            report_failure(&arguments, seed, &violation);
            ExitCode::from(u8::from(!arguments.expect_violation))
        }
        None if arguments.expect_violation => {
            println!("NOT caught in {} schedules", coverage.schedules);
            ExitCode::FAILURE
        }
        None => verdict(&coverage),
    }
}

/// One line, and no time spent on making a failing schedule shorter.
fn brief(arguments: &Arguments, coverage: &Coverage, failure: Option<(u64, Violation)>) -> ExitCode {
    let is_well = failure.is_some() == arguments.expect_violation;
    match failure {
        Some((seed, violation)) => {
            println!("after {} schedules, seed {seed}: {violation}", coverage.schedules)
        }
        None => println!("no rule was broken in {} schedules", coverage.schedules),
    }
    if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn all(arguments: &Arguments) -> Share {
    let (next, small) = (AtomicU64::new(0), AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    let one = || {
        let mut share = Share::default();
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= arguments.schedules + small.load(Ordering::Relaxed) {
                break;
            }
            let seed = arguments.seed.wrapping_add(number);
            match run(&Schedule::from_seed(seed), arguments.check_every, None) {
                Ok(coverage) if coverage.events_min < EVENTS_MIN => {
                    small.fetch_add(1, Ordering::Relaxed);
                }
                Ok(coverage) => share.coverage.add(&coverage),
                Err(violation) => {
                    stop.store(true, Ordering::Relaxed);
                    share.failure = Some((seed, violation));
                }
            }
        }
        share
    };
    let shares: Vec<Share> = thread::scope(|scope| {
        let handles: Vec<_> = (0..arguments.threads).map(|_| scope.spawn(one)).collect();
        handles.into_iter().map(|handle| handle.join().expect("a thread that catches all panics")).collect()
    });
    let mut whole = Share { small: small.into_inner(), ..Share::default() };
    shares.iter().for_each(|share| whole.coverage.add(&share.coverage));
    whole.failure = shares.into_iter().filter_map(|share| share.failure).min_by_key(|(seed, _)| *seed);
    whole
}

fn table(coverage: &Coverage) -> String {
    let mut text = String::new();
    for (group, name, count) in coverage.rows() {
        let _ = writeln!(text, "{group:<7}{name:<40}{count:>14}");
    }
    for (from, to, count) in coverage.other_ways() {
        let _ = writeln!(text, "other  {:<40}{count:>14}", format!("{from:?} to {to:?}"));
    }
    text
}

fn verdict(coverage: &Coverage) -> ExitCode {
    let unseen: Vec<_> = coverage.rows().into_iter().filter(|(_, _, count)| *count == 0).collect();
    for (group, name, _) in &unseen {
        println!("never seen: {group} {name}");
    }
    if !unseen.is_empty() && coverage.schedules >= ALL_SEEN_FROM {
        return ExitCode::FAILURE;
    }
    println!("no rule was broken");
    ExitCode::SUCCESS
}

fn report_failure(arguments: &Arguments, seed: u64, violation: &Violation) {
    println!("seed {seed} broke a rule: {violation}");
    let schedule = Schedule::from_seed(seed);
    let (faults, jobs) = (schedule.faults.len(), schedule.jobs.len());
    let schedule = shorten(&schedule, arguments.check_every, SHORTEN_RUNS);
    // With all books compared after each event the shortened run fails where the mistake is, not where it shows.
    let fails_at_once = run(&schedule, 1, None).is_err_and(|other| other.rule == violation.rule);
    let check_every = if fails_at_once { 1 } else { arguments.check_every };
    let entries = Rc::new(RefCell::new(Vec::new()));
    if let Err(violation) = run(&schedule, check_every, Some(entries.clone())) {
        println!("shortened: {violation}");
    }
    let lines: Result<String, _> =
        entries.borrow().iter().map(|entry| serde_json::to_string(entry).map(|line| line + "\n")).collect();
    println!(
        "{faults} faults and {jobs} jobs became {} and {}; {} lines in {}",
        schedule.faults.len(),
        schedule.jobs.len(),
        entries.borrow().len(),
        arguments.record
    );
    match lines
        .map_err(|error| error.to_string())
        .and_then(|lines| fs::write(&arguments.record, lines).map_err(|error| error.to_string()))
    {
        Ok(()) => println!("play it again with --replay {}", arguments.record),
        Err(error) => eprintln!("error: {} could not be written: {error}", arguments.record),
    }
}

fn play_again(file: &str) -> ExitCode {
    let entries = match read(file) {
        Ok(entries) => entries,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    match replay(&entries) {
        Ok(()) => {
            println!("no rule was broken in {} lines", entries.len());
            ExitCode::SUCCESS
        }
        Err(violation) => {
            println!("{violation}");
            ExitCode::FAILURE
        }
    }
}

fn read(file: &str) -> Result<Vec<Entry>, String> {
    let open = fs::File::open(file).map_err(|error| format!("{file}: {error}"))?;
    let line = |(number, line): (usize, Result<String, std::io::Error>)| {
        let text = line.map_err(|error| format!("{file}:{}: {error}", number + 1))?;
        serde_json::from_str(&text).map_err(|error| format!("{file}:{}: {error}", number + 1))
    };
    BufReader::new(open).lines().enumerate().map(line).collect()
}

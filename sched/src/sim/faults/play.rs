//! Playing a schedule, and making one that fails shorter.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::coverage::Coverage;
use super::log::{Entries, Entry, Recorder};
use super::schedule::Schedule;
use crate::Sched;
use crate::sim::{Engine, Settings, Violation};

/// No schedule needs as many steps; beyond it nothing moves but the schedule itself.
const STEPS_MAX: u64 = 200_000;

/// Plays a schedule to its end and checks that everything drained. All books are compared every `check_every` events.
///
/// # Errors
/// The first rule that was broken; a panic of the scheduler counts as the rule `panic`.
pub fn run(schedule: &Schedule, check_every: u64, entries: Option<Entries>) -> Result<Coverage, Violation> {
    let played = catch_unwind(AssertUnwindSafe(|| play(schedule, check_every, entries)));
    played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Violation { rule: "panic", detail: text.unwrap_or_default() })
    })
}

fn play(schedule: &Schedule, check_every: u64, entries: Option<Entries>) -> Result<Coverage, Violation> {
    let options = schedule.options();
    let recorder = Recorder::new(&options, check_every, entries);
    let settings = Settings { seed: schedule.seed, ..Settings::default() };
    let scheduler = Sched::new(options.clone());
    let mut engine = Engine::new(scheduler, &schedule.cluster, schedule.workload(), settings, recorder);
    engine.takes_over(move || Sched::new(options.clone()));
    for (at, trouble) in schedule.troubles() {
        engine.trouble(at, trouble);
    }
    let mut steps = 0u64;
    while engine.step()? {
        steps += 1;
        if steps > STEPS_MAX {
            let detail = format!("{STEPS_MAX} steps, and it is still {}", engine.now());
            return Err(Violation { rule: "livelock", detail });
        }
    }
    engine.watch_mut().put(|| Entry::Drained);
    let (recorder, scheduler) = engine.watched();
    recorder.oracle.check_drained(scheduler)?;
    let mut coverage = recorder.oracle.coverage().clone();
    coverage.schedules = 1;
    coverage.events_min = recorder.oracle.events();
    for fault in &schedule.faults {
        *coverage.faults.entry(fault.kind).or_default() += 1;
    }
    Ok(coverage)
}

/// A schedule that breaks the same rule with fewer faults and jobs, found by leaving parts out. At most `runs` are tried.
pub fn shorten(schedule: &Schedule, check_every: u64, runs: usize) -> Schedule {
    let Err(first) = run(schedule, check_every, None) else { return schedule.clone() };
    let mut left = runs;
    let mut still_fails = |tried: &Schedule| {
        left = left.saturating_sub(1);
        left > 0 && run(tried, check_every, None).is_err_and(|violation| violation.rule == first.rule)
    };
    let mut best = schedule.clone();
    // Faults first: without them most of the work is beside the point.
    for part in [true, false, true, false] {
        let count = |schedule: &Schedule| if part { schedule.faults.len() } else { schedule.jobs.len() };
        let mut chunk = count(&best).div_ceil(2);
        while chunk > 0 {
            let mut from = 0;
            while from < count(&best) {
                let mut tried = best.clone();
                let to = (from + chunk).min(count(&best));
                if part {
                    tried.faults.drain(from..to);
                } else {
                    tried.jobs.drain(from..to);
                }
                if still_fails(&tried) {
                    best = tried;
                } else {
                    from = to;
                }
            }
            chunk /= 2;
        }
    }
    best
}

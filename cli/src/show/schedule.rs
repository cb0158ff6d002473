//! `sealing sched-diag` for people, and `sealing durations`.

use rpc::Miners;
use rpc::explain::{HeldView, QueuedView, Schedule};
use rpc::extension::{DurationView, WorkerView};
use serde::Serialize;

use super::{age, bytes, line, paint, plain, print_json};
use crate::exit::Outcome;

/// Prints the counts, the queue, the places that are kept and what each worker holds.
pub fn print_schedule(schedule: &Schedule, miners: &Miners) -> Outcome {
    let now = schedule.now_ms;
    let counts: Vec<_> = schedule.counts.iter().map(|(state, count)| format!("{count} {state}")).collect();
    line(&if counts.is_empty() { "No tasks".to_owned() } else { format!("Tasks: {}", counts.join(", ")) })?;
    if !schedule.queue.is_empty() {
        line(&format!(
            "{:<6}{:<8}{:<8}{:<6}{:<6}{:<9}{:<10}{:<12}Why",
            "Place", "Task", "Sector", "Type", "Prio", "Waits", "Deadline", "Kept"
        ))?;
    }
    for queued in &schedule.queue {
        line(&row(queued, miners, now))?;
    }
    if schedule.left_off > 0 {
        line(&format!("… and {} more; --limit N lists up to 1000", schedule.left_off))?;
    }
    for kept in &schedule.reservations {
        let ends = if kept.waits_for.is_empty() {
            String::new()
        } else {
            format!(", when these have ended: {}", kept.waits_for.join(", "))
        };
        line(&format!(
            "{} is kept for {} of sector {} (task {}) since {} ago, to start within {}{ends}",
            paint::magenta(&plain(&kept.worker)),
            kept.kind.short(),
            miners.name(kept.sector),
            kept.task,
            age(now.saturating_sub(kept.made_ms)),
            age(kept.start_by_ms.saturating_sub(now)),
        ))?;
    }
    for worker in &schedule.workers {
        let place = if worker.url.is_empty() { "in the manager".to_owned() } else { plain(&worker.url) };
        line(&format!("{} ({place}):", paint::magenta(&plain(&worker.name))))?;
        line(&format!("    running: {}", held(&worker.running, miners, now)))?;
        line(&format!("    staged:  {}", held(&worker.staged, miners, now)))?;
    }
    Ok(())
}

fn row(queued: &QueuedView, miners: &Miners, now: u64) -> String {
    let waits = age(now.saturating_sub(queued.queued_ms));
    let waits = format!("{waits:<9}");
    let deadline = match queued.deadline_ms {
        0 => "-".to_owned(),
        at if at > now => age(at - now),
        _ => "missed".to_owned(),
    };
    format!(
        "{:<6}{:<8}{:<8}{:<6}{:<6}{}{deadline:<10}{:<12}{}",
        queued.place,
        queued.task.to_string(),
        miners.name(queued.sector).to_string(),
        queued.kind.short(),
        queued.priority,
        if queued.is_due { paint::red(&waits) } else { waits },
        queued.reserved.as_deref().map_or_else(|| "-".to_owned(), plain),
        plain(&queued.reason)
    )
}

/// `PC1 of sector 41 (5.1, 3m05s), …`.
fn held(tasks: &[HeldView], miners: &Miners, now: u64) -> String {
    let one = |task: &HeldView| {
        let (kind, sector, attempt) = (task.kind.short(), miners.name(task.sector), task.attempt);
        format!("{kind} of sector {sector} ({attempt}, {})", age(now.saturating_sub(task.bound_ms)))
    };
    let listed: Vec<_> = tasks.iter().map(one).collect();
    if listed.is_empty() { "nothing".to_owned() } else { listed.join(", ") }
}

/// `sealing durations --json`: one worker.
#[derive(Serialize)]
struct Measured<'a> {
    worker: &'a str,
    durations: &'a [DurationView],
    fetches_bytes_per_second: u64,
}

/// Prints what was measured of each worker.
pub fn print_durations(workers: &[WorkerView], json: bool) -> Outcome {
    if json {
        let measured = workers.iter().map(|worker| Measured {
            worker: &worker.name,
            durations: &worker.durations,
            fetches_bytes_per_second: worker.fetches_bytes_per_second,
        });
        let measured: Vec<_> = measured.collect();
        return print_json(&measured);
    }
    for worker in workers {
        let fetches = match worker.fetches_bytes_per_second {
            0 => "no fetch measured".to_owned(),
            rate => format!("fetches at {}/s", bytes(rate)),
        };
        line(&format!("{}: {fetches}", paint::magenta(&plain(&worker.name))))?;
        for duration in &worker.durations {
            let peak = match duration.peak_bytes {
                0 => String::new(),
                peak => format!(", at most {} of memory", bytes(peak)),
            };
            line(&format!(
                "    {:<5}{:<8}{:>9} on average, {:>9} lately ({} measured){peak}",
                duration.task.short(),
                duration.size.to_string(),
                age(duration.mean_ms),
                age(duration.last_ms),
                duration.count
            ))?;
        }
    }
    Ok(())
}

//! `sealing jobs`.

use rpc::Miners;
use rpc::extension::JobView;

use super::{age, fetch_words, line, paint, plain};
use crate::exit::Outcome;

/// Prints the jobs, running ones first, then by age. `now` is Unix milliseconds.
pub fn print_jobs(jobs: &[JobView], miners: &Miners, now: u64) -> Outcome {
    let mut sorted: Vec<&JobView> = jobs.iter().collect();
    sorted.sort_by_key(|job| (rank(&job.state), job.queued_ms));
    line(&format!(
        "{:<10}{:<8} {:<14}{:<6}{:<13}{:<6}{:<9}Why",
        "Attempt", "Sector", "Worker", "Task", "State", "Prio", "Time"
    ))?;
    for job in sorted {
        let since = if job.started_ms > 0 { job.started_ms } else { job.queued_ms };
        let end = if job.ended_ms > 0 { job.ended_ms } else { now };
        let text = format!("{:<13}", job.state);
        let state = match job.state.as_str() {
            "running" => paint::green(&text),
            "failed" | "detached" => paint::red(&text),
            _ => paint::yellow(&text),
        };
        line(&format!(
            "{:<10}{:<8} {:<14}{:<6}{state}{:<6}{:<9}{}",
            job.attempt.to_string(),
            miners.name(job.sector).to_string(),
            job.worker.as_deref().map_or_else(|| "-".to_owned(), plain),
            job.task.short(),
            job.priority,
            age(end.saturating_sub(since)),
            why(job)
        ))?;
    }
    Ok(())
}

/// Why it waits or failed, and how far its files are.
fn why(job: &JobView) -> String {
    let fetch = job.fetch.map(fetch_words);
    let reason = (!job.reason.is_empty()).then(|| plain(&job.reason));
    let rehearsal = job.rehearsal.then(|| "REHEARSAL".to_owned());
    rehearsal.into_iter().chain(fetch).chain(reason).collect::<Vec<_>>().join("; ")
}

fn rank(state: &str) -> u8 {
    match state {
        "running" => 0,
        "acquiring" => 1,
        "dispatching" => 2,
        "queued" => 3,
        "detached" => 4,
        _ => 5,
    }
}

//! `sealing why`: one sector or task, what it waits for, and what is in the way on each worker.

use rpc::Miners;
use rpc::explain::{Explanation, ObstacleView, TaskFacts, WorkerObstacles};

use super::{age, clock, line, paint, plain};
use crate::exit::Outcome;

/// Workers told of one by one; beyond, `--json` has them all.
const WORKERS_MAX: usize = 50;
/// Workers told of on one line.
const BRIEF_MAX: usize = 3;

/// Prints an explanation.
pub fn print_explanation(told: &Explanation, miners: &Miners) -> Outcome {
    let now = told.now_ms;
    line(&format!(
        "Sector {} ({}): {}",
        miners.name(told.sector),
        told.sector,
        paint::blue(&told.sector_state)
    ))?;
    if let Some(ended) = &told.ended {
        let place = ended.worker.as_deref().map(|name| format!(" on {}", plain(name))).unwrap_or_default();
        let reason =
            if ended.reason.is_empty() { String::new() } else { format!(": {}", plain(&ended.reason)) };
        let ago = age(now.saturating_sub(ended.ended_ms));
        let (attempt, kind, state) = (ended.attempt, ended.task.short(), &ended.state);
        line(&format!("Attempt {attempt} ({kind}{place}) is over since {ago} ago, {state}{reason}"))?;
    }
    line(&plain(&told.summary))?;
    if !told.prospects.is_empty() {
        line(&plain(&told.prospects))?;
    }
    if told.until_ms > 0 {
        line(&format!("Not before: {} UTC", clock(told.until_ms)))?;
    }
    if !told.last_error.is_empty() {
        line(&format!("Last error: {}", paint::red(&plain(&told.last_error))))?;
    }
    if let Some(task) = &told.task {
        print_task(task, now)?;
    }
    if !told.change.is_empty() {
        line(&format!("What would change it: {}", paint::green(&plain(&told.change))))?;
    }
    match &told.task {
        Some(task) => print_workers(task),
        None => Ok(()),
    }
}

/// The same on one line, for whoever waits: what is waited for, and what is in the way on the workers that could take it first.
pub fn brief(told: &Explanation) -> String {
    let mut words = vec![told.summary.clone(), told.last_error.clone(), told.change.clone()];
    if let Some(task) = &told.task {
        // Where nobody offers it, that is what is in the way.
        let (others, near): (Vec<_>, Vec<_>) = task.workers.iter().partition(|worker| does_not_offer(worker));
        let shown = if near.is_empty() { others } else { near };
        for worker in shown.into_iter().take(BRIEF_MAX) {
            let each = worker.obstacles.iter();
            words.extend(
                each.flat_map(|found| [format!("{}: {}", worker.name, found.text), found.change.clone()]),
            );
        }
    }
    words.retain(|text| !text.is_empty());
    plain(&words.join("; "))
}

fn print_task(task: &TaskFacts, now: u64) -> Outcome {
    let call = task.call.as_deref().map(|call| format!(", call {}", plain(call))).unwrap_or_default();
    line(&format!("Task {}: attempt {}{call}, priority {}", task.task, task.attempt, task.priority))?;
    match task.deadline_ms {
        0 => Ok(()),
        at if at > now => line(&format!("Deadline: {} UTC, in {}", clock(at), age(at - now))),
        at => line(&paint::red(&format!("Deadline: {} UTC, missed by {}", clock(at), age(now - at)))),
    }
}

/// Those that could take the task first; those that do not offer it share a line.
fn print_workers(task: &TaskFacts) -> Outcome {
    let (others, near): (Vec<_>, Vec<_>) = task.workers.iter().partition(|worker| does_not_offer(worker));
    for worker in near.iter().take(WORKERS_MAX) {
        print_worker(worker)?;
    }
    if let Some(more) = near.len().checked_sub(WORKERS_MAX).filter(|more| *more > 0) {
        line(&format!("… and {more} more workers; --json tells of all"))?;
    }
    let Some(first) = others.first() else { return Ok(()) };
    let names: Vec<_> = others.iter().take(WORKERS_MAX).map(|worker| plain(&worker.name)).collect();
    let more = others.len().saturating_sub(WORKERS_MAX);
    let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
    line(&format!("{}{tail}:", paint::magenta(&names.join(", "))))?;
    // What else is in the way is each one's own, and says nothing while it does not offer the task.
    print_obstacles(first.obstacles.iter().filter(|found| is_unoffered(found)))
}

fn does_not_offer(worker: &WorkerObstacles) -> bool {
    worker.obstacles.iter().any(is_unoffered)
}

fn is_unoffered(found: &ObstacleView) -> bool {
    found.facts.get("obstacle").and_then(|word| word.as_str()) == Some("not_offered")
}

fn print_worker(worker: &WorkerObstacles) -> Outcome {
    let place = if worker.url.is_empty() { "in the manager".to_owned() } else { plain(&worker.url) };
    line(&format!("{} ({place}):", paint::magenta(&plain(&worker.name))))?;
    if worker.obstacles.is_empty() {
        return line("    nothing is in the way here");
    }
    print_obstacles(worker.obstacles.iter())
}

fn print_obstacles<'a>(obstacles: impl Iterator<Item = &'a ObstacleView>) -> Outcome {
    for found in obstacles {
        line(&format!("    {}", paint::yellow(&plain(&found.text))))?;
        if !found.change.is_empty() {
            line(&format!("        {}", plain(&found.change)))?;
        }
    }
    Ok(())
}

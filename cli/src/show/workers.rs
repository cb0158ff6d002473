//! `workers list` (alias `sealing workers`): every worker with its tasks and bars.

use rpc::extension::{ManagerOverview, WorkerView};
use rpc::operator::WorkerMode;

use super::caps::caps_line;
use super::{age, bar, bytes, line, paint, plain};
use crate::exit::Outcome;

const WIDTH: usize = 64;
/// What a manager of rehearsals says in place of its chain.
const REHEARSAL: &str = "REHEARSAL";

/// Prints all workers, sorted by name.
pub fn print_workers(workers: &[WorkerView]) -> Outcome {
    let mut sorted: Vec<&WorkerView> = workers.iter().collect();
    sorted.sort_by(|a, b| (&a.name, a.session).cmp(&(&b.name, b.session)));
    if sorted.is_empty() {
        return line("no workers; `sealyard workers join-command` prints the line to run on another machine");
    }
    for worker in sorted {
        print_worker(worker)?;
    }
    Ok(())
}

/// Prints that nothing which the manager tells of is real, where that is so.
pub fn mark_rehearsal(overview: &ManagerOverview) -> Outcome {
    match overview.chain.as_str() {
        REHEARSAL => line("REHEARSAL: nothing of this is real, and no chain will ever know it"),
        _ => Ok(()),
    }
}

/// Since when a worker has not answered, and what comes of it.
fn silence(worker: &WorkerView) -> String {
    let since = format!("{} for {}", worker.state, age(worker.silent_ms));
    match &worker.next_state {
        Some((next, left_ms)) => format!("{since}, {next} in {}", age(*left_ms)),
        None => since,
    }
}

fn print_worker(worker: &WorkerView) -> Outcome {
    let mut marks = Vec::new();
    if !worker.enabled {
        marks.push(paint::red("disabled by itself"));
    }
    if worker.mode != WorkerMode::Open {
        marks.push(paint::red(&match &worker.mode_set {
            Some((by, _)) => format!("{} by {}", worker.mode.word(), plain(by)),
            None => worker.mode.word().to_owned(),
        }));
    }
    if worker.state != "live" {
        marks.push(paint::red(&silence(worker)));
    }
    let marks = if marks.is_empty() { String::new() } else { format!(" ({})", marks.join(", ")) };
    let place = if worker.url.is_empty() {
        "in the manager".to_owned()
    } else {
        format!("{} at {}", plain(&worker.kind), plain(&worker.url))
    };
    let name = paint::magenta(&plain(&worker.name));
    line(&format!("Worker {}, host {name}, {place}{marks}", worker.session))?;
    line(&format!("        TASK: {}", tasks(worker)))?;
    for (task, reason) in &worker.pending {
        line(&format!(
            "        {}:   {}",
            paint::yellow(&format!("{:<3}", task.short())),
            paint::yellow(&plain(reason))
        ))?;
    }
    if !worker.caps.is_empty() {
        line(&format!("        CAPS: {}", caps_line(&worker.caps)))?;
    }
    if let Some(machine) = &worker.machine {
        let caps = if worker.machine_caps.is_empty() {
            String::new()
        } else {
            format!(", caps of all its workers: {}", caps_line(&worker.machine_caps))
        };
        line(&format!("        MACHINE: {}{caps}", paint::magenta(&plain(machine))))?;
    }
    let (used, cpus) = worker.cpu;
    line(&format!(
        "        CPU:  [{}] {used}/{cpus} core(s) in use",
        bar(WIDTH, cpus as f64, &[(used as f64, '|')])
    ))?;
    for (label, (charged, others, all)) in [("RAM: ", worker.ram), ("VMEM:", worker.vmem)] {
        let taken = charged.max(others);
        let drawn =
            bar(WIDTH, all as f64, &[(others as f64, ':'), (taken.saturating_sub(others) as f64, '|')]);
        let percent = if all > 0 { taken as f64 / all as f64 * 100.0 } else { 0.0 };
        line(&format!("        {label} [{drawn}] {percent:.0}% {}/{}", bytes(taken), bytes(all)))?;
    }
    if !worker.gpus.is_empty() {
        let all = worker.gpus.len() as f64;
        let drawn = bar(WIDTH, all, &[(worker.gpu_used, '|')]);
        let percent = worker.gpu_used / all * 100.0;
        line(&format!("        GPU:  [{drawn}] {percent:.0}% {:.2}/{all} gpu(s) in use", worker.gpu_used))?;
    }
    for (index, gpu) in worker.gpus.iter().enumerate() {
        let used = (worker.gpu_used - index as f64) > 0.0;
        let text = if used {
            paint::green(&format!("{gpu}, used"))
        } else {
            paint::blue(&format!("{gpu}, not used"))
        };
        line(&format!("        GPU: {text}"))?;
    }
    Ok(())
}

/// `PC1(1/4) AP(0) GET(3)`: running of limit; cyan where there is no limit, yellow at the limit.
fn tasks(worker: &WorkerView) -> String {
    let one = |short: &str| {
        let running = worker.running.get(short).copied().unwrap_or(0);
        match worker.limits.get(short) {
            Some(limit) if running >= *limit => paint::yellow(&format!("({running}/{limit})")),
            Some(limit) => paint::green(&format!("({running}/{limit})")),
            None => paint::cyan(&format!("({running})")),
        }
    };
    let list: Vec<String> = worker
        .tasks
        .iter()
        .map(|task| format!("{}{}", paint::blue(task.short()), one(task.short())))
        .collect();
    if list.is_empty() { "none".to_owned() } else { list.join(" ") }
}

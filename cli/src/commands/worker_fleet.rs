//! `worker list|pause|resume`, and `worker info` of a worker that is named: workers as the manager sees them, with what each
//! has in hand, what failed there last, and its sealing threads with their plans.

use rpc::extension::{JobView, ManagerOverview, ThreadView, WorkerView};
use rpc::operator::WorkerMode;
use sealtasks::{SealingPlan, SectorId};
use serde::Serialize;

use crate::connect::{Connection, rpc_failure};
use crate::exit::{Code, Failure, Outcome};
use crate::show::{age, line, mark_rehearsal, plain, print_json, print_workers};

/// One worker.
#[derive(Serialize)]
struct Row {
    /// Its place in the list, by name.
    index: usize,
    name: String,
    /// Empty: within the manager.
    address: String,
    /// `live`, `suspect`, `lost` or `forgotten`.
    state: String,
    /// Nothing new is started there.
    paused: bool,
    /// The storage paths that it serves: the directory where it is on the manager's host, else the path's id.
    locations: Vec<String>,
    /// Which sectors it takes where no thread says otherwise.
    plan: SealingPlan,
    threads: Vec<ThreadView>,
    tasks: Vec<Busy>,
    /// What failed there last, of the tasks that the manager still lists; empty: nothing.
    last_error: String,
}

/// A task that it has in hand.
#[derive(Serialize)]
struct Busy {
    task: String,
    sector: SectorId,
    state: String,
    /// Since it was bound; 0 = not started.
    milliseconds: u64,
}

/// `worker list`.
pub async fn list(connection: &Connection, json: bool) -> Outcome {
    let (overview, jobs) = asked(connection).await?;
    let rows = rows(&overview, &jobs);
    if json {
        return print_json(&rows);
    }
    mark_rehearsal(&overview)?;
    line("#    worker            state       address                  in hand")?;
    for row in &rows {
        print_row(row)?;
    }
    Ok(())
}

/// `worker info NAME`.
pub async fn info(connection: &Connection, name: &str, json: bool) -> Outcome {
    let (overview, jobs) = asked(connection).await?;
    let meant = |worker: &&WorkerView| worker.name == name || is_at(worker, name);
    let Some(worker) = overview.workers.iter().find(meant).cloned() else {
        return Err(Failure::new(Code::Unknown, format!("no worker {name}"))
            .advise("`sealyard worker list` lists them"));
    };
    let row =
        rows(&overview, &jobs).into_iter().find(|row| row.name == worker.name && row.address == worker.url);
    let Some(row) = row else { return Ok(()) };
    if json {
        return print_json(&serde_json::json!({ "worker": worker, "now": row }));
    }
    print_workers(&[worker])?;
    for location in &row.locations {
        line(&format!("        PATH: {}", plain(location)))?;
    }
    line(&format!("        PLAN: {}", row.plan))?;
    for thread in &row.threads {
        line(&format!("        THREAD {}", say_thread(thread)))?;
    }
    for busy in &row.tasks {
        line(&format!("        NOW:  {}", say(busy)))?;
    }
    if row.last_error.is_empty() {
        Ok(())
    } else {
        line(&format!("        LAST ERROR: {}", plain(&row.last_error)))
    }
}

/// By session, URL or `host:port`.
fn is_at(worker: &WorkerView, name: &str) -> bool {
    worker.session.to_string() == name || worker.url == name || host(&worker.url) == name
}

async fn asked(connection: &Connection) -> Result<(ManagerOverview, Vec<JobView>), Failure> {
    let overview = connection.manager.overview().await.map_err(rpc_failure)?;
    let jobs = connection.manager.jobs().await.map_err(rpc_failure)?;
    Ok((overview, jobs))
}

fn rows(overview: &ManagerOverview, jobs: &[JobView]) -> Vec<Row> {
    let mut workers: Vec<&WorkerView> = overview.workers.iter().collect();
    workers.sort_by(|one, other| (&one.name, one.session).cmp(&(&other.name, other.session)));
    let now_ms = crate::clock::now_ms();
    let row = |(index, worker): (usize, &WorkerView)| {
        let at = |job: &&JobView| job.worker.as_deref() == Some(&*worker.name);
        let open = jobs.iter().filter(at).filter(|job| job.ended_ms == 0);
        let failed =
            jobs.iter().filter(at).filter(|job| job.state == "failed").max_by_key(|job| job.ended_ms);
        let serves = overview.paths.iter().filter(|path| path.workers.contains(&worker.name));
        Row {
            index: index + 1,
            name: worker.name.clone(),
            address: worker.url.clone(),
            state: worker.state.clone(),
            paused: worker.mode == WorkerMode::Disabled || !worker.enabled,
            locations: serves.map(|path| path.local.clone().unwrap_or_else(|| path.id.to_string())).collect(),
            plan: worker.plan,
            threads: worker.threads.clone(),
            tasks: open.map(|job| busy(job, now_ms)).collect(),
            last_error: failed.map(|job| job.reason.clone()).unwrap_or_default(),
        }
    };
    workers.into_iter().enumerate().map(row).collect()
}

fn busy(job: &JobView, now_ms: u64) -> Busy {
    let since = if job.started_ms == 0 { 0 } else { now_ms.saturating_sub(job.started_ms) };
    Busy {
        task: job.task.short().to_owned(),
        sector: job.sector,
        state: job.state.clone(),
        milliseconds: since,
    }
}

fn print_row(row: &Row) -> Outcome {
    let state = if row.paused { "paused" } else { &row.state };
    let address = if row.address.is_empty() { "in the manager" } else { host(&row.address) };
    let tasks: Vec<String> = row.tasks.iter().map(say).collect();
    let tasks = if tasks.is_empty() { "nothing".to_owned() } else { tasks.join(", ") };
    let (index, name) = (row.index, plain(&row.name));
    line(&format!("{index:<4} {name:<17} {state:<11} {:<24} {tasks}", plain(address)))?;
    if row.plan != SealingPlan::Any {
        line(&format!("     plan: {}", row.plan))?;
    }
    let is_plain = |thread: &ThreadView| {
        (thread.plan, thread.pending) == (row.plan, None) && thread.last_error.is_empty()
    };
    if !row.threads.iter().all(is_plain) {
        for thread in &row.threads {
            line(&format!("     thread {}", say_thread(thread)))?;
        }
    }
    if row.last_error.is_empty() {
        Ok(())
    } else {
        line(&format!("     last error: {}", plain(&row.last_error)))
    }
}

fn say(busy: &Busy) -> String {
    format!("{} of {} {} {}", busy.task, busy.sector, busy.state, age(busy.milliseconds))
}

/// `2: /mnt/nvme1, plan sealer, then rebuild, sealing 1000/7`.
fn say_thread(thread: &ThreadView) -> String {
    let ThreadView { index, plan, state, .. } = thread;
    let next = thread.pending.map(|plan| format!(", then {plan}")).unwrap_or_default();
    let sectors: Vec<String> = thread.sectors.iter().map(ToString::to_string).collect();
    let sectors = if sectors.is_empty() { String::new() } else { format!(" {}", sectors.join(" ")) };
    let error = match &*thread.last_error {
        "" => String::new(),
        error => format!("; last error: {}", plain(error)),
    };
    format!("{index}: {}, plan {plan}{next}, {state}{sectors}{error}", plain(&thread.location))
}

/// `http://host:port/rpc/v0` without what is the same everywhere.
fn host(url: &str) -> &str {
    let url = url.split_once("://").map_or(url, |(_, rest)| rest);
    url.split('/').next().unwrap_or(url)
}

//! `worker list|pause|resume`, and `worker info` of a worker that is named: workers as the manager sees them, with what each
//! has in hand, what failed there last, and its sealing threads with their plans.

use std::collections::BTreeMap;

use rpc::extension::{JobView, ManagerOverview, ThreadView, WorkerView};
use rpc::operator::{WorkerMode, host, is_meant};
use sealtasks::{SealingPlan, SectorId, WorkerId};
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
    /// What no other worker has.
    session: WorkerId,
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
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for row in &rows {
        *names.entry(&row.name).or_default() += 1;
    }
    for row in &rows {
        print_row(row, names[&*row.name] > 1)?;
    }
    Ok(())
}

/// `worker info NAME`.
pub async fn info(connection: &Connection, name: &str, json: bool) -> Outcome {
    let (overview, jobs) = asked(connection).await?;
    let worker = meant(&overview.workers, name)?.clone();
    let row = rows(&overview, &jobs).into_iter().find(|row| row.session == worker.session);
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

/// The one worker that is meant; one that was forgotten only where no other is.
fn meant<'a>(workers: &'a [WorkerView], name: &str) -> Result<&'a WorkerView, Failure> {
    let is_it = |worker: &&WorkerView| is_meant(name, &worker.name, &worker.url, Some(worker.session));
    let (forgotten, known): (Vec<_>, Vec<_>) =
        workers.iter().filter(is_it).partition(|worker| worker.state == "forgotten");
    let all = if known.is_empty() { forgotten } else { known };
    match all[..] {
        [one] => Ok(one),
        [] => Err(Failure::new(Code::Unknown, format!("no worker {name}"))
            .advise("`sealyard worker list` lists them")),
        _ => {
            let described =
                |worker: &&WorkerView| format!("{} {} ({})", worker.name, worker.url, worker.session);
            let described: Vec<_> = all.iter().map(described).collect();
            let text = format!("several workers are named {name:?}: {}", described.join(", "));
            Err(Failure::new(Code::Failed, text).advise("give the session or the address of one"))
        }
    }
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
    let mut named = BTreeMap::<&str, usize>::new();
    workers.iter().for_each(|worker| *named.entry(&worker.name).or_default() += 1);
    let row = |(index, worker): (usize, &WorkerView)| {
        // What was bound in an earlier session is told by the name, unless another worker has it, too.
        let is_only = named.get(&*worker.name) == Some(&1);
        let at = |job: &&JobView| {
            job.worker.as_deref() == Some(&*worker.name) && (is_only || job.session == Some(worker.session))
        };
        let open = jobs.iter().filter(at).filter(|job| job.ended_ms == 0);
        let failed =
            jobs.iter().filter(at).filter(|job| job.state == "failed").max_by_key(|job| job.ended_ms);
        let serves = overview.paths.iter().filter(|path| worker.paths.contains(&path.id));
        Row {
            index: index + 1,
            name: worker.name.clone(),
            session: worker.session,
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

/// With its session where that alone tells it from others of its name.
fn print_row(row: &Row, is_twin: bool) -> Outcome {
    let state = if row.paused { "paused" } else { &row.state };
    let address = if row.address.is_empty() { "in the manager" } else { host(&row.address) };
    let tasks: Vec<String> = row.tasks.iter().map(say).collect();
    let tasks = if tasks.is_empty() { "nothing".to_owned() } else { tasks.join(", ") };
    let (index, name) = (row.index, plain(&row.name));
    line(&format!("{index:<4} {name:<17} {state:<11} {:<24} {tasks}", plain(address)))?;
    if is_twin {
        line(&format!("     session: {}", row.session))?;
    }
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    const SESSIONS: [&str; 3] = [
        "00000000-0000-0000-0000-000000000001",
        "00000000-0000-0000-0000-000000000002",
        "00000000-0000-0000-0000-000000000003",
    ];
    const PATHS: [&str; 2] = ["one", "two"];

    fn worker(name: &str, at: usize, paths: &[&str]) -> Value {
        json!({
            "session": SESSIONS[at], "name": name, "url": format!("http://10.0.0.{at}:3456/rpc/v0"),
            "kind": "lotus", "enabled": true, "state": "live", "tasks": [], "pending": {}, "running": {},
            "limits": {}, "cpu": [0, 1], "ram": [0, 0, 1], "vmem": [0, 0, 1], "gpu_used": 0.0, "gpus": [],
            "paths": paths,
        })
    }

    fn path(id: &str, workers: &[&str]) -> Value {
        json!({
            "id": id, "workers": workers, "urls": [], "local": null, "weight": 1, "can_seal": true,
            "can_store": true, "capacity": 1, "available": 1, "reserved": 0, "max_storage": 0,
            "heartbeat_age_ms": 0, "error": null, "files": [],
        })
    }

    /// A task of sector `number` that was bound to this session, and has failed if that is said.
    fn job(number: u64, name: &str, session: &str, failed: &str) -> JobView {
        let state = if failed.is_empty() { "running" } else { "failed" };
        let job = json!({
            "attempt": {"task": number, "attempt": 1}, "call": null, "sector": {"miner": 1000, "number": number},
            "task": "seal/v0/precommit/1", "state": state, "reason": failed, "worker": name, "session": session,
            "queued_ms": 1, "started_ms": 1, "ended_ms": u64::from(!failed.is_empty()), "bytes_fetched": 0,
        });
        from_value(job).expect("a job")
    }

    fn overview() -> ManagerOverview {
        let twins = ["box", "box"];
        let overview = json!({
            "workers": [worker("box", 0, &["one"]), worker("box", 1, &["two"]), worker("other", 2, &[])],
            "paths": [path("one", &twins[..1]), path("two", &twins[..1])],
        });
        from_value(overview).expect("an overview")
    }

    /// Lotus's workers are named after their hosts, and a host may run several.
    #[test]
    fn two_workers_of_one_name_are_two() {
        let overview = overview();
        let jobs = [
            job(1, "box", SESSIONS[0], ""),
            job(2, "box", SESSIONS[1], "no space left"),
            // Before their last starts.
            job(3, "box", "00000000-0000-0000-0000-000000000009", "of one of them"),
            job(4, "other", "00000000-0000-0000-0000-000000000008", "of this one alone"),
        ];
        let rows = rows(&overview, &jobs);
        let told = |row: &Row| {
            let sectors: Vec<u64> = row.tasks.iter().map(|task| task.sector.number.get()).collect();
            (row.locations.clone(), sectors, row.last_error.clone())
        };
        let path = |at: usize| vec![PATHS[at].to_owned()];
        let expected = [
            (path(0), vec![1], String::new()),
            (path(1), vec![], "no space left".to_owned()),
            (vec![], vec![], "of this one alone".to_owned()),
        ];
        assert_eq!(rows.iter().map(told).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_name_that_two_have_is_refused_with_both() {
        let workers = overview().workers;
        let of = |name: &str| meant(&workers, name).map(|worker| worker.session.to_string());
        assert_eq!(of("other").ok().as_deref(), Some(SESSIONS[2]));
        assert_eq!(of(SESSIONS[1]).ok().as_deref(), Some(SESSIONS[1]));
        assert_eq!(of("10.0.0.0:3456").ok().as_deref(), Some(SESSIONS[0]));
        let told = of("box").expect_err("refused").to_string();
        assert!(told.starts_with("error[1]") && SESSIONS[..2].iter().all(|one| told.contains(one)), "{told}");
        for nobody in ["nobody", ""] {
            assert!(of(nobody).expect_err("refused").to_string().starts_with("error[14]"), "{nobody:?}");
        }
    }

    /// As the manager takes it that is asked to pause it.
    #[test]
    fn a_worker_that_was_forgotten_is_meant_only_where_no_other_is() {
        let mut workers = overview().workers;
        workers[0].state = "forgotten".to_owned();
        let of = |name: &str| meant(&workers, name).map(|worker| worker.session.to_string()).ok();
        assert_eq!(of("box").as_deref(), Some(SESSIONS[1]));
        assert_eq!(of(SESSIONS[0]).as_deref(), Some(SESSIONS[0]));
        assert_eq!(of("10.0.0.0:3456").as_deref(), Some(SESSIONS[0]));
    }
}

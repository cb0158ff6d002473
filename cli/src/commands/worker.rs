//! `worker info|resources|stop`: asking the worker on this machine. What is asked of its manager is in `worker_fleet`.

use std::path::Path;
use std::time::Duration;

use rpc::extension::{ExecutorSetting, HeldCall};
use rpc::operator::WorkerMode;
use rpc::{ApiError, WorkerApi};
use sealtasks::{ResourceTable, TaskType, WorkerId};
use serde_json::json;

use super::control::set_mode;
use super::daemon::stop_requested;
use super::storage::worker_client;
use super::worker_fleet;
use crate::args::WorkerCommand;
use crate::connect::{Connection, expand, rpc_failure};
use crate::exit::{Code, Failure, Outcome};
use crate::show::{bytes, line, print_json, talk};

/// All of `worker` but `run`.
pub async fn worker(repo: &Path, command: &WorkerCommand) -> Outcome {
    let manager = || Connection::discover(repo);
    match command {
        WorkerCommand::Run(_) => unreachable!("`worker run` has a module of its own"),
        WorkerCommand::List(args) => worker_fleet::list(&manager()?, args.json).await,
        WorkerCommand::Pause(args) => set_mode(&manager()?, args, WorkerMode::Disabled).await,
        WorkerCommand::Resume(args) => set_mode(&manager()?, args, WorkerMode::Open).await,
        WorkerCommand::Info { worker: Some(name), json, .. } => {
            worker_fleet::info(&manager()?, name, *json).await
        }
        WorkerCommand::Info { worker: None, worker_repo, json } => info(&expand(worker_repo)?, *json).await,
        WorkerCommand::Resources { all, default, json } => resources(*all, *default, *json),
        WorkerCommand::Tasks(command) => super::worker_tasks::tasks(command).await,
        WorkerCommand::Stop { now, worker_repo, json } => stop(&expand(worker_repo)?, *now, *json).await,
    }
}

/// Between two looks at a worker that is to stop.
const STOP_POLL: Duration = Duration::from_millis(250);

/// A worker that was told to end has done so within this time: its executors have died and its last results were taken.
const STOP_MAX: Duration = Duration::from_secs(90);

async fn stop(repo: &Path, now: bool, json: bool) -> Outcome {
    let worker = worker_client(repo)?;
    let session = worker.process_session().await.map_err(rpc_failure)?;
    let calls = if now { worker.state().await.map_err(rpc_failure)?.calls } else { Vec::new() };
    let (held_on, given_back): (Vec<_>, Vec<_>) = calls.iter().partition(|held| held.lingering);
    let (held_on, given_back) = (held_on.len(), given_back.len());
    let was_enabled = if now { None } else { Some(finish_calls(&worker).await?) };
    if let Err(error) = worker.storage_detach_all().await {
        return Err(not_stopped(&worker, was_enabled, Asked::Detach, error).await);
    }
    match worker.shutdown().await {
        // Its last answer may be lost: that it has ended is seen.
        Ok(()) | Err(ApiError::Unreachable { .. } | ApiError::Malformed { .. }) => {}
        Err(error) => return Err(not_stopped(&worker, was_enabled, Asked::Shutdown, error).await),
    }
    tokio::time::timeout(STOP_MAX, has_ended(&worker, session)).await.map_err(|_late| {
        let text = format!("worker {session} has not ended within {} s", STOP_MAX.as_secs());
        Failure::new(Code::Failed, text).advise("its log says what it waits for, most often a disk")
    })?;
    if json {
        return print_json(&json!({ "stopped": session, "given_back": given_back, "held_on": held_on }));
    }
    if held_on > 0 {
        talk!("{held_on} of its calls cannot end; its next start holds them until they have");
    }
    match given_back {
        0 => line(&format!("worker {session} has stopped")),
        calls => line(&format!("worker {session} has stopped; {calls} of its calls were given back")),
    }
}

/// Waits until nobody listens where the worker did, or another session does. One that hangs has not ended, nor has one in front
/// of which somebody answers something else.
async fn has_ended(worker: &impl WorkerApi, session: WorkerId) {
    loop {
        match worker.process_session().await {
            Ok(now) if now != session => return,
            Err(error) if error.was_refused() => return,
            Ok(_) | Err(_) => tokio::time::sleep(STOP_POLL).await,
        }
    }
}

/// What a worker that is stopped is asked, one after the other.
#[derive(Clone, Copy)]
enum Asked {
    /// That its paths leave the index.
    Detach,
    /// That it ends.
    Shutdown,
}

/// A worker that refuses to be stopped, most often because its manager does not answer, goes on as it was. Paths that are out
/// already are declared again by its next health report.
async fn not_stopped(
    worker: &impl WorkerApi,
    was_enabled: Option<bool>,
    asked: Asked,
    error: ApiError,
) -> Failure {
    let (code, advice) = match asked {
        Asked::Detach => (
            Code::Storage,
            "try again when its manager answers; a signal (SIGTERM) ends the worker without it, and its executors run on",
        ),
        Asked::Shutdown => (Code::Failed, "a signal (SIGTERM) ends the worker, too; its executors run on"),
    };
    let after = match was_enabled {
        Some(enabled) => as_before(worker, enabled).await,
        None => "goes on as before",
    };
    Failure::new(code, refused(after, &error.to_string())).advise(advice)
}

/// They leave the index one by one, and whether the last of them has may not be known.
fn refused(after: &str, error: &str) -> String {
    format!(
        "the worker was not stopped and {after}: those of its storage paths that have left the index are declared again when \
         their health is next told, within 20 s: {error}"
    )
}

/// Gives a worker that was not stopped back what it took before; what has become of it, in words.
async fn as_before(worker: &impl WorkerApi, enabled: bool) -> &'static str {
    enable_again(worker, enabled).await.unwrap_or_else(|error| {
        talk!("warning: {error}");
        "takes no tasks until it is started again"
    })
}

/// What becomes of a worker that was not stopped, in words.
async fn enable_again(worker: &impl WorkerApi, enabled: bool) -> Result<&'static str, Failure> {
    worker.set_enabled(enabled).await.map_err(rpc_failure)?;
    Ok(if enabled { "takes tasks again" } else { "takes none, as before" })
}

/// Waits until the worker, which takes nothing new from now on, holds no call any more; whether it took any before. Whoever
/// ends the waiting, and what fails meanwhile, has changed nothing.
async fn finish_calls(worker: &impl WorkerApi) -> Result<bool, Failure> {
    let was_enabled = worker.state().await.map_err(rpc_failure)?.enabled;
    worker.set_enabled(false).await.map_err(rpc_failure)?;
    let why = tokio::select! {
        ended = calls_ended(worker) => match ended {
            Ok(()) => return Ok(was_enabled),
            Err(failure) => failure.to_string(),
        },
        why = stop_requested(false) => why.to_string(),
    };
    let after = as_before(worker, was_enabled).await;
    Err(Failure::new(Code::Failed, format!("{why}: the worker was not stopped and {after}")))
}

async fn calls_ended(worker: &impl WorkerApi) -> Outcome {
    let mut said = Vec::new();
    loop {
        let calls = worker.state().await.map_err(rpc_failure)?.calls;
        if calls.is_empty() {
            return Ok(());
        }
        let words = waited_for(&calls);
        words.iter().filter(|line| !said.contains(*line)).for_each(|line| talk!("{line}"));
        said = words;
        tokio::time::sleep(STOP_POLL).await;
    }
}

/// What a stop that waits says of the calls that it waits for, and of what would end the waiting.
fn waited_for(calls: &[HeldCall]) -> Vec<String> {
    let (lingering, ending): (Vec<_>, Vec<_>) = calls.iter().partition(|held| held.lingering);
    let going_on = (!ending.is_empty()).then(|| {
        format!(
            "waiting for {} calls to end (Ctrl-C lets the worker go on as before; `sealyard worker stop --now` gives them back)",
            ending.len()
        )
    });
    let hang = lingering.into_iter().map(|held| {
        format!(
            "waiting for call {}, whose executor was killed and does not end: it hangs in the kernel, most often on a disk that \
             does not answer; `sealyard worker stop --now` stops the worker without it, and the worker's next start holds the \
             call until it has ended",
            held.call
        )
    });
    going_on.into_iter().chain(hang).collect()
}

async fn info(repo: &Path, json: bool) -> Outcome {
    let worker = worker_client(repo)?;
    let version = rpc::versions::Version(worker.version().await.map_err(rpc_failure)?);
    let session = worker.process_session().await.map_err(rpc_failure)?;
    let info = worker.info().await.map_err(rpc_failure)?;
    let state = worker.state().await.map_err(rpc_failure)?;
    let paths = worker.paths().await.map_err(rpc_failure)?;
    // The worker's own, from its process: this one's environment may be another.
    let settings = worker.settings().await.map_err(rpc_failure)?;
    let task_of = |setting: &ExecutorSetting| setting.task.map_or("all", TaskType::short);
    if json {
        let shown: Vec<_> = settings
            .iter()
            .map(|it| json!({ "task": task_of(it), "name": it.name, "value": it.value, "origin": it.origin }))
            .collect();
        return print_json(&json!({
            "version": version.to_string(), "session": session, "enabled": state.enabled, "hostname": info.hostname,
            "cpus": info.resources.cpus, "gpus": info.resources.gpus, "mem_physical": info.resources.mem_physical,
            "mem_used": info.resources.mem_used, "mem_swap": info.resources.mem_swap, "tasks": state.tasks,
            "pending": state.pending, "settings": shown,
            "paths": paths.iter().map(|path| json!({ "id": path.id, "local": path.local_path, "weight": path.weight,
                "can_seal": path.can_seal, "can_store": path.can_store })).collect::<Vec<_>>(),
        }));
    }
    line(&format!("Worker version:  {version}"))?;
    line(&format!("CLI version:     {}", env!("CARGO_PKG_VERSION")))?;
    line(&format!("Session: {session}"))?;
    line(&format!("Enabled: {}", state.enabled))?;
    line(&format!("Hostname: {}", info.hostname))?;
    line(&format!("CPUs: {}; GPUs: [{}]", info.resources.cpus, info.resources.gpus.join(", ")))?;
    line(&format!(
        "RAM: {}/{}; Swap: {}/{}",
        bytes(info.resources.mem_used),
        bytes(info.resources.mem_physical),
        bytes(info.resources.mem_swap_used),
        bytes(info.resources.mem_swap)
    ))?;
    let names: Vec<&str> = state.tasks.iter().map(|task| task.short()).collect();
    line(&format!("Task types: {}", names.join(" ")))?;
    for (task, reason) in &state.pending {
        line(&format!("Not yet: {task}: {reason}"))?;
    }
    line("Settings of executors:")?;
    for setting in &settings {
        let ExecutorSetting { name, value, origin, .. } = setting;
        line(&format!("        {:<5} {name}={value} ({origin})", task_of(setting)))?;
    }
    for path in paths {
        line(&format!("\n{}:", path.id))?;
        let uses = match (path.can_seal, path.can_store) {
            (true, true) => "Seal Store",
            (true, false) => "Seal",
            (false, true) => "Store",
            (false, false) => "ReadOnly",
        };
        line(&format!("        Weight: {}; Use: {uses}", path.weight))?;
        line(&format!("        Local: {}", path.local_path))?;
    }
    Ok(())
}

/// `worker resources`: Lotus's `NAME=value` lines; by default those that are set.
fn resources(all: bool, default: bool, json: bool) -> Outcome {
    let variable = |name: &str| if default { None } else { std::env::var(name).ok() };
    let variables =
        ResourceTable::variables(variable).map_err(|error| Failure::from_error(Code::Setting, &error))?;
    let rows: std::collections::BTreeMap<String, String> = variables
        .into_iter()
        .filter(|variable| all || default || variable.set.is_some())
        .filter_map(|variable| Some((variable.name, variable.effective?)))
        .collect();
    if json {
        return print_json(&rows);
    }
    rows.iter().try_for_each(|(name, value)| line(&format!("{name}={value}")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rpc::WorkerClient;
    use rpc::api_info::Transport;
    use rpc::extension::CallPhase;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// What those say who are there and are not the worker, or not well: nothing at all, nonsense, that they are at a loss.
    const SAID: [&str; 3] = [
        "",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
        "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    ];

    #[tokio::test]
    async fn a_worker_has_ended_when_nobody_listens_there_and_not_when_it_answers_something_else() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/rpc/v0", listener.local_addr().expect("an address"));
        let told = Arc::new(AtomicUsize::new(0));
        let counted = told.clone();
        let peer = tokio::spawn(async move {
            for words in SAID {
                let (mut connection, _) = listener.accept().await.expect("somebody asks");
                let mut asked = Vec::new();
                while !asked.ends_with(b"}") {
                    assert_ne!(connection.read_buf(&mut asked).await.expect("a request"), 0);
                }
                connection.write_all(words.as_bytes()).await.expect("it goes");
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        let url = url.parse().expect("a URL");
        let worker = WorkerClient::new(&url, None, Transport::Http).expect("a client");
        let ended = has_ended(&worker, WorkerId(uuid::Uuid::from_u128(1)));
        tokio::time::timeout(STOP_MAX, ended).await.expect("it is seen to have ended");
        assert_eq!(told.load(Ordering::SeqCst), SAID.len(), "it was there still");
        peer.await.expect("nothing went wrong");
    }

    #[test]
    fn a_worker_that_was_not_stopped_says_where_its_paths_are() {
        assert_eq!(
            refused("takes tasks again", "it is busy"),
            "the worker was not stopped and takes tasks again: those of its storage paths that have left the index are declared \
             again when their health is next told, within 20 s: it is busy"
        );
    }

    #[test]
    fn a_stop_that_waits_names_the_call_that_does_not_end_and_what_to_do() {
        let held = |call: &str, lingering| HeldCall {
            call: call.to_owned(),
            attempt: None,
            phase: CallPhase::Running,
            lingering,
        };
        let words = waited_for(&[held("a", false), held("b", true), held("c", false)]);
        assert_eq!(words.len(), 2, "{words:?}");
        assert!(words[0].starts_with("waiting for 2 calls to end"), "{words:?}");
        assert!(words[1].starts_with("waiting for call b, whose executor was killed"), "{words:?}");
        assert!(words[1].contains("stop --now` stops the worker without it"), "{words:?}");
        assert_eq!(waited_for(&[held("b", true)]).len(), 1, "nothing else is waited for");
    }
}

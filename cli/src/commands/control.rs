//! `workers cordon|drain|enable|disable|caps`, `sealing priority|abort`: an operator's control over scheduling.

use std::time::{Duration, Instant};

use rpc::operator::{AbortOutcome, CapsTarget, RestTask, WorkerMode, WorkerRest};
use rpc::subject::{Subject, SubjectError};
use sealtasks::AttemptId;

use crate::args::{AbortArgs, CapsArgs, DrainArgs, ModeArgs, PriorityArgs};
use crate::connect::{Connection, rpc_failure};
use crate::exit::{Code, Failure, Outcome};
use crate::show::{age, line, plain, print_caps, print_json, talk};

/// How often a draining worker is asked what is left.
const DRAIN_POLL: Duration = Duration::from_secs(1);
/// How often an aborted attempt is asked after.
const ABORT_POLL: Duration = Duration::from_millis(200);
/// How long an executor is waited for after it was killed.
const ABORT_LIMIT: Duration = Duration::from_secs(30);
/// Tasks named on one line.
const NAMED_MAX: usize = 5;

/// `workers cordon|enable|disable`.
pub async fn set_mode(connection: &Connection, args: &ModeArgs, mode: WorkerMode) -> Outcome {
    let rest = order_mode(connection, &args.worker, mode).await?;
    if args.json { print_json(&rest) } else { say_rest(&rest) }
}

/// `workers drain`.
pub async fn drain(connection: &Connection, args: &DrainArgs) -> Outcome {
    let mut rest = order_mode(connection, &args.worker, WorkerMode::Draining).await?;
    if !args.wait {
        return if args.json { print_json(&rest) } else { say_rest(&rest) };
    }
    let mut said = String::new();
    while !rest.is_empty() {
        if rest.mode != WorkerMode::Draining {
            let text = format!("{} is {} now; it is no longer drained", rest.name, rest.mode.word());
            return Err(Failure::new(Code::Failed, text));
        }
        let text = left(&rest);
        if said != text {
            talk!("{}: {text}", plain(&rest.name));
            said = text;
        }
        tokio::time::sleep(DRAIN_POLL).await;
        rest = connection.operator.worker_rest(args.worker.clone()).await.map_err(rpc_failure)?;
    }
    if args.json {
        return print_json(&rest);
    }
    let name = plain(&rest.name);
    line(&format!(
        "{name} is drained: nothing is left there; `sealyard workers enable {name}` gives it work again"
    ))
}

async fn order_mode(connection: &Connection, worker: &str, mode: WorkerMode) -> Result<WorkerRest, Failure> {
    connection.operator.set_worker_mode(worker.to_owned(), mode, by()).await.map_err(rpc_failure)
}

fn say_rest(rest: &WorkerRest) -> Outcome {
    let means = match rest.mode {
        WorkerMode::Open => "is enabled: it takes all its tasks",
        WorkerMode::Cordoned => {
            "is cordoned: it takes no new sectors, only tasks of those that have files there"
        }
        WorkerMode::Draining => {
            "is draining: what lives there alone is finished, and nothing else is started"
        }
        WorkerMode::Disabled => "is disabled: nothing new is started there; its files are still served",
    };
    line(&format!("{} {means}", plain(&rest.name)))?;
    match (rest.session, rest.is_empty()) {
        (None, _) => line("it is not connected; this holds when it is back"),
        (Some(_), true) => line("nothing is left there"),
        (Some(_), false) => line(&left(rest)),
    }
}

/// What is left, on one line.
fn left(rest: &WorkerRest) -> String {
    let of =
        |stage: &str| -> Vec<&RestTask> { rest.tasks.iter().filter(|task| task.stage == stage).collect() };
    let mut parts = Vec::new();
    for (stage, word) in [("running", "running"), ("staged", "staged")] {
        let tasks = of(stage);
        if !tasks.is_empty() {
            let named: Vec<_> = tasks
                .iter()
                .take(NAMED_MAX)
                .map(|task| format!("{} of sector {}", task.task.short(), task.sector))
                .collect();
            let more = if tasks.len() > NAMED_MAX { ", …" } else { "" };
            parts.push(format!("{} {word} ({}{more})", tasks.len(), named.join(", ")));
        }
    }
    if rest.waiting > 0 {
        let but =
            if rest.mode == WorkerMode::Disabled { ", not to be started while it is disabled" } else { "" };
        parts.push(format!("{} waiting for it alone{but}", rest.waiting));
    }
    if let Some(first) = rest.nowhere.first() {
        let count = rest.nowhere.len();
        parts
            .push(format!("{count} waiting that fit nowhere (`sealyard sealing why task:{first}` says why)"));
    }
    if rest.between_tasks > 0 {
        parts.push(format!("{} sectors there between two tasks", rest.between_tasks));
    }
    match rest.expected_end_ms.map(|end| end.saturating_sub(crate::clock::now_ms())) {
        None => {}
        Some(0) => parts.push("by estimates done any moment".to_owned()),
        Some(wait) => parts.push(format!("by estimates done in about {}", age(wait))),
    }
    parts.join(", ")
}

/// `workers caps`.
pub async fn caps(connection: &Connection, args: &CapsArgs) -> Outcome {
    let name = args.name.clone();
    let target = if args.machine { CapsTarget::Machine(name) } else { CapsTarget::Worker(name) };
    let view =
        connection.operator.change_caps(target, args.limits.clone(), by()).await.map_err(rpc_failure)?;
    if args.json { print_json(&view) } else { print_caps(&view) }
}

/// `sealing priority`.
pub async fn priority(connection: &Connection, args: &PriorityArgs) -> Outcome {
    let what = subject(&args.what)?;
    let view = connection.operator.set_priority(what, args.priority, by()).await.map_err(rpc_failure)?;
    if args.json {
        return print_json(&view);
    }
    let tasks = match view.tasks {
        0 => "no task of it waits or runs now".to_owned(),
        1 => "1 task has it now".to_owned(),
        more => format!("{more} tasks have it now"),
    };
    line(&format!("{}: priority {} (it was {}); {tasks}", view.subject, view.priority, view.before))
}

/// `sealing abort`.
pub async fn abort(connection: &Connection, args: &AbortArgs) -> Outcome {
    let what = subject(&args.what)?;
    let by = args.reason.as_ref().map_or_else(by, |reason| format!("{}: {reason}", by()));
    let view = connection.operator.abort(what, by).await.map_err(rpc_failure)?;
    let ended = match view.outcome {
        AbortOutcome::Stopping if !args.no_wait => has_ended(connection, view.attempt).await?,
        AbortOutcome::Stopping | AbortOutcome::LeftQueue | AbortOutcome::Detached | AbortOutcome::Fenced => {
            false
        }
    };
    if args.json {
        return print_json(&view);
    }
    let worker = plain(view.worker.as_deref().unwrap_or("-"));
    let attempt = view.attempt;
    let what = match view.outcome {
        AbortOutcome::LeftQueue => "it did not run, and has left".to_owned(),
        AbortOutcome::Stopping if ended => {
            format!("its executor on {worker} was killed, and everything that it held is free")
        }
        AbortOutcome::Stopping => {
            format!("{worker} was told to kill its executor; what it holds is free when that has ended")
        }
        AbortOutcome::Detached => format!(
            "{worker} is a Lotus worker and cannot be told to stop: its result will not be taken, and what it holds stays \
             charged until {worker} returns it or registers again"
        ),
        AbortOutcome::Fenced => format!(
            "{worker} does not answer: it has ended here, everything that it held is free, and a late result is refused"
        ),
    };
    line(&format!("aborted {attempt}, {}: {what}", view.subject))?;
    line("its sector waits for `sealyard sectors retry`")
}

/// Waits for the end of an attempt, within reason.
async fn has_ended(connection: &Connection, attempt: AttemptId) -> Result<bool, Failure> {
    let begun = Instant::now();
    loop {
        let why = connection.manager.why(Subject::Attempt(attempt)).await.map_err(rpc_failure)?;
        if why.ended.is_some_and(|job| job.ended_ms > 0) {
            return Ok(true);
        }
        if begun.elapsed() >= ABORT_LIMIT {
            return Ok(false);
        }
        tokio::time::sleep(ABORT_POLL).await;
    }
}

fn subject(text: &str) -> Result<Subject, Failure> {
    text.parse().map_err(|error: SubjectError| {
        Failure::new(Code::Usage, error.to_string()).advise("`sealyard sealing jobs` names the attempts")
    })
}

/// Who asks, for the manager's record: the user and the host of this process.
pub(super) fn by() -> String {
    let uid = nix::unistd::getuid();
    let user = nix::unistd::User::from_uid(uid).ok().flatten().map(|user| user.name);
    let host = nix::unistd::gethostname().ok().map(|host| host.to_string_lossy().into_owned());
    format!(
        "{}@{}",
        user.unwrap_or_else(|| format!("uid {uid}")),
        host.unwrap_or_else(|| "unknown host".to_owned())
    )
}

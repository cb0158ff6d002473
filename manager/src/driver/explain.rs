//! Why a sector or its task is where it is, told from the pipeline's record, the driver's memory and the scheduler's own
//! explanation. Never: changes anything, or guesses; what is not known is said to be so.

use std::collections::BTreeMap;

use pipeline::{Rest, SectorRecord, Step};
use rpc::SectorName;
use rpc::explain::{Explanation, ObstacleView, TaskFacts, WaitsFor, WorkerObstacles};
use rpc::subject::Subject;
use sched::{Finding, Obstacle, Span, Whereabouts, Why, WhyWorker};
use sealtasks::{AttemptId, SectorId, TaskId, TaskType};
use serde_json::{Map, Value};

use super::advice;
use super::input::{Busy, Sector};
use super::line;
use super::operator::request_id;
use super::sectors::short_code;
use super::{Attempt, Driver, Phase, Task};
use crate::answers::last_error;

/// What is in the way, or what is waited for, and what would change it.
struct Reason {
    waits_for: WaitsFor,
    summary: String,
    prospects: String,
    change: String,
    until_ms: u64,
}

impl Reason {
    fn new(waits_for: WaitsFor, summary: impl Into<String>, change: impl Into<String>) -> Self {
        let (summary, change) = (summary.into(), change.into());
        Self { waits_for, summary, prospects: String::new(), change, until_ms: 0 }
    }
}

impl Driver {
    /// The explanation of what is alive; `None`: it is over or was never there, which the durable state knows.
    pub(crate) fn explain(&self, subject: Subject) -> Option<Explanation> {
        let sector = match subject {
            Subject::Number(number) => self.numbered(number).ok()?,
            Subject::Sector(sector) => sector,
            Subject::Task(task) => self.tasks.get(&task)?.sector.id,
            Subject::Attempt(attempt) => self.live(attempt)?.sector.id,
            Subject::Call(call) => self.live(self.calls.get(&call)?.0)?.sector.id,
            Subject::Request(request) => {
                self.tasks.values().find(|task| request_id(task.id) == request)?.sector.id
            }
        };
        let known = self.sectors.get(&sector)?;
        let mut explanation = self.explain_sector(sector, known);
        explanation.asked = subject.to_string();
        Some(explanation)
    }

    /// The task whose present attempt, or next one, this is.
    fn live(&self, attempt: AttemptId) -> Option<&Task> {
        let task: &Task = self.tasks.get(&attempt.task)?;
        let present = task.open.as_deref().map_or(task.attempts.saturating_add(1), |open| open.id.attempt);
        (present == attempt.attempt).then_some(task)
    }

    fn explain_sector(&self, sector: SectorId, known: &Sector) -> Explanation {
        let task = match known.busy {
            Busy::Task(task) => self.tasks.get(&task),
            Busy::Free | Busy::Asking | Busy::Until(_) | Busy::File(_) | Busy::Stage => None,
        };
        let (reason, task) = match task {
            Some(task) => {
                let why = self.sched.why(task.id);
                (self.task_reason(task, why.as_ref()), Some(self.task_facts(task, why)))
            }
            None => (self.sector_reason(sector, known), None),
        };
        Explanation {
            asked: String::new(),
            sector,
            sector_state: known.record.shown_state(),
            now_ms: self.now_ms(),
            waits_for: reason.waits_for,
            summary: reason.summary,
            prospects: reason.prospects,
            change: reason.change,
            until_ms: reason.until_ms,
            last_error: last_error(&known.record, self.shared.name(sector)),
            ended: None,
            task,
            message: self.shared.messages.as_ref().and_then(|messages| messages.unsent(sector)),
        }
    }

    /// A sector without a task.
    fn sector_reason(&self, id: SectorId, known: &Sector) -> Reason {
        let number = self.shared.name(id);
        match &known.busy {
            Busy::Until(at) => {
                let wait = Span(sched::Millis::new(at.saturating_sub(self.now_ms())));
                let summary = format!("sector {number} is tried again in {wait}, after a failure");
                let change = format!("`sealyard sectors retry {number}` tries it now");
                Reason { until_ms: *at, ..Reason::new(WaitsFor::BackOff, summary, change) }
            }
            Busy::File(file) => Reason::new(
                WaitsFor::File,
                format!("sector {number} waits until its {file} file is known to be somewhere"),
                format!("start the worker, or attach the storage path, that holds the {file} file"),
            ),
            Busy::Stage => {
                let (state, most) =
                    (known.record.state(), self.stage_limit(known.record.state()).unwrap_or(0));
                let summary = format!(
                    "sector {number} waits: {most} sectors are in {state} already, and no more may be"
                );
                let change =
                    format!("it goes on when one of them leaves; [sealing.in_flight] {state} sets the limit");
                Reason::new(WaitsFor::Slot, summary, change)
            }
            Busy::Asking if self.message_of(&known.record).is_some() => {
                let (note, unsent) = self.message_of(&known.record).unwrap_or_default();
                let summary = format!("sector {number} waits for {}: {note}", asked_for(&known.record));
                match unsent {
                    true => Reason::new(
                        WaitsFor::Operator,
                        summary,
                        "start the manager with --send-messages; messages move real money",
                    ),
                    false => Reason::new(WaitsFor::Answer, summary, ""),
                }
            }
            Busy::Asking | Busy::Task(_) => Reason::new(
                WaitsFor::Answer,
                format!("sector {number} waits for {}, which was asked for", asked_for(&known.record)),
                "",
            ),
            Busy::Free => resting(self.shared.name(id), &known.record),
        }
    }

    /// A sector with a task.
    fn task_reason(&self, task: &Task, why: Option<&Why>) -> Reason {
        let name = format!(
            "{} of sector {} (task:{})",
            short_code(&task.work),
            self.shared.name(task.sector.id),
            task.id
        );
        if let Some(trouble) = task.open.as_deref().and_then(|open| self.trouble(open)) {
            return Reason::new(WaitsFor::SilentWorker, format!("{name}: {trouble}"), "");
        }
        if let Some(given_up) = self.holding_back(task.sector.id).filter(|_| task.held_back) {
            let (attempt, whom) = (given_up.open.id, given_up.whom());
            let summary = format!(
                "{name} waits for the files that attempt {attempt} holds ({}), which was given up and may still run on the \
                 {whom}",
                given_up.task_type
            );
            let change = "it ends when that worker returns it, or registers again when it is quiet";
            return Reason::new(WaitsFor::Lock, summary, change);
        }
        if let Some(reason) = self.files_in_use(task) {
            let in_use = Reason::new(WaitsFor::Lock, format!("{name} {reason}"), line::CHANGE);
            // Not in line yet: what the scheduler says of it holds besides.
            let besides = why.map(|why| without_session(&alone(why), why)).unwrap_or_default();
            return Reason { prospects: besides, ..in_use };
        }
        if task.asks() {
            let summary = format!("{name} waits until the chain has said that it may begin");
            return Reason::new(WaitsFor::Answer, summary, "");
        }
        let Some(why) = why else {
            return Reason::new(WaitsFor::SilentWorker, format!("{name} is not with the scheduler"), "");
        };
        let (waits_for, change) = match &why.whereabouts {
            Whereabouts::Waiting => (WaitsFor::Worker, advice::for_all(why)),
            Whereabouts::Locked { held_by, .. } => {
                let names: Vec<_> = held_by.iter().map(|holder| holder.name.to_string()).collect();
                (WaitsFor::Lock, format!("it can start when {} has ended", names.join(" and ")))
            }
            Whereabouts::Delayed { .. } => (WaitsFor::Delay, String::new()),
            Whereabouts::Reserved { .. } => (WaitsFor::Reserved, String::new()),
            Whereabouts::Staged { .. } => (WaitsFor::Slot, String::new()),
            Whereabouts::Running { .. } => (WaitsFor::Running, String::new()),
        };
        let until_ms = match &why.whereabouts {
            Whereabouts::Delayed { until, .. } => until.get(),
            _ => 0,
        };
        let alone = alone(why);
        let (summary, prospects) = alone.split_once('\n').unwrap_or((&alone, ""));
        let prospects = prospects.to_owned();
        Reason { until_ms, prospects, ..Reason::new(waits_for, without_session(summary, why), change) }
    }

    fn task_facts(&self, task: &Task, why: Option<Why>) -> TaskFacts {
        let open = task.open.as_deref();
        let next = AttemptId { task: task.id, attempt: task.attempts.saturating_add(1) };
        let workers = why.as_ref().map_or_else(Vec::new, |why| {
            why.workers.iter().filter_map(|worker| self.worker_obstacles(worker, why)).collect()
        });
        let mut scheduler = why.map_or_else(Map::new, |why| object(&why));
        scheduler.remove("workers");
        TaskFacts {
            task: task.id,
            kind: task.work.task_type().unwrap_or(sealtasks::TaskType::Fetch),
            step: short_code(&task.work).to_owned(),
            attempt: open.map_or(next, |open| open.id),
            call: open.and_then(call_of),
            worker: open.map(|open| open.name.clone()),
            priority: self.asking().request(task.id).map_or(0, |request| request.priority),
            queued_ms: task.queued_ms,
            started_ms: open.map_or(0, |open| open.accepted_ms),
            deadline_ms: self.asking().deadline(task.sector.id).map_or(0, sched::Millis::get),
            scheduler,
            workers,
        }
    }

    fn worker_obstacles(&self, found: &WhyWorker, why: &Why) -> Option<WorkerObstacles> {
        let known = self.workers.get(&found.worker.session);
        // One that is lost and of no concern any more is not told of.
        if known.is_none() && found.obstacles.iter().any(|finding| finding.obstacle == Obstacle::Lost) {
            return None;
        }
        let view = |finding: &sched::Finding| ObstacleView {
            facts: object(finding),
            text: finding.obstacle.to_string(),
            change: advice::for_one(finding, &found.host, why),
        };
        Some(WorkerObstacles {
            name: found.host.clone(),
            url: known.map_or_else(String::new, |worker| worker.url.clone()),
            session: found.worker.session,
            obstacles: found.obstacles.iter().map(view).collect(),
        })
    }

    /// In a few words why a task waits, for listings.
    pub(super) fn short_reason(&self, id: TaskId) -> String {
        if let Some(reason) = self.tasks.get(&id).and_then(|task| self.files_in_use(task)) {
            return reason;
        }
        let Some(whereabouts) = self.sched.whereabouts_of(id) else { return String::new() };
        match &whereabouts {
            Whereabouts::Waiting => {
                let kind = self.tasks.get(&id).and_then(|task| task.work.task_type());
                in_short(kind, &self.sched.obstacles_of(id).unwrap_or_default())
            }
            Whereabouts::Locked { held_by, .. } => {
                let names: Vec<_> = held_by.iter().map(|holder| holder.name.to_string()).collect();
                format!("locked by {}", names.join(", "))
            }
            Whereabouts::Delayed { until, .. } => {
                format!("tried again in {}", Span(until.since(sched::Millis::new(self.now_ms()))))
            }
            Whereabouts::Reserved { host, .. } => format!("{host} is kept for it"),
            Whereabouts::Staged { host, .. } => format!("staged on {host}"),
            Whereabouts::Running { host, .. } => format!("runs on {host}"),
        }
    }
}

/// On how many workers each check failed; only the first that failed counts on each.
fn in_short(kind: Option<TaskType>, workers: &[(&str, Vec<Finding>)]) -> String {
    if workers.is_empty() {
        return "no worker is connected".to_owned();
    }
    let mut counts = BTreeMap::<&'static str, (u64, String)>::new();
    for (host, obstacles) in workers {
        let Some(first) = obstacles.first() else { return format!("{host} is free for it") };
        let text = || format!("{host}: {}", first.obstacle);
        let entry = counts.entry(advice::check(&first.obstacle)).or_insert_with(|| (0, text()));
        entry.0 = entry.0.saturating_add(1);
    }
    // A worker that offers the task and lacks something tells more than those that do not offer it.
    let closest = counts.iter().find(|(check, _)| **check != "not offered");
    match (closest, counts.len()) {
        (Some((_, (1, text))), 1) => text.clone(),
        (Some((_, (_, text))), _) => {
            let others = counts.iter().map(|(check, (count, _))| format!("{check} ×{count}"));
            format!("{text} ({})", others.collect::<Vec<_>>().join(", "))
        }
        (None, _) => format!("no worker offers {}", kind.map_or("it", TaskType::short)),
    }
}

fn resting(number: SectorName, record: &SectorRecord) -> Reason {
    let released = format!("`sealyard sectors retry {number}` has it go on to Proving");
    match record.next() {
        Step::Done => {
            Reason::new(WaitsFor::Nothing, format!("sector {number} is done: {}", record.shown_state()), "")
        }
        Step::Rest { why: Rest::NeedsOperator } => Reason::new(
            WaitsFor::Operator,
            format!("sector {number} failed in a way that it is not tried again by itself"),
            format!("remove the cause, then `sealyard sectors retry {number}`"),
        ),
        Step::Rest { why: Rest::WaitsForData } => Reason::new(
            WaitsFor::Operator,
            format!("sector {number} has room for more data"),
            format!(
                "`sealyard sectors add-piece --sector {number} FILE` gives it some; `sealyard sectors start-seal {number}` \
                     seals it as it is"
            ),
        ),
        Step::Rest { why: Rest::StoppedAfterPc2 } => Reason::new(
            WaitsFor::Stopped,
            format!("sector {number} stopped after PC2, as it was pledged to"),
            released,
        ),
        Step::Rest { why: Rest::StoppedAfterC1 } => Reason::new(
            WaitsFor::Stopped,
            format!("sector {number} stopped after C1, as it was pledged to"),
            released,
        ),
        Step::Rest { why: Rest::NotStarted } => {
            Reason::new(WaitsFor::Operator, format!("sector {number} has not been started"), "")
        }
        Step::Run(_)
        | Step::NeedTicket
        | Step::NeedSeed
        | Step::NeedVerification(_)
        | Step::SubmitPreCommit
        | Step::SubmitCommit
        | Step::AwaitMessage { .. }
        | Step::Proceed
        | Step::Retry { .. } => {
            Reason::new(WaitsFor::Answer, format!("sector {number} goes on this instant"), "")
        }
    }
}

fn asked_for(record: &SectorRecord) -> &'static str {
    match record.next() {
        Step::NeedTicket => "its ticket",
        Step::NeedSeed => "its seed",
        Step::NeedVerification(_) => "the verification of its proof",
        Step::SubmitPreCommit => "its pre-commitment's message",
        Step::SubmitCommit => "its proof's message",
        Step::AwaitMessage { .. } => "its message on chain",
        Step::Proceed => "its next state",
        Step::Run(_) => "the deletion of data that is no longer needed",
        Step::Retry { .. } | Step::Rest { .. } | Step::Done => "nothing",
    }
}

fn call_of(open: &Attempt) -> Option<String> {
    match open.phase {
        Phase::Held(_, call) => Some(call.to_string()),
        Phase::Calling(_) | Phase::Ready => None,
    }
}

/// What the scheduler says of the task, workers left aside.
fn alone(why: &Why) -> String {
    Why { workers: Vec::new(), ..why.clone() }.to_string()
}

/// The sentence without the workers' sessions, which stand beside their names; programs find them in the facts.
fn without_session(sentence: &str, why: &Why) -> String {
    let named = match &why.whereabouts {
        Whereabouts::Reserved { worker, .. }
        | Whereabouts::Staged { worker, .. }
        | Whereabouts::Running { worker, .. } => vec![*worker],
        Whereabouts::Locked { held_by, .. } => held_by.iter().map(|holder| holder.worker).collect(),
        Whereabouts::Waiting | Whereabouts::Delayed { .. } => Vec::new(),
    };
    named.iter().fold(sentence.to_owned(), |text, worker| text.replace(&format!(" ({worker})"), ""))
}

/// A value as the keys and values of its JSON form.
fn object(value: &impl serde::Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(map)) => map,
        Ok(other) => Map::from_iter([("value".to_owned(), other)]),
        Err(error) => Map::from_iter([("error".to_owned(), Value::String(error.to_string()))]),
    }
}

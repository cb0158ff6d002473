//! `SealingSchedDiag` in Lotus's shape, for its command line and for what operators have built on it. Never: for people
//! (see `schedule`).

use std::collections::BTreeMap;

use sched::QueuedTask;
use sealtasks::{SectorRef, TaskId};
use serde_json::{Value, json};

use super::Driver;
use super::operator::request_id;

impl Driver {
    /// The queue in its order; those that wait for locks, a time or a worker kept for them stand behind it, since Lotus
    /// knows no such difference. Empty lists are null, as Go writes them.
    pub(crate) fn sched_diag(&self) -> Value {
        let snapshot = self.sched.snapshot();
        let requests = snapshot.queue.iter().chain(&snapshot.waiting).map(request).collect();
        let calls: BTreeMap<_, _> = self
            .calls
            .iter()
            .map(|(call, (attempt, _))| (call.to_string(), self.work_id(attempt.task)))
            .collect();
        let waiting = self.open_attempts().map(|(task, _)| self.work_id(task.id).into()).collect();
        let early = self.early.iter().map(|early| early.call.to_string().into()).collect();
        // We have no windows. A worker stands here once, as one that could always take something.
        let open = self.workers.keys().map(|session| session.to_string().into()).collect();
        json!({
            "SchedInfo": { "Requests": list(requests), "OpenWindows": list(open) },
            "ReturnedWork": null,
            "Waiting": list(waiting),
            "CallToWork": calls,
            "EarlyRet": list(early),
        })
    }

    /// The text of a work id as Lotus builds it: the method and its parameters. Ours are the sector and the task's
    /// number, which make it unique; what Lotus has there (ticket, pieces) is a hash as soon as it is long.
    fn work_id(&self, id: TaskId) -> String {
        let Some(task) = self.tasks.get(&id) else { return String::new() };
        let method = task.work.task_type().map_or("", sealtasks::TaskType::name);
        format!("{method}({})", json!([sector_ref(task.sector), { "Task": id.get() }]))
    }
}

fn request(queued: &QueuedTask) -> Value {
    json!({
        "Sector": { "Miner": queued.sector.id.miner.get(), "Number": queued.sector.id.number.get() },
        "TaskType": queued.kind.name(),
        "Priority": queued.priority,
        "SchedId": request_id(queued.task),
    })
}

fn sector_ref(sector: SectorRef) -> Value {
    let id = json!({ "Miner": sector.id.miner.get(), "Number": sector.id.number.get() });
    json!({ "ID": id, "ProofType": sector.proof.number() })
}

fn list(items: Vec<Value>) -> Value {
    if items.is_empty() { Value::Null } else { Value::Array(items) }
}

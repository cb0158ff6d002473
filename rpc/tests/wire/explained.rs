//! Explanations that the fake manager answers with.

use std::collections::BTreeMap;

use rpc::explain::*;
use sealtasks::{AttemptId, TaskId, TaskType, WorkerId};
use serde_json::{Map, Value, json};

use crate::sample::{SECTOR, SESSION, job_view};

fn facts(value: Value) -> Map<String, Value> {
    value.as_object().cloned().expect("an object")
}

fn message() -> UnsentMessage {
    UnsentMessage {
        to: "f01000".into(),
        from: "f3worker".into(),
        value: "1000".into(),
        method: 28,
        method_name: "PreCommitSectorBatch2".into(),
        params: "gYE=".into(),
        max_fee: "20000000000000000".into(),
    }
}

pub fn explanation() -> Explanation {
    let task = TaskId::new(12);
    let short = json!({ "obstacle": "short", "shortage": "memory", "need": 60_000_000_000_u64, "free": 7 });
    Explanation {
        asked: "12.2".into(),
        sector: SECTOR,
        sector_state: "PreCommit1".into(),
        now_ms: 1_700_000_000_000,
        waits_for: WaitsFor::Worker,
        summary: "PC1 (task:12) waits for a worker".into(),
        prospects: "wanted since 3m ago".into(),
        change: "give a worker more memory".into(),
        until_ms: 1_700_000_100_000,
        last_error: String::new(),
        ended: Some(job_view()),
        message: Some(Box::new(message())),
        task: Some(TaskFacts {
            task,
            kind: TaskType::PreCommit1,
            step: "PC1".into(),
            attempt: AttemptId { task, attempt: 3 },
            call: None,
            worker: None,
            priority: -1,
            queued_ms: 1,
            started_ms: 0,
            deadline_ms: 2,
            scheduler: facts(json!({ "due_at": 5, "whereabouts": { "state": "waiting" } })),
            workers: vec![WorkerObstacles {
                name: "w1".into(),
                url: String::new(),
                session: WorkerId(SESSION),
                obstacles: vec![ObstacleView {
                    facts: facts(short),
                    text: "needs 56 GiB, 7 B free".into(),
                    change: "wait".into(),
                }],
            }],
        }),
    }
}

pub fn schedule() -> Schedule {
    let (task, kind, sector) = (TaskId::new(12), TaskType::PreCommit1, SECTOR);
    let attempt = AttemptId { task, attempt: 3 };
    let held = HeldView { attempt, kind, sector, bound_ms: 4 };
    Schedule {
        now_ms: 9,
        counts: BTreeMap::from([("queued".into(), 2), ("running".into(), 1)]),
        queue: vec![QueuedView {
            place: 1,
            task,
            kind,
            sector,
            priority: 1024,
            queued_ms: 3,
            deadline_ms: 0,
            is_due: true,
            reserved: Some("w1".into()),
            reason: "kept for".into(),
        }],
        left_off: 1,
        workers: vec![WorkerHolds {
            name: "w1".into(),
            url: "http://10.0.0.7:3456/rpc/v0".into(),
            session: WorkerId(SESSION),
            running: vec![held.clone()],
            staged: vec![held],
        }],
        reservations: vec![ReservationView {
            task,
            kind,
            sector,
            worker: "w1".into(),
            made_ms: 5,
            start_by_ms: 6,
            waits_for: vec!["PC1 of sector 41".into()],
        }],
    }
}

//! Workers that fail one type of task, sector after sector: a broken disk or driver fails fast, so its worker is always the
//! one that is free, takes every retry, and would park every sector within minutes. Such a worker gets no task of that
//! type for a while, as long as another one can have it, and an alert says so. Never: stops what runs there.
//!
//! One sector that fails again and again says nothing of a worker. What counts is different sectors in a row: a success
//! begins anew. When the rest is over one task is tried; if it fails the next rest is twice as long.

use std::collections::{BTreeMap, BTreeSet};

use rpc::extension::AlertView;
use rpc::operator::WorkerMode;
use sealtasks::{AttemptId, FailureClass, SectorId, TaskType, WorkerId};

use super::{Driver, Worker};

/// So many different sectors in a row make a worker rest.
const SECTORS: usize = 3;
/// The first rest, in milliseconds: longer than a failed step waits for its first retries.
const FIRST_MS: u64 = 600_000;
/// The longest, in milliseconds.
const MOST_MS: u64 = 6 * 3_600_000;

/// What failed on a worker since something of the type went well there. Forgotten with its session: whoever has repaired a
/// worker starts it again.
#[derive(Default)]
pub(crate) struct Failed(BTreeMap<(WorkerId, TaskType), Row>);

struct Row {
    /// [`SECTORS`] at most.
    sectors: BTreeSet<SectorId>,
    /// When the last one failed, in Unix milliseconds, and its words.
    since_ms: u64,
    reason: String,
    /// Rests so far.
    rests: u32,
    /// It rests until then, in Unix milliseconds.
    until_ms: Option<u64>,
}

impl Row {
    fn is_broken(&self) -> bool {
        self.sectors.len() >= SECTORS
    }
}

impl Driver {
    /// A task failed where this attempt is.
    pub(super) fn note_failure(&mut self, attempt: AttemptId, class: FailureClass, reason: &str) {
        self.note_failed_on(attempt, class);
        match class {
            FailureClass::Environment | FailureClass::Space | FailureClass::Compute => {}
            // The other side's, the input's, or an operator's.
            FailureClass::Network | FailureClass::BadData | FailureClass::Aborted => return,
        }
        let Some((session, kind, sector)) = self.place_of(attempt) else { return };
        let now_ms = self.now_ms();
        let row = self.failed.0.entry((session, kind)).or_insert_with(|| Row {
            sectors: BTreeSet::new(),
            since_ms: now_ms,
            reason: String::new(),
            rests: 0,
            until_ms: None,
        });
        if !row.is_broken() {
            row.sectors.insert(sector);
        }
        (row.since_ms, row.reason) = (now_ms, first_line(reason));
        if row.is_broken() && row.until_ms.is_none() && self.another_takes(session, kind) {
            self.let_rest(session, kind);
        }
    }

    /// A task of this type ended well where this attempt is.
    pub(super) fn note_success(&mut self, attempt: AttemptId) {
        let Some((session, kind, sector)) = self.place_of(attempt) else { return };
        self.note_done_on(sector, kind);
        if self.failed.0.remove(&(session, kind)).is_some() {
            self.tell_resting(session);
        }
    }

    pub(super) fn place_of(&self, attempt: AttemptId) -> Option<(WorkerId, TaskType, SectorId)> {
        let task = self.tasks.get(&attempt.task)?;
        let open = task.open.as_deref().filter(|open| open.id == attempt)?;
        self.workers.get(&open.worker)?;
        Some((open.worker, task.work.task_type()?, task.sector.id))
    }

    /// Whether some other worker would take such a task.
    fn another_takes(&self, session: WorkerId, kind: TaskType) -> bool {
        self.workers.values().any(|other| {
            other.key.session != session
                && other.enabled
                && other.misses == 0
                && other.mode == WorkerMode::Open
                && other.tasks.contains(&kind)
                && !other.resting.contains_key(&kind)
        })
    }

    fn let_rest(&mut self, session: WorkerId, kind: TaskType) {
        let now_ms = self.now_ms();
        let Some(row) = self.failed.0.get_mut(&(session, kind)) else { return };
        let doubled = FIRST_MS.saturating_mul(1_u64.checked_shl(row.rests).unwrap_or(u64::MAX));
        row.until_ms = Some(now_ms.saturating_add(doubled.min(MOST_MS)));
        row.rests = row.rests.saturating_add(1);
        let (sectors, reason) = (row.sectors.len(), row.reason.clone());
        tracing::warn!(worker = %session, task = %kind, sectors, reason, "it fails this task of sector after sector, and gets none for a while");
        self.tell_resting(session);
    }

    /// Ends the rests that have lasted, and those of workers that nobody can stand in for any more.
    pub(super) fn end_rests(&mut self) {
        self.forget_failed_on();
        self.failed.0.retain(|(session, _), _| self.workers.contains_key(session));
        let now_ms = self.now_ms();
        let over = |(session, kind): &(WorkerId, TaskType), row: &Row| {
            row.until_ms.is_some_and(|at| at <= now_ms || !self.another_takes(*session, *kind))
        };
        let over: Vec<_> =
            self.failed.0.iter().filter(|(key, row)| over(key, row)).map(|(key, _)| *key).collect();
        for key in over {
            if let Some(row) = self.failed.0.get_mut(&key) {
                row.until_ms = None;
            }
            self.tell_resting(key.0);
        }
    }

    /// What a worker is not given, and why.
    pub(super) fn resting_of(&self, session: WorkerId) -> BTreeMap<TaskType, String> {
        let here = self.failed.0.iter().filter(|((of, _), row)| *of == session && row.until_ms.is_some());
        here.map(|((_, kind), row)| (*kind, text(*kind, row))).collect()
    }

    fn tell_resting(&mut self, session: WorkerId) {
        let resting = self.resting_of(session);
        self.change(session, |worker| worker.resting = resting);
    }

    /// Workers that fail sector after sector, whether another one can stand in for them or not.
    pub(super) fn broken_workers(&self) -> impl Iterator<Item = AlertView> {
        let broken = self.failed.0.iter().filter(|(_, row)| row.is_broken());
        broken.filter_map(|((session, kind), row)| {
            let worker: &Worker = self.workers.get(session)?;
            Some(AlertView {
                system: "workers".to_owned(),
                subject: worker.name().to_owned(),
                text: text(*kind, row),
                since_ms: row.since_ms,
            })
        })
    }
}

fn text(kind: TaskType, row: &Row) -> String {
    let and = match row.until_ms {
        Some(_) => "other workers get that type meanwhile",
        None => "no other worker takes that type now, or it is being tried here again",
    };
    format!(
        "failed {kind} of {} different sectors in a row, the last with: {}; see to its disks, memory and GPU driver, then start \
         the worker again; {and}",
        row.sectors.len(),
        row.reason
    )
}

/// Enough to know it by; the whole stands with the sector.
fn first_line(reason: &str) -> String {
    reason.lines().next().unwrap_or_default().chars().take(200).collect()
}

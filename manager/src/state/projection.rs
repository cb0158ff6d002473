//! What each event does to the row tables. Never: reads for decisions; an event that finds no row to change is an error.

use rusqlite::Params;
use sealtasks::{AttemptId, CallId, SectorId, SectorRef, TaskId, TaskType};

use super::event::{AttemptOutcome, CallStage, ReservedSpace, StateEvent};
use super::writing::Writing;
use super::{StateError, control, database, hold, identity, measure, reign, scrub, stored, superseded};

/// An event and those that it was committed between.
#[derive(Clone, Copy)]
pub(super) struct Among<'event> {
    pub(super) before: Option<&'event StateEvent>,
    pub(super) event: &'event StateEvent,
    pub(super) next: Option<&'event StateEvent>,
    /// The record that the event brings, as text.
    pub(super) record: &'event str,
}

impl Among<'_> {
    /// What comes next is the end of this attempt.
    fn ends(&self, attempt: AttemptId) -> bool {
        matches!(self.next, Some(StateEvent::AttemptEnded { attempt: ended, .. }) if *ended == attempt)
    }

    /// What comes next is the end of this task.
    fn ends_task(&self, task: TaskId) -> bool {
        matches!(self.next, Some(StateEvent::TaskEnded { task: ended, .. }) if *ended == task)
    }

    /// What a call of this attempt took that has returned just before.
    fn account_of(&self, attempt: AttemptId) -> Account {
        match self.before {
            Some(StateEvent::CallReturned { attempt: of, stage, work_ms, bytes_fetched, .. })
                if *of == attempt =>
            {
                Account::of(*stage, *work_ms, *bytes_fetched)
            }
            _ => Account::default(),
        }
    }
}

/// Changes the rows as the event says.
pub(super) fn apply(writing: &Writing<'_>, at_ms: u64, among: Among<'_>) -> Result<(), StateError> {
    let event = among.event;
    let now = stored("time", at_ms)?;
    let rows = Rows { writing, kind: event.kind(), now };
    let db = writing.connection();
    match event {
        StateEvent::ManagerStarted { .. }
        | StateEvent::DeletePermitted { .. }
        | StateEvent::ReleaseAsked { .. } => Ok(()),
        StateEvent::Overtaken { .. } => reign::store(db, now, event),
        StateEvent::SectorRemoved { sector, .. } => rows.sector_removed(*sector),
        StateEvent::FileScrubbed { .. } => scrub::store(db, now, event),
        StateEvent::CopySuperseded { .. } | StateEvent::CopyCounts { .. } => superseded::store(db, now, event),
        StateEvent::AbortAsked { attempt, .. } => rows.abort_asked(*attempt),
        StateEvent::SectorPledged { sector, state, .. } => rows.sector_pledged(*sector, state, among.record),
        StateEvent::SectorStepped { sector, state, .. } => rows.one(
            "UPDATE sector SET state = ?3, record = ?4, changed_ms = ?5 WHERE miner = ?1 AND number = ?2",
            (rows.number(sector.miner.get())?, rows.number(sector.number.get())?, state, among.record, now),
        ),
        StateEvent::TaskSubmitted { task, sector, task_type, step } => {
            rows.task_submitted(*task, *sector, *task_type, step)
        }
        StateEvent::TaskEnded { task, outcome, reason } => rows.one(
            "UPDATE task SET state = ?2, reason = ?3, ended_ms = ?4 WHERE id = ?1 AND ended_ms = 0",
            (rows.number(task.get())?, outcome.word(), reason, now),
        ),
        StateEvent::AttemptBound { attempt, worker, name, url, peer, reservations } => {
            rows.attempt_bound(*attempt, &worker.to_string(), [name, url, peer], reservations)
        }
        StateEvent::AttemptAdopted { attempt, worker, name, url } => {
            rows.attempt_adopted(*attempt, &worker.to_string(), [name, url])
        }
        StateEvent::CallAccepted { attempt, call, stage } => rows.call_accepted(*attempt, *call, *stage),
        StateEvent::CallReturned { attempt, call, stage, error, work_ms, bytes_fetched } => {
            rows.call_returned(*call, error.as_deref())?;
            // It is then accounted for where the attempt ends: one row is changed once.
            if among.ends(*attempt) {
                return Ok(());
            }
            rows.account(*attempt, Account::of(*stage, *work_ms, *bytes_fetched))
        }
        StateEvent::CallOrphaned { call, result, .. } => rows.one(
            "INSERT INTO call (id, task, attempt, stage, state, accepted_ms, returned_ms, result)
             VALUES (?1, NULL, NULL, 'work', 'orphan', 0, ?2, ?3) ON CONFLICT (id) DO UPDATE SET returned_ms = ?2",
            (call.to_string(), now, json(result)?),
        ),
        StateEvent::AttemptEnded { attempt, outcome, reason } => {
            rows.attempt_ended(*attempt, *outcome, reason, among.account_of(*attempt))?;
            // It needs not wait again in between.
            if among.ends_task(attempt.task) {
                return Ok(());
            }
            rows.task_waits(attempt.task, reason)
        }
        StateEvent::AttemptDetached { attempt, reason } => rows.attempt_detached(*attempt, reason),
        StateEvent::WorkerModeSet { .. }
        | StateEvent::WorkerRecognised { .. }
        | StateEvent::WorkerCapsSet { .. }
        | StateEvent::MachineCapsSet { .. }
        | StateEvent::SectorPrioritySet { .. }
        | StateEvent::TaskPrioritySet { .. } => control::store(db, now, event),
        StateEvent::MinerAdded { miner, .. } => identity::add(db, *miner),
        StateEvent::MinerRemoved { miner, .. } => identity::remove(db, *miner),
        StateEvent::PledgingPaused { paused, .. } => rows.one(
            "UPDATE counter SET value = ?1 WHERE name = 'pledging_paused'",
            [i64::from(*paused)],
        ),
        StateEvent::SectorHeld { .. } | StateEvent::SectorLetGo { .. } => hold::store(db, now, event),
        StateEvent::DurationMeasured { worker, task_type, proof, .. } => {
            measure::store_duration(db, now, worker, (*task_type, *proof), event)
        }
        StateEvent::ThroughputMeasured { worker, .. } => measure::store_throughput(db, now, worker, event),
    }
}

/// What a call took of its attempt.
#[derive(Clone, Copy, Default)]
struct Account {
    /// The worker's clock may differ from ours, so only the duration it measured is used, within our own bounds; 0 = not
    /// told, or no work yet.
    work_ms: u64,
    bytes: u64,
}

impl Account {
    const fn of(stage: CallStage, work_ms: u64, bytes: u64) -> Self {
        match stage {
            CallStage::Prepare => Self { work_ms: 0, bytes },
            CallStage::Work => Self { work_ms, bytes },
        }
    }
}

/// The row tables as one event sees them.
struct Rows<'rows, 'db> {
    writing: &'rows Writing<'db>,
    kind: &'static str,
    now: i64,
}

impl Rows<'_, '_> {
    fn sector_pledged(&self, sector: SectorRef, state: &str, record: &str) -> Result<(), StateError> {
        let (miner, number) = (self.number(sector.id.miner.get())?, self.number(sector.id.number.get())?);
        self.one(
            "INSERT INTO sector (miner, number, proof, state, record, changed_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            (miner, number, i64::from(sector.proof), state, record, self.now),
        )
    }

    /// Its record stays as it was.
    fn sector_removed(&self, sector: SectorId) -> Result<(), StateError> {
        self.one(
            "UPDATE sector SET state = 'Removed', changed_ms = ?3 WHERE miner = ?1 AND number = ?2",
            (self.number(sector.miner.get())?, self.number(sector.number.get())?, self.now),
        )
    }

    fn abort_asked(&self, attempt: AttemptId) -> Result<(), StateError> {
        let (task, number) = self.attempt(attempt)?;
        self.one(
            "UPDATE attempt SET abort_ms = ?3 WHERE task = ?1 AND attempt = ?2 AND ended_ms = 0",
            (task, number, self.now),
        )
    }

    fn attempt_bound(
        &self,
        attempt: AttemptId,
        worker: &str,
        [name, url, peer]: [&str; 3],
        reservations: &[ReservedSpace],
    ) -> Result<(), StateError> {
        let (task, number) = self.attempt(attempt)?;
        self.one(
            "INSERT INTO attempt (task, attempt, worker, name, url, peer, state, reason, bound_ms, started_ms,
             ended_ms, bytes_fetched) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'dispatching', '', ?7, 0, 0, 0)",
            (task, number, worker, name, url, peer, self.now),
        )?;
        self.one(
            "UPDATE task SET state = 'dispatching', reason = '' WHERE id = ?1 AND ended_ms = 0",
            [task],
        )?;
        reservations.iter().try_for_each(|space| self.reserve(attempt, space))
    }

    fn attempt_adopted(
        &self,
        attempt: AttemptId,
        worker: &str,
        [name, url]: [&str; 2],
    ) -> Result<(), StateError> {
        let (task, number) = self.attempt(attempt)?;
        self.one(
            "UPDATE attempt SET worker = ?3, name = ?4, url = ?5
             WHERE task = ?1 AND attempt = ?2 AND ended_ms = 0",
            (task, number, worker, name, url),
        )
    }

    fn task_submitted(
        &self,
        task: TaskId,
        sector: SectorRef,
        task_type: TaskType,
        step: &str,
    ) -> Result<(), StateError> {
        let (miner, number) = (self.number(sector.id.miner.get())?, self.number(sector.id.number.get())?);
        self.one(
            "INSERT INTO task (id, miner, number, proof, kind, step, state, reason, queued_ms, ended_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'queued', '', ?7, 0)",
            (
                self.number(task.get())?,
                miner,
                number,
                i64::from(sector.proof),
                task_type.name(),
                step,
                self.now,
            ),
        )
    }

    fn call_accepted(&self, attempt: AttemptId, call: CallId, stage: CallStage) -> Result<(), StateError> {
        let (task, number) = self.attempt(attempt)?;
        // A call known already: its return came first and made it an orphan, or the worker repeats its answer.
        self.one(
            "INSERT INTO call (id, task, attempt, stage, state, accepted_ms, returned_ms, result)
             VALUES (?1, ?2, ?3, ?4, 'held', ?5, 0, '')
             ON CONFLICT (id) DO UPDATE SET task = ?2, attempt = ?3, stage = ?4, accepted_ms = ?5",
            (call.to_string(), task, number, stage.word(), self.now),
        )?;
        let state = match stage {
            CallStage::Prepare => "acquiring",
            CallStage::Work => "running",
        };
        self.one(
            "UPDATE attempt SET state = ?3, started_ms = CASE WHEN ?3 = 'running' THEN ?4 ELSE 0 END
             WHERE task = ?1 AND attempt = ?2 AND ended_ms = 0",
            (task, number, state, self.now),
        )?;
        self.one("UPDATE task SET state = ?2 WHERE id = ?1 AND ended_ms = 0", (task, state))
    }

    fn call_returned(&self, call: CallId, error: Option<&str>) -> Result<(), StateError> {
        self.one(
            "UPDATE call SET state = 'returned', returned_ms = ?2, result = ?3 WHERE id = ?1",
            (call.to_string(), self.now, error.unwrap_or("")),
        )
    }

    fn account(&self, attempt: AttemptId, account: Account) -> Result<(), StateError> {
        let (task, number) = self.attempt(attempt)?;
        self.one(
            "UPDATE attempt SET bytes_fetched = bytes_fetched + ?3,
             started_ms = CASE WHEN ?4 > 0 THEN max(bound_ms, ?5 - ?4) ELSE started_ms END
             WHERE task = ?1 AND attempt = ?2",
            (task, number, self.number(account.bytes)?, self.number(account.work_ms)?, self.now),
        )
    }

    fn attempt_ended(
        &self,
        attempt: AttemptId,
        outcome: AttemptOutcome,
        reason: &str,
        account: Account,
    ) -> Result<(), StateError> {
        let (task, number) = self.attempt(attempt)?;
        let (bytes, work_ms) = (self.number(account.bytes)?, self.number(account.work_ms)?);
        self.one(
            "UPDATE attempt SET state = ?3, reason = ?4, ended_ms = ?5, bytes_fetched = bytes_fetched + ?6,
             started_ms = CASE WHEN ?7 > 0 THEN max(bound_ms, ?5 - ?7) ELSE started_ms END
             WHERE task = ?1 AND attempt = ?2 AND ended_ms = 0",
            (task, number, outcome.word(), reason, self.now, bytes, work_ms),
        )?;
        self.any("DELETE FROM reservation WHERE task = ?1 AND attempt = ?2", (task, number))
    }

    /// The task waits again until a later event of the same commit ends it, or a next attempt is bound.
    fn task_waits(&self, task: TaskId, reason: &str) -> Result<(), StateError> {
        self.any(
            "UPDATE task SET state = 'queued', reason = ?2 WHERE id = ?1 AND ended_ms = 0",
            (self.number(task.get())?, reason),
        )
    }

    /// It holds what it held.
    fn attempt_detached(&self, attempt: AttemptId, reason: &str) -> Result<(), StateError> {
        let (task, number) = self.attempt(attempt)?;
        self.one(
            "UPDATE attempt SET state = 'detached', reason = ?3
             WHERE task = ?1 AND attempt = ?2 AND ended_ms = 0",
            (task, number, reason),
        )
    }

    fn reserve(&self, attempt: AttemptId, space: &ReservedSpace) -> Result<(), StateError> {
        let (task, number) = self.attempt(attempt)?;
        self.one(
            "INSERT INTO reservation (task, attempt, path, types, bytes) VALUES (?1, ?2, ?3, ?4, ?5)",
            (task, number, space.path.as_str(), i64::from(space.types), self.number(space.bytes)?),
        )
    }

    /// Runs a statement that must change exactly one row.
    fn one(&self, sql: &'static str, params: impl Params) -> Result<(), StateError> {
        match self.change(sql, params)? {
            1 => Ok(()),
            changed => Err(self.bad(&format!("{changed} rows match instead of one"))),
        }
    }

    /// Runs a statement that may change any number of rows.
    fn any(&self, sql: &'static str, params: impl Params) -> Result<(), StateError> {
        self.change(sql, params).map(|_changed| ())
    }

    fn change(&self, sql: &'static str, params: impl Params) -> Result<usize, StateError> {
        self.writing.run(sql, params).map_err(database("change a row"))
    }

    fn attempt(&self, attempt: AttemptId) -> Result<(i64, i64), StateError> {
        Ok((self.number(attempt.task.get())?, attempt.attempt.into()))
    }

    fn number(&self, number: u64) -> Result<i64, StateError> {
        stored(self.kind, number)
    }

    fn bad(&self, detail: &str) -> StateError {
        StateError::Inapplicable { kind: self.kind, detail: detail.to_owned() }
    }
}

pub(super) fn json(value: &impl serde::Serialize) -> Result<String, StateError> {
    serde_json::to_string(value)
        .map_err(|source| StateError::Corrupt { what: "event", detail: source.to_string() })
}

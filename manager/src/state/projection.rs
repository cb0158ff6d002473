//! What each event does to the row tables. Never: reads for decisions; an event that finds no row to change is an error.

use rusqlite::{Connection, Params};
use sealtasks::{AttemptId, CallId, SectorId, SectorRef, TaskId, TaskType};

use super::event::{AttemptOutcome, CallStage, ReservedSpace, StateEvent};
use super::writer::Written;
use super::{
    Epoch, StateError, control, database, hold, identity, measure, reign, schema, scrub, stored, superseded,
};

/// Adds the event to the table of events.
pub(super) fn append(db: &Connection, epoch: Epoch, at_ms: u64, written: &Written) -> Result<(), StateError> {
    let Written { event, body } = written;
    let subject = event.subject();
    let miner = subject.sector.map(|s| stored("miner actor", s.miner.get())).transpose()?;
    let number = subject.sector.map(|s| stored("sector number", s.number.get())).transpose()?;
    let task = subject.task.map(|task| stored("task", task.get())).transpose()?;
    let columns = (stored("epoch", epoch.get())?, stored("time", at_ms)?, event.kind());
    db.prepare_cached(
        "INSERT INTO event (epoch, at_ms, kind, miner, number, task, attempt, body)
         VALUES (?1, ?2, ?3, coalesce(?4, (SELECT miner FROM task WHERE id = ?6)),
                 coalesce(?5, (SELECT number FROM task WHERE id = ?6)), ?6, ?7, ?8)",
    )
    .and_then(|mut statement| {
        let (epoch, at_ms, kind) = columns;
        statement.execute((epoch, at_ms, kind, miner, number, task, subject.attempt, body))
    })
    .map_err(database("append an event"))?;
    Ok(())
}

/// Changes the rows as the event says.
pub(super) fn apply(db: &Connection, at_ms: u64, event: &StateEvent) -> Result<(), StateError> {
    let now = stored("time", at_ms)?;
    let rows = Rows { db, kind: event.kind(), now };
    match event {
        StateEvent::ManagerStarted { .. }
        | StateEvent::DeletePermitted { .. }
        | StateEvent::ReleaseAsked { .. } => Ok(()),
        StateEvent::Overtaken { .. } => reign::store(db, now, event),
        StateEvent::SectorRemoved { sector, .. } => rows.sector_removed(*sector),
        StateEvent::FileScrubbed { .. } => scrub::store(db, now, event),
        StateEvent::CopySuperseded { .. } | StateEvent::CopyCounts { .. } => superseded::store(db, now, event),
        StateEvent::AbortAsked { attempt, .. } => rows.abort_asked(*attempt),
        StateEvent::SectorPledged { sector, state, record } => rows.sector_pledged(*sector, state, record),
        StateEvent::SectorStepped { sector, state, record, .. } => rows.one(
            "UPDATE sector SET state = ?3, record = ?4, changed_ms = ?5 WHERE miner = ?1 AND number = ?2",
            (rows.number(sector.miner.get())?, rows.number(sector.number.get())?, state, json(record)?, now),
        ),
        StateEvent::TaskSubmitted { task, sector, task_type, step } => {
            rows.task_submitted(*task, *sector, *task_type, step)
        }
        StateEvent::TaskEnded { task, outcome, reason } => rows.one(
            "UPDATE task SET state = ?2, reason = ?3, ended_ms = ?4 WHERE id = ?1 AND ended_ms = 0",
            (rows.number(task.get())?, outcome.word(), reason, now),
        ),
        StateEvent::AttemptBound { attempt, worker, name, url, peer, reservations } => {
            let (task, number) = rows.attempt(*attempt)?;
            rows.one(
                "INSERT INTO attempt (task, attempt, worker, name, url, peer, state, reason, bound_ms, started_ms,
                 ended_ms, bytes_fetched) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'dispatching', '', ?7, 0, 0, 0)",
                (task, number, worker.to_string(), name, url, peer, now),
            )?;
            rows.one("UPDATE task SET state = 'dispatching', reason = '' WHERE id = ?1 AND ended_ms = 0", [task])?;
            reservations.iter().try_for_each(|space| rows.reserve(*attempt, space))
        }
        StateEvent::AttemptAdopted { attempt, worker, name, url } => {
            let (task, number) = rows.attempt(*attempt)?;
            rows.one(
                "UPDATE attempt SET worker = ?3, name = ?4, url = ?5
                 WHERE task = ?1 AND attempt = ?2 AND ended_ms = 0",
                (task, number, worker.to_string(), name, url),
            )
        }
        StateEvent::CallAccepted { attempt, call, stage } => rows.call_accepted(*attempt, *call, *stage),
        StateEvent::CallReturned { attempt, call, stage, error, work_ms, bytes_fetched } => {
            rows.call_returned(*call, error.as_deref())?;
            rows.account(*attempt, *stage, *work_ms, *bytes_fetched)
        }
        StateEvent::CallOrphaned { call, result, .. } => rows.one(
            "INSERT INTO call (id, task, attempt, stage, state, accepted_ms, returned_ms, result)
             VALUES (?1, NULL, NULL, 'work', 'orphan', 0, ?2, ?3) ON CONFLICT (id) DO UPDATE SET returned_ms = ?2",
            (call.to_string(), now, json(result)?),
        ),
        StateEvent::AttemptEnded { attempt, outcome, reason } => rows.attempt_ended(*attempt, *outcome, reason),
        StateEvent::AttemptDetached { attempt, reason } => rows.attempt_detached(*attempt, reason),
        StateEvent::WorkerModeSet { .. }
        | StateEvent::WorkerRecognised { .. }
        | StateEvent::WorkerCapsSet { .. }
        | StateEvent::MachineCapsSet { .. }
        | StateEvent::SectorPrioritySet { .. }
        | StateEvent::TaskPrioritySet { .. } => control::store(db, now, event),
        StateEvent::MinerAdded { miner, .. } => identity::add(db, *miner),
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

/// The row tables as one event sees them.
struct Rows<'db> {
    db: &'db Connection,
    kind: &'static str,
    now: i64,
}

impl Rows<'_> {
    fn sector_pledged(
        &self,
        sector: SectorRef,
        state: &str,
        record: &serde_json::Value,
    ) -> Result<(), StateError> {
        let (miner, number) = (self.number(sector.id.miner.get())?, self.number(sector.id.number.get())?);
        let next = sector.id.number.get().checked_add(1).ok_or_else(|| self.bad("no number is left"))?;
        schema::raise_next_sector(self.db, miner, next)?;
        self.one(
            "INSERT INTO sector (miner, number, proof, state, record, changed_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            (miner, number, i64::from(sector.proof), state, json(record)?, self.now),
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

    fn task_submitted(
        &self,
        task: TaskId,
        sector: SectorRef,
        task_type: TaskType,
        step: &str,
    ) -> Result<(), StateError> {
        let next = task.get().checked_add(1).ok_or_else(|| self.bad("no task id is left"))?;
        schema::raise_counter(self.db, "next_task", next)?;
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

    /// The worker's clock may differ from ours, so only the duration it measured is used, within our own bounds.
    fn account(
        &self,
        attempt: AttemptId,
        stage: CallStage,
        work_ms: u64,
        bytes: u64,
    ) -> Result<(), StateError> {
        let (task, number) = self.attempt(attempt)?;
        let work_ms = match stage {
            CallStage::Prepare => 0,
            CallStage::Work => self.number(work_ms)?,
        };
        self.one(
            "UPDATE attempt SET bytes_fetched = bytes_fetched + ?3,
             started_ms = CASE WHEN ?4 > 0 THEN max(bound_ms, ?5 - ?4) ELSE started_ms END
             WHERE task = ?1 AND attempt = ?2",
            (task, number, self.number(bytes)?, work_ms, self.now),
        )
    }

    fn attempt_ended(
        &self,
        attempt: AttemptId,
        outcome: AttemptOutcome,
        reason: &str,
    ) -> Result<(), StateError> {
        let (task, number) = self.attempt(attempt)?;
        self.one(
            "UPDATE attempt SET state = ?3, reason = ?4, ended_ms = ?5
             WHERE task = ?1 AND attempt = ?2 AND ended_ms = 0",
            (task, number, outcome.word(), reason, self.now),
        )?;
        self.any("DELETE FROM reservation WHERE task = ?1 AND attempt = ?2", (task, number))?;
        // The task waits again until a later event of the same commit ends it, or a next attempt is bound.
        self.any(
            "UPDATE task SET state = 'queued', reason = ?2 WHERE id = ?1 AND ended_ms = 0",
            (task, reason),
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
    fn one(&self, sql: &str, params: impl Params) -> Result<(), StateError> {
        match self.change(sql, params)? {
            1 => Ok(()),
            changed => Err(self.bad(&format!("{changed} rows match instead of one"))),
        }
    }

    /// Runs a statement that may change any number of rows.
    fn any(&self, sql: &str, params: impl Params) -> Result<(), StateError> {
        self.change(sql, params).map(|_changed| ())
    }

    fn change(&self, sql: &str, params: impl Params) -> Result<usize, StateError> {
        self.db
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute(params))
            .map_err(database("change a row"))
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

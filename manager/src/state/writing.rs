//! The writer's hold on the database: statements that stay prepared, events added many at a time, and which sector each
//! task is for. Never: what an event does to the rows (see `projection`).

use std::cell::RefCell;
use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, Params, Statement};
use sealtasks::{SectorId, TaskId};

use super::writer::Submission;
use super::{Epoch, StateError, StateEvent, database, loaded, stored};

/// Events that one statement adds, the most first: what a statement costs beside its rows is then paid once for many.
const TOGETHER: [usize; 3] = [16, 4, 1];

/// Bytes of text that one statement adds, where it adds more than one event: SQLite keeps a copy of each while it runs.
const TOGETHER_BYTES: usize = 1 << 20;

/// Tasks whose sector is remembered when events are added, some 64 bytes each, and those of one transaction on top; any other
/// one's is looked up when an event names it.
const TASKS_MAX: usize = 1 << 16;

/// One connection that writes, for as long as it does.
pub(super) struct Writing<'db> {
    db: &'db Connection,
    /// By the text itself, not by what it says: the texts are literals, and there are some thirty of them.
    kept: RefCell<Vec<(&'static str, Statement<'db>)>>,
    /// By the number of rows.
    appending: RefCell<Vec<(usize, Statement<'db>)>>,
    /// Whose tasks these are; an ended one's is here only where it was looked up since.
    sectors: RefCell<HashMap<TaskId, SectorId>>,
    tasks_max: usize,
}

/// What a row of table `event` says besides its epoch.
struct Row<'event> {
    at_ms: i64,
    kind: &'static str,
    miner: Option<i64>,
    number: Option<i64>,
    task: Option<i64>,
    attempt: Option<u32>,
    body: &'event str,
}

impl<'db> Writing<'db> {
    pub(super) fn new(db: &'db Connection) -> Self {
        Self {
            db,
            kept: RefCell::default(),
            appending: RefCell::default(),
            sectors: RefCell::default(),
            tasks_max: TASKS_MAX,
        }
    }

    /// For statements that are seldom run.
    pub(super) const fn connection(&self) -> &'db Connection {
        self.db
    }

    /// Runs a statement, and tells how many rows it has changed.
    pub(super) fn run(&self, sql: &'static str, params: impl Params) -> rusqlite::Result<usize> {
        let mut kept = self.kept.borrow_mut();
        if let Some((_, statement)) = kept.iter_mut().find(|(known, _)| std::ptr::eq(*known, sql)) {
            let changed = statement.execute(params);
            // What was bound may be megabytes, and the next to be bound may be long in coming.
            statement.clear_bindings();
            return changed;
        }
        let mut statement = self.db.prepare(sql)?;
        let changed = statement.execute(params);
        statement.clear_bindings();
        kept.push((sql, statement));
        changed
    }

    /// Nothing that was remembered since is true: the transaction is rolled back.
    pub(super) fn forget(&self) {
        self.sectors.borrow_mut().clear();
    }

    /// Adds the events to the table of events.
    pub(super) fn append(&self, epoch: Epoch, batch: &[Submission]) -> Result<(), StateError> {
        let epoch = stored("epoch", epoch.get())?;
        // Here, and not where one is added: tasks of these events may be in no row yet.
        if self.sectors.borrow().len() > self.tasks_max {
            self.forget();
        }
        let mut rows = Vec::with_capacity(batch.iter().map(|submission| submission.events.len()).sum());
        for submission in batch {
            let at_ms = stored("time", submission.at_ms)?;
            for written in &submission.events {
                rows.push(self.row(at_ms, &written.event, &written.body)?);
            }
        }
        let mut left = rows.as_slice();
        while !left.is_empty() {
            let (first, rest) = left.split_at(together(left));
            self.append_rows(epoch, first).map_err(database("append an event"))?;
            left = rest;
        }
        // Only now: an event after a task's end may name it, too.
        let mut sectors = self.sectors.borrow_mut();
        for written in batch.iter().flat_map(|submission| &submission.events) {
            if let StateEvent::TaskEnded { task, .. } = &written.event {
                sectors.remove(task);
            }
        }
        Ok(())
    }

    fn row<'event>(
        &self,
        at_ms: i64,
        event: &StateEvent,
        body: &'event str,
    ) -> Result<Row<'event>, StateError> {
        let subject = event.subject();
        let sector = match (subject.sector, subject.task) {
            (None, Some(task)) => self.sector_of(task)?,
            (sector, _) => sector,
        };
        if let StateEvent::TaskSubmitted { task, sector, .. } = event {
            self.remember(*task, sector.id);
        }
        Ok(Row {
            at_ms,
            kind: event.kind(),
            miner: sector.map(|s| stored("miner actor", s.miner.get())).transpose()?,
            number: sector.map(|s| stored("sector number", s.number.get())).transpose()?,
            task: subject.task.map(|task| stored("task", task.get())).transpose()?,
            attempt: subject.attempt,
            body,
        })
    }

    fn remember(&self, task: TaskId, sector: SectorId) {
        self.sectors.borrow_mut().insert(task, sector);
    }

    /// The sector that a task is for; `None`: there is no such task.
    fn sector_of(&self, task: TaskId) -> Result<Option<SectorId>, StateError> {
        if let Some(known) = self.sectors.borrow().get(&task) {
            return Ok(Some(*known));
        }
        let id = stored("task", task.get())?;
        let found = self
            .db
            .prepare_cached("SELECT miner, number FROM task WHERE id = ?1")
            .and_then(|mut statement| {
                statement.query_row([id], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))).optional()
            })
            .map_err(database("find a task's sector"))?;
        let Some((miner, number)) = found else { return Ok(None) };
        let sector = SectorId::new(loaded("miner actor", miner)?, loaded("sector number", number)?);
        self.remember(task, sector);
        Ok(Some(sector))
    }

    /// As many rows as one of `TOGETHER`.
    fn append_rows(&self, epoch: i64, rows: &[Row<'_>]) -> rusqlite::Result<()> {
        let mut appending = self.appending.borrow_mut();
        let known = appending.iter().position(|(count, _)| *count == rows.len());
        let at = match known {
            Some(at) => at,
            None => {
                appending.push((rows.len(), self.db.prepare(&append_sql(rows.len()))?));
                appending.len() - 1
            }
        };
        let (_, statement) = &mut appending[at];
        statement.raw_bind_parameter(1, epoch)?;
        for (row, first) in rows.iter().zip((2..).step_by(7)) {
            statement.raw_bind_parameter(first, row.at_ms)?;
            statement.raw_bind_parameter(first + 1, row.kind)?;
            statement.raw_bind_parameter(first + 2, row.miner)?;
            statement.raw_bind_parameter(first + 3, row.number)?;
            statement.raw_bind_parameter(first + 4, row.task)?;
            statement.raw_bind_parameter(first + 5, row.attempt)?;
            statement.raw_bind_parameter(first + 6, row.body)?;
        }
        let added = statement.raw_execute();
        statement.clear_bindings();
        added.map(drop)
    }
}

/// How many of these rows one statement adds; there is one at least.
fn together(rows: &[Row<'_>]) -> usize {
    let fits = |count: &usize| {
        let bytes = |rows: &[Row<'_>]| rows.iter().map(|row| row.body.len()).sum::<usize>();
        rows.get(..*count).is_some_and(|first| bytes(first) <= TOGETHER_BYTES)
    };
    TOGETHER.into_iter().find(fits).unwrap_or(1)
}

/// The epoch is parameter 1, then come the seven others of each row.
fn append_sql(rows: usize) -> String {
    let values: Vec<_> = (0..rows)
        .map(|row| {
            let others: Vec<_> = (0..7).map(|column| format!("?{}", 2 + 7 * row + column)).collect();
            format!("(?1, {})", others.join(", "))
        })
        .collect();
    format!(
        "INSERT INTO event (epoch, at_ms, kind, miner, number, task, attempt, body) VALUES {}",
        values.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;
    use sealtasks::{ActorId, RegisteredSealProof, SectorRef, SectorSize, TaskType};
    use tokio::sync::oneshot;

    use super::*;
    use crate::state::writer::Written;
    use crate::state::{MinerIdentity, TaskOutcome, schema};

    fn database() -> (tempfile::TempDir, Connection) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state.db");
        let (actor, sector_size) = (ActorId::new(1000), SectorSize::KiB2);
        schema::create(&path, &MinerIdentity { actor, sector_size, beacon: [7; 32], chain: None })
            .expect("a new database");
        (dir, schema::open(&path).expect("the writer's connection"))
    }

    fn submission(events: Vec<StateEvent>) -> Submission {
        let events = events.into_iter().map(Written::new).collect::<Result<_, _>>().expect("text");
        Submission { at_ms: 1, events, ack: oneshot::channel().0 }
    }

    fn submitted(task: u64) -> StateEvent {
        let proof = RegisteredSealProof::for_new_sector(SectorSize::KiB2);
        let (task, sector) = (TaskId::new(task), SectorRef { id: SectorId::new(1000, 100 + task), proof });
        StateEvent::TaskSubmitted { task, sector, task_type: TaskType::PreCommit1, step: "PC1".to_owned() }
    }

    fn about(task: u64) -> StateEvent {
        StateEvent::ReleaseAsked { task: TaskId::new(task), keep: Vec::new() }
    }

    /// Their rows come after their events, so nowhere else does it stand yet which sectors they are for.
    #[test]
    fn events_of_new_tasks_name_their_sectors_however_few_are_remembered() {
        let (_dir, db) = database();
        let mut writing = Writing::new(&db);
        writing.tasks_max = 2;
        let ended =
            StateEvent::TaskEnded { task: TaskId::new(1), outcome: TaskOutcome::Done, reason: String::new() };
        let first = submission((1..=5).map(submitted).collect());
        let second = submission((1..=5).map(about).chain([ended, about(1)]).collect());
        writing.append(Epoch(1), &[first, second]).expect("added");
        let mut statement = db.prepare("SELECT task, number FROM event ORDER BY seq").expect("a query");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
        let found: Vec<(i64, Option<i64>)> = rows.collect::<Result<_, _>>().expect("events");
        let expected = (1..=5).chain(1..=5).chain([1, 1]).map(|task| (task, Some(100 + task)));
        assert_eq!(found, expected.collect::<Vec<_>>());
        assert_eq!(writing.sectors.borrow().len(), 4, "the one that has ended is forgotten");
        writing.append(Epoch(1), &[submission(vec![about(9)])]).expect("added");
        assert!(writing.sectors.borrow().is_empty(), "there were more than it remembers");
    }

    #[test]
    fn a_statement_adds_as_many_events_as_are_small_together() {
        let rows = |count: usize, body: &'static str| -> Vec<Row<'static>> {
            let row =
                |_| Row { at_ms: 1, kind: "k", miner: None, number: None, task: None, attempt: None, body };
            (0..count).map(row).collect()
        };
        let text: &'static str = "a".repeat(TOGETHER_BYTES + 1).leak();
        let expected =
            [(20, 10, 16), (15, 10, 4), (3, 10, 1), (20, TOGETHER_BYTES / 4, 4), (20, TOGETHER_BYTES + 1, 1)];
        for (count, bytes, expected) in expected {
            assert_eq!(together(&rows(count, &text[..bytes])), expected, "{count} of {bytes} bytes");
        }
    }

    #[test]
    fn large_texts_do_not_stay_with_the_statements_that_added_them() {
        const LARGE: usize = 8 << 20;
        let (_dir, db) = database();
        let writing = Writing::new(&db);
        let text = || "a".repeat(LARGE);
        for id in ["first ", "second "] {
            writing.run("INSERT INTO takeover (id) VALUES (?1)", [id.to_owned() + &text()]).expect("added");
            let ended =
                StateEvent::TaskEnded { task: TaskId::new(1), outcome: TaskOutcome::Failed, reason: text() };
            writing.append(Epoch(1), &[submission(vec![ended])]).expect("added");
            let (kept, appending) = (writing.kept.borrow(), writing.appending.borrow());
            let all = kept.iter().map(|(_, kept)| kept).chain(appending.iter().map(|(_, kept)| kept));
            let used: Vec<_> = all.map(|kept| kept.get_status(StatementStatus::MemUsed)).collect();
            assert_eq!(used.len(), 2);
            assert!(used.iter().all(|used| *used < 1 << 20), "{used:?} bytes");
        }
    }
}

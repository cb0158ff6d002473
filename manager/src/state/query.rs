//! What the projection answers: everything a starting manager needs, and the views of the API. Never: writes.

use rusqlite::{Connection, Params, Row};
use sealtasks::{
    ActorId, AttemptId, CallId, RegisteredSealProof, SectorId, SectorNumber, SectorRef, TaskId, TaskType,
    UnsealedRange, WorkerId,
};

use super::event::{CallStage, ReservedSpace, StateEvent};
use super::{State, StateError, database, loaded, schema, stored};

/// Events of one sector given in one answer; the newest are kept.
const LOG_ROWS_MAX: i64 = 1000;
/// Open tasks given in one answer, oldest first.
const OPEN_ROWS_MAX: i64 = 10_000;

/// A sector's row.
#[derive(Clone, Debug, PartialEq)]
pub struct SectorRow {
    /// Which, and how it is sealed.
    pub sector: SectorRef,
    /// Its state's name.
    pub state: String,
    /// The pipeline's record, as JSON.
    pub record: serde_json::Value,
    /// The priority of its tasks.
    pub priority: i64,
}

/// A task that has not ended.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenTask {
    /// Its id.
    pub task: TaskId,
    /// The sector it is for.
    pub sector: SectorRef,
    /// As what it is scheduled.
    pub task_type: TaskType,
    /// The input's short code.
    pub step: String,
    /// Its own priority; `None` = its sector's.
    pub priority: Option<i64>,
    /// When it was submitted, in Unix milliseconds.
    pub queued_ms: u64,
    /// The highest attempt so far; 0 = none.
    pub attempts: u32,
    /// Attempts that were lost with their workers.
    pub disowned: u32,
    /// The attempt that has not ended. In a place of its own: a million tasks may wait and have none.
    pub open: Option<Box<OpenAttempt>>,
}

/// An attempt that has not ended.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenAttempt {
    /// Which.
    pub attempt: AttemptId,
    /// The worker's session when it was bound.
    pub worker: WorkerId,
    /// The worker's name.
    pub name: String,
    /// Where it was called.
    pub url: String,
    /// `sealyard`, `lotus` or `local`.
    pub peer: String,
    /// When it was bound, in Unix milliseconds.
    pub bound_ms: u64,
    /// An operator has asked for its end.
    pub abort_asked: bool,
    /// Its calls, the `Prepare` first.
    pub calls: Vec<CallRow>,
    /// What was promised to it.
    pub reservations: Vec<ReservedSpace>,
}

/// A call's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallRow {
    /// The call.
    pub call: CallId,
    /// The attempt it belongs to; `None` = an orphan.
    pub attempt: Option<AttemptId>,
    /// Which of the attempt's calls.
    pub stage: CallStage,
    /// `held`, `returned` or `orphan`.
    pub state: String,
    /// When its result came, in Unix milliseconds; 0 = not yet.
    pub returned_ms: u64,
    /// An orphan's result as JSON; else the error's text, empty when it worked.
    pub result: String,
}

/// One attempt, or a task that waits for one, as `jobs` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRow {
    /// The attempt; for a waiting task the one that will be next.
    pub attempt: AttemptId,
    /// The latest call.
    pub call: Option<String>,
    /// The sector.
    pub sector: SectorId,
    /// The task.
    pub task_type: TaskType,
    /// The input's short code: tells `MOVE` from `GET`.
    pub step: String,
    /// `queued`, `dispatching`, `acquiring`, `running` or how it ended.
    pub state: String,
    /// Why it failed or waits.
    pub reason: String,
    /// The worker's name.
    pub worker: Option<String>,
    /// Its session when it was bound.
    pub session: Option<WorkerId>,
    /// Unix milliseconds.
    pub queued_ms: u64,
    /// Unix milliseconds; 0 = not yet.
    pub started_ms: u64,
    /// Unix milliseconds; 0 = not yet.
    pub ended_ms: u64,
    /// Bytes received over the network.
    pub bytes_fetched: u64,
    /// Larger goes first.
    pub priority: i64,
}

/// One event for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRow {
    /// Unix milliseconds.
    pub at_ms: u64,
    /// The event's kind.
    pub kind: String,
    /// What it says.
    pub text: String,
}

impl State {
    /// All sectors, lowest number first.
    ///
    /// # Errors
    /// SQLite's, or a damaged row.
    pub async fn sectors(&self) -> Result<Vec<SectorRow>, StateError> {
        self.read(|db| {
            all(db, "SELECT miner, number, proof, state, record, priority FROM sector", [], sector_row)
        })
        .await
    }

    /// All tasks that have not ended, oldest first.
    ///
    /// # Errors
    /// SQLite's, or a damaged row.
    pub async fn open_tasks(&self) -> Result<Vec<OpenTask>, StateError> {
        self.read(|db| tasks_where(db, "ended_ms = 0")).await
    }

    /// What an open task that frees unsealed data is to keep; `None` = nobody said.
    ///
    /// # Errors
    /// SQLite's, or a damaged row.
    pub async fn kept_by(
        &self,
        task: TaskId,
        sector: SectorId,
    ) -> Result<Option<Vec<UnsealedRange>>, StateError> {
        let sql = "SELECT body FROM event
                   WHERE miner = ?1 AND number = ?2 AND task = ?3 AND kind = 'release_asked'";
        self.read(move |db| {
            let (miner, number) =
                (stored("miner", sector.miner.get())?, stored("number", sector.number.get())?);
            let key = (miner, number, stored("task", task.get())?);
            let body = |row: &Row<'_>| row.get::<_, String>(0).map_err(column);
            let Some(body) = all(db, sql, key, body)?.pop() else { return Ok(None) };
            match serde_json::from_str(&body) {
                Ok(StateEvent::ReleaseAsked { keep, .. }) => Ok(Some(keep)),
                Ok(_) => Ok(None),
                Err(error) => Err(StateError::Corrupt { what: "event", detail: error.to_string() }),
            }
        })
        .await
    }

    /// Ended tasks with an attempt that was given up while a Lotus worker still has it.
    ///
    /// # Errors
    /// SQLite's, or a damaged row.
    pub async fn detached_tasks(&self) -> Result<Vec<OpenTask>, StateError> {
        self.read(|db| tasks_where(db, "id IN (SELECT task FROM attempt WHERE state = 'detached')")).await
    }

    /// The next task id.
    ///
    /// # Errors
    /// SQLite's, or a damaged row.
    pub async fn next_task(&self) -> Result<u64, StateError> {
        self.read(|db| schema::counter(db, "next_task")).await
    }

    /// Whether an operator has paused what the manager pledges by itself.
    ///
    /// # Errors
    /// SQLite's, or a damaged row.
    pub async fn pledging_paused(&self) -> Result<bool, StateError> {
        self.read(|db| Ok(schema::counter(db, "pledging_paused")? != 0)).await
    }

    /// One call, if it was ever heard of.
    ///
    /// # Errors
    /// SQLite's, or a damaged row.
    pub async fn call(&self, call: CallId) -> Result<Option<CallRow>, StateError> {
        self.read(move |db| {
            let sql = format!("{CALL_COLUMNS} WHERE id = ?1");
            Ok(all(db, &sql, [call.to_string()], call_row)?.pop())
        })
        .await
    }

    /// Results that nobody asked for, oldest first.
    ///
    /// # Errors
    /// SQLite's, or a damaged row.
    pub async fn orphans(&self) -> Result<Vec<CallRow>, StateError> {
        self.read(|db| {
            all(db, &format!("{CALL_COLUMNS} WHERE state = 'orphan' ORDER BY returned_ms"), [], call_row)
        })
        .await
    }

    /// Every attempt at every task of one sector, oldest first.
    ///
    /// # Errors
    /// SQLite's, or a damaged row.
    pub async fn tasks_of(&self, sector: SectorId) -> Result<Vec<TaskRow>, StateError> {
        self.read(move |db| {
            let key = (stored("miner", sector.miner.get())?, stored("number", sector.number.get())?);
            let sql = format!("{TASK_COLUMNS} WHERE t.miner = ?1 AND t.number = ?2 ORDER BY t.id, a.attempt");
            task_rows(db, &sql, key)
        })
        .await
    }

    /// Every attempt at one task, oldest first; none: there never was such a task.
    ///
    /// # Errors
    /// SQLite's, or a damaged row.
    pub async fn task(&self, task: TaskId) -> Result<Vec<TaskRow>, StateError> {
        self.read(move |db| {
            let sql = format!("{TASK_COLUMNS} WHERE t.id = ?1 ORDER BY a.attempt");
            task_rows(db, &sql, [stored("task", task.get())?])
        })
        .await
    }

    /// Tasks that have not ended, the ten thousand oldest at most, the `ended_max` that ended last, and those that a Lotus
    /// worker still has though they were given up; oldest first.
    ///
    /// # Errors
    /// SQLite's, or a damaged row.
    pub async fn recent_tasks(&self, ended_max: u32) -> Result<Vec<TaskRow>, StateError> {
        self.read(move |db| {
            let sql = format!(
                "{TASK_COLUMNS} WHERE t.id IN (SELECT id FROM task WHERE ended_ms = 0 ORDER BY id LIMIT ?2) OR t.id IN
                 (SELECT id FROM task WHERE ended_ms > 0 ORDER BY ended_ms DESC LIMIT ?1) OR t.id IN
                 (SELECT task FROM attempt WHERE state = 'detached') ORDER BY t.id, a.attempt"
            );
            task_rows(db, &sql, (ended_max, OPEN_ROWS_MAX))
        })
        .await
    }

    /// What happened to one sector, oldest first; the last thousand events.
    ///
    /// # Errors
    /// SQLite's, or a damaged row.
    pub async fn log_of(&self, sector: SectorId) -> Result<Vec<LogRow>, StateError> {
        self.read(move |db| {
            let (miner, number) =
                (stored("miner", sector.miner.get())?, stored("number", sector.number.get())?);
            // A step's body holds whole task outputs, megabytes each: only its text is taken out.
            let sql =
                "SELECT at_ms, kind, CASE WHEN kind = 'sector_stepped' THEN json_extract(body, '$.text')
                       WHEN kind = 'sector_pledged' THEN 'entered in ' || json_extract(body, '$.state')
                       WHEN kind = 'call_orphaned' THEN '' ELSE body END
                       FROM event WHERE miner = ?1 AND number = ?2 ORDER BY seq DESC LIMIT ?3";
            let mut rows = all(db, sql, (miner, number, LOG_ROWS_MAX), log_row)?;
            rows.reverse();
            Ok(rows)
        })
        .await
    }
}

const CALL_COLUMNS: &str = "SELECT id, task, attempt, stage, state, returned_ms, result FROM call";

const TASK_COLUMNS: &str = "
    SELECT t.id, a.attempt, t.miner, t.number, t.kind, t.step, t.queued_ms,
           coalesce(a.state, t.state), coalesce(a.reason, t.reason), a.name,
           coalesce(a.started_ms, 0), coalesce(a.ended_ms, t.ended_ms), coalesce(a.bytes_fetched, 0),
           (SELECT id FROM call c WHERE c.task = a.task AND c.attempt = a.attempt ORDER BY c.stage DESC LIMIT 1),
           t.state = 'queued' AND a.attempt = (SELECT max(attempt) FROM attempt l WHERE l.task = t.id),
           coalesce(t.priority, s.priority, 0), nullif(a.worker, '')
    FROM task t LEFT JOIN sector s ON s.miner = t.miner AND s.number = t.number LEFT JOIN attempt a ON a.task = t.id";

fn tasks_where(db: &Connection, condition: &str) -> Result<Vec<OpenTask>, StateError> {
    let sql = format!(
        "SELECT id, miner, number, proof, kind, step, queued_ms,
         (SELECT coalesce(max(attempt), 0) FROM attempt WHERE task = id), priority
         FROM task WHERE {condition} ORDER BY id"
    );
    let mut tasks = all(db, &sql, [], |row| {
        Ok(OpenTask {
            task: TaskId::new(loaded("task", row.get(0).map_err(column)?)?),
            sector: sector_ref(row, 1)?,
            task_type: task_type(row, 4)?,
            step: row.get(5).map_err(column)?,
            queued_ms: loaded("time", row.get(6).map_err(column)?)?,
            attempts: row.get(7).map_err(column)?,
            disowned: 0,
            priority: row.get(8).map_err(column)?,
            open: None,
        })
    })?;
    // One that had no attempt has none open; of many tasks that wait, few have had any.
    for task in tasks.iter_mut().filter(|task| task.attempts > 0) {
        task.open = open_attempt(db, task.task)?.map(Box::new);
        let sql = "SELECT count(*) FROM attempt WHERE task = ?1 AND state = 'disowned'";
        let counted = all(db, sql, [stored("task", task.task.get())?], |row| row.get(0).map_err(column))?;
        task.disowned = counted.first().copied().unwrap_or_default();
    }
    Ok(tasks)
}

fn open_attempt(db: &Connection, task: TaskId) -> Result<Option<OpenAttempt>, StateError> {
    let id = stored("task", task.get())?;
    let sql = "SELECT attempt, worker, name, url, peer, bound_ms, abort_ms > 0 FROM attempt WHERE task = ?1 AND ended_ms = 0";
    let mut open = all(db, sql, [id], |row| {
        let worker: String = row.get(1).map_err(column)?;
        let worker = worker.parse().map_err(|_| corrupt("worker session", &worker))?;
        Ok(OpenAttempt {
            attempt: AttemptId { task, attempt: row.get(0).map_err(column)? },
            worker: WorkerId(worker),
            name: row.get(2).map_err(column)?,
            url: row.get(3).map_err(column)?,
            peer: row.get(4).map_err(column)?,
            bound_ms: loaded("time", row.get(5).map_err(column)?)?,
            abort_asked: row.get(6).map_err(column)?,
            calls: Vec::new(),
            reservations: Vec::new(),
        })
    })?;
    if open.len() > 1 {
        return Err(corrupt("task", &format!("{task} has {} open attempts", open.len())));
    }
    let Some(mut attempt) = open.pop() else { return Ok(None) };
    let sql = format!("{CALL_COLUMNS} WHERE task = ?1 AND attempt = ?2 ORDER BY stage");
    attempt.calls = all(db, &sql, (id, attempt.attempt.attempt), call_row)?;
    let sql = "SELECT path, types, bytes FROM reservation WHERE task = ?1 AND attempt = ?2";
    attempt.reservations = all(db, sql, (id, attempt.attempt.attempt), reservation_row)?;
    Ok(Some(attempt))
}

fn reservation_row(row: &Row<'_>) -> Result<ReservedSpace, StateError> {
    let (path, types): (String, i64) = (row.get(0).map_err(column)?, row.get(1).map_err(column)?);
    Ok(ReservedSpace {
        path: path.parse().map_err(|_| corrupt("storage path id", &path))?,
        types: types.try_into().map_err(|_| corrupt("file types", &types.to_string()))?,
        bytes: loaded("bytes", row.get(2).map_err(column)?)?,
    })
}

fn sector_row(row: &Row<'_>) -> Result<SectorRow, StateError> {
    let record: String = row.get(4).map_err(column)?;
    Ok(SectorRow {
        sector: sector_ref(row, 0)?,
        state: row.get(3).map_err(column)?,
        record: serde_json::from_str(&record)
            .map_err(|source| corrupt("sector record", &source.to_string()))?,
        priority: row.get(5).map_err(column)?,
    })
}

fn call_row(row: &Row<'_>) -> Result<CallRow, StateError> {
    let (id, stage): (String, String) = (row.get(0).map_err(column)?, row.get(3).map_err(column)?);
    let (task, attempt): (Option<i64>, Option<u32>) =
        (row.get(1).map_err(column)?, row.get(2).map_err(column)?);
    let attempt = match (task, attempt) {
        (Some(task), Some(attempt)) => Some(AttemptId { task: TaskId::new(loaded("task", task)?), attempt }),
        _ => None,
    };
    Ok(CallRow {
        call: id.parse().map_err(|_| corrupt("call id", &id))?,
        attempt,
        stage: CallStage::from_word(&stage).ok_or_else(|| corrupt("call stage", &stage))?,
        state: row.get(4).map_err(column)?,
        returned_ms: loaded("time", row.get(5).map_err(column)?)?,
        result: row.get(6).map_err(column)?,
    })
}

/// One row per attempt, and one more for the attempt that a task waits for.
fn task_rows(db: &Connection, sql: &str, params: impl Params) -> Result<Vec<TaskRow>, StateError> {
    let rows = all(db, sql, params, |row| {
        let waits_again: Option<bool> = row.get(14).map_err(column)?;
        Ok((task_row(row)?, waits_again == Some(true)))
    })?;
    let mut found = Vec::with_capacity(rows.len());
    for (row, waits_again) in rows {
        let next = waits_again.then(|| TaskRow {
            attempt: AttemptId { attempt: row.attempt.attempt.saturating_add(1), ..row.attempt },
            call: None,
            state: "queued".to_owned(),
            worker: None,
            session: None,
            started_ms: 0,
            ended_ms: 0,
            bytes_fetched: 0,
            ..row.clone()
        });
        found.push(row);
        found.extend(next);
    }
    Ok(found)
}

fn task_row(row: &Row<'_>) -> Result<TaskRow, StateError> {
    let (task, attempt): (i64, Option<u32>) = (row.get(0).map_err(column)?, row.get(1).map_err(column)?);
    let session: Option<String> = row.get(16).map_err(column)?;
    let session = session.map(|id| id.parse().map_err(|_| corrupt("worker session", &id))).transpose()?;
    Ok(TaskRow {
        attempt: AttemptId { task: TaskId::new(loaded("task", task)?), attempt: attempt.unwrap_or(1) },
        call: row.get(13).map_err(column)?,
        sector: sector_id(row, 2)?,
        task_type: task_type(row, 4)?,
        step: row.get(5).map_err(column)?,
        state: row.get(7).map_err(column)?,
        reason: row.get(8).map_err(column)?,
        worker: row.get(9).map_err(column)?,
        session: session.map(WorkerId),
        queued_ms: loaded("time", row.get(6).map_err(column)?)?,
        started_ms: loaded("time", row.get(10).map_err(column)?)?,
        ended_ms: loaded("time", row.get(11).map_err(column)?)?,
        bytes_fetched: loaded("bytes", row.get(12).map_err(column)?)?,
        priority: row.get(15).map_err(column)?,
    })
}

fn log_row(row: &Row<'_>) -> Result<LogRow, StateError> {
    let (kind, text): (String, String) = (row.get(1).map_err(column)?, row.get(2).map_err(column)?);
    let text = match serde_json::from_str::<StateEvent>(&text) {
        Ok(event) => event.text(),
        Err(_) => text,
    };
    Ok(LogRow { at_ms: loaded("time", row.get(0).map_err(column)?)?, kind, text })
}

pub(super) fn sector_ref(row: &Row<'_>, first: usize) -> Result<SectorRef, StateError> {
    let proof: i64 = row.get(first + 2).map_err(column)?;
    let proof =
        RegisteredSealProof::try_from(proof).map_err(|source| corrupt("seal proof", &source.to_string()))?;
    Ok(SectorRef { id: sector_id(row, first)?, proof })
}

fn sector_id(row: &Row<'_>, first: usize) -> Result<SectorId, StateError> {
    Ok(SectorId {
        miner: ActorId::new(loaded("miner actor", row.get(first).map_err(column)?)?),
        number: SectorNumber::new(loaded("sector number", row.get(first + 1).map_err(column)?)?),
    })
}

pub(super) fn task_type(row: &Row<'_>, index: usize) -> Result<TaskType, StateError> {
    let value = row.get_ref(index).map_err(column)?;
    let name = value.as_str().map_err(|source| corrupt("task type", &source.to_string()))?;
    name.parse().map_err(|_| corrupt("task type", name))
}

fn corrupt(what: &'static str, detail: &str) -> StateError {
    StateError::Corrupt { what, detail: detail.to_owned() }
}

pub(super) fn column(source: rusqlite::Error) -> StateError {
    StateError::Database { action: "read a column", source }
}

/// All rows of a query. `each` may fail with our error, which rusqlite's own iterator cannot carry.
pub(super) fn all<T>(
    db: &Connection,
    sql: &str,
    params: impl Params,
    each: impl Fn(&Row<'_>) -> Result<T, StateError>,
) -> Result<Vec<T>, StateError> {
    let mut statement = db.prepare_cached(sql).map_err(database("prepare a query"))?;
    let mut rows = statement.query(params).map_err(database("run a query"))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(database("read a row"))? {
        found.push(each(row)?);
    }
    Ok(found)
}

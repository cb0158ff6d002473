//! The durable record of the calls this worker accepted, in SQLite with `synchronous=FULL`.
//!
//! A call is written before it is answered and kept until the manager acknowledged its result; then a short record
//! stays, so that a repeated `start` of the same attempt is still the same call. A crash loses nothing that was
//! answered. Never: files of sectors, processes, the network.

mod schema;
mod served;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rpc::api::{AttemptAccount, ReturnMethod};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use sealtasks::{
    AttemptId, CallError, CallId, FileType, FileTypes, SectorFiles, SectorRef, StorageId, TaskInput,
    TaskOutput, WorkerId,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use self::schema::{FROM_VERSION_1, SCHEMA, SCHEMA_VERSION};

/// Acknowledged calls remembered so that a repeated start is recognised; beyond, the oldest are forgotten.
const ACKNOWLEDGED_MAX: i64 = 10_000;

/// Refused results that are kept to be offered to the manager's next life; beyond, the oldest are forgotten.
pub const REFUSED_MAX: i64 = 100;

/// The journal. Clones share it.
#[derive(Clone)]
pub struct Journal {
    connection: Arc<Mutex<Connection>>,
}

/// What is known of an accepted call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its id.
    pub call: CallId,
    /// The sector with its proof.
    pub sector: SectorRef,
    /// The attempt, if the manager named one.
    pub attempt: Option<AttemptId>,
    /// How its end will be reported.
    pub method: ReturnMethod,
}

/// Whether a start is a new call or one that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// Journalled now.
    New(CallId),
    /// Journalled before: the same attempt with the same input.
    Known(CallId),
}

/// The end of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its result.
    pub result: Result<TaskOutput, CallError>,
    /// What it cost.
    pub account: AttemptAccount,
}

/// A process as it can be found again: its id may be taken by another one, its start time then differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessMark {
    /// The process id, also its group's.
    pub pid: u32,
    /// Boot id and start in clock ticks.
    pub starttime: String,
}

/// What is known of a call whose executor runs: enough to declare what it makes, whoever waits for it then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The place of each file.
    pub files: SectorFiles,
    /// The storage path that each lies in.
    pub ids: BTreeMap<FileType, StorageId>,
    /// Those that the executor makes.
    pub allocated: FileTypes,
    /// When the executor was started, in Unix milliseconds.
    pub started_ms: u64,
    /// Bytes received from other machines for this call.
    pub bytes_fetched: u64,
}

impl Running {
    /// Those of the created files, and the storage path that each lies in.
    pub(crate) fn made(&self, created: &[PathBuf]) -> Vec<(FileType, StorageId)> {
        let is_new = |kind: &FileType| self.files.0.get(kind).is_some_and(|file| created.contains(file));
        self.ids.iter().filter(|(kind, _)| is_new(kind)).map(|(kind, id)| (*kind, id.clone())).collect()
    }
}

/// One life of the worker: from its start to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Its session.
    pub session: WorkerId,
    /// Where it serves its files; empty when an earlier version did not write it down.
    pub url: String,
    /// The session of the manager process that took it last.
    pub joined: Option<Uuid>,
}

/// A call that an earlier life of the worker left unfinished.
#[derive(Clone, Debug, PartialEq)]
pub struct Unfinished {
    /// The call.
    pub accepted: Accepted,
    /// Its input.
    pub input: TaskInput,
    /// Its executor, if one was started.
    pub process: Option<ProcessMark>,
    /// Files and directories that it created.
    pub created: Vec<PathBuf>,
    /// What its executor runs with; `None` = none was to be started yet.
    pub running: Option<Running>,
}

impl Journal {
    /// Its name in the worker's repo.
    pub const FILE_NAME: &str = "journal.db";

    /// Opens the journal, creating it when it is not there.
    ///
    /// # Errors
    /// The disk refuses, or the file is of another version.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let mut connection = Connection::open(path)?;
        // WAL with FULL syncs the log at every commit; EXCLUSIVE because the repo lock lets no one else in.
        connection.execute_batch(
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;",
        )?;
        let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        match version {
            0 => {
                let transaction = connection.transaction()?;
                transaction.execute_batch(SCHEMA)?;
                transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
                transaction.commit()?;
            }
            1 => {
                let transaction = connection.transaction()?;
                transaction.execute_batch(FROM_VERSION_1)?;
                transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
                transaction.commit()?;
            }
            SCHEMA_VERSION => {}
            found => return Err(JournalError::Version { path: path.to_owned(), found }),
        }
        Ok(Self { connection: Arc::new(Mutex::new(connection)) })
    }

    /// Does `work` on a thread that may block.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let journal = self.clone();
        match tokio::task::spawn_blocking(move || work(&journal)).await {
            Ok(done) => done,
            Err(_) => Err(JournalError::Interrupted),
        }
    }

    /// The id of the repo that this journal is part of: `fresh` when it is asked for the first time, the same ever after.
    pub fn repo_id(&self, fresh: Uuid) -> Result<Uuid, JournalError> {
        self.with(|db| {
            let transaction = db.transaction()?;
            transaction.execute_batch("CREATE TABLE IF NOT EXISTS repo (id TEXT NOT NULL) STRICT")?;
            let known: Option<String> =
                transaction.query_row("SELECT id FROM repo", [], |row| row.get(0)).optional()?;
            let id = match known {
                Some(text) => uuid("repo id", &text)?,
                None => {
                    transaction.execute("INSERT INTO repo (id) VALUES (?1)", [fresh.to_string()])?;
                    fresh
                }
            };
            transaction.commit()?;
            Ok(id)
        })
    }

    /// Remembers that this life began.
    pub fn begin_life(&self, life: &Life) -> Result<(), JournalError> {
        self.with(|db| {
            let transaction = db.transaction()?;
            transaction.execute("DELETE FROM life", [])?;
            transaction.execute(
                "INSERT INTO life (session, url, joined) VALUES (?1, ?2, ?3)",
                params![life.session.to_string(), life.url, life.joined.map(|manager| manager.to_string())],
            )?;
            transaction.commit()?;
            Ok(())
        })
    }

    /// The manager process with this session has taken the worker.
    pub fn joined(&self, manager: Uuid) -> Result<(), JournalError> {
        self.with(|db| {
            db.execute("UPDATE life SET joined = ?1", [manager.to_string()])?;
            Ok(())
        })
    }

    /// The last life that began.
    pub fn last_life(&self) -> Result<Option<Life>, JournalError> {
        type Columns = (String, Option<String>, Option<String>);
        self.with(|db| {
            let columns =
                |row: &Row<'_>| -> rusqlite::Result<Columns> { Ok((row.get(0)?, row.get(1)?, row.get(2)?)) };
            let found = db.query_row("SELECT session, url, joined FROM life", [], columns).optional()?;
            let Some((session, url, joined)) = found else { return Ok(None) };
            let joined = joined.map(|text| uuid("joined", &text)).transpose()?;
            Ok(Some(Life {
                session: WorkerId(uuid("session", &session)?),
                url: url.unwrap_or_default(),
                joined,
            }))
        })
    }

    /// Accepts a call under a fresh id, or finds the one that the same attempt and input had before.
    pub fn accept(
        &self,
        fresh: Uuid,
        sector: SectorRef,
        attempt: Option<AttemptId>,
        method: ReturnMethod,
        input: &TaskInput,
    ) -> Result<Acceptance, JournalError> {
        let input = to_json(input);
        let digest = attempt.map(|attempt| digest_of(attempt, &input));
        self.with(|db| {
            if let Some(digest) = &digest
                && let Some(call) = find_known(db, sector, digest)?
            {
                return Ok(Acceptance::Known(call));
            }
            db.execute(
                "INSERT INTO call (id, sector, attempt, method, digest, input, phase)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'accepted')",
                params![
                    fresh.to_string(),
                    to_json(&sector),
                    attempt.map(|attempt| attempt.to_string()),
                    to_json(&method),
                    digest,
                    input
                ],
            )?;
            Ok(Acceptance::New(CallId { sector: sector.id, id: fresh }))
        })
    }

    /// The call that this attempt with this input is already.
    pub fn known(
        &self,
        sector: SectorRef,
        attempt: AttemptId,
        input: &TaskInput,
    ) -> Result<Option<Acceptance>, JournalError> {
        let digest = digest_of(attempt, &to_json(input));
        self.with(|db| Ok(find_known(db, sector, &digest)?.map(Acceptance::Known)))
    }

    /// The executor is about to start, or has: what it creates, and which process it is.
    pub fn running(
        &self,
        call: Uuid,
        created: &[PathBuf],
        running: &Running,
        process: Option<&ProcessMark>,
    ) -> Result<(), JournalError> {
        self.with(|db| {
            db.execute(
                "UPDATE call SET phase = 'running', created = ?2, pid = ?3, starttime = ?4, running = ?5 WHERE id = ?1",
                params![
                    call.to_string(),
                    to_json(&created),
                    process.map(|process| process.pid),
                    process.map(|process| &process.starttime),
                    to_json(running)
                ],
            )?;
            Ok(())
        })
    }

    /// The call ended: from now on its result is offered to the manager.
    pub fn ended(&self, call: Uuid, ended: &Ended) -> Result<(), JournalError> {
        self.with(|db| {
            db.execute(
                "UPDATE call SET phase = 'returning', created = '[]', pid = NULL, starttime = NULL, running = NULL,
                 result = ?2, account = ?3 WHERE id = ?1",
                params![call.to_string(), to_json(&ended.result), to_json(&ended.account)],
            )?;
            Ok(())
        })
    }

    /// The manager answered with an error again and again; the result stays until the next start of the worker. Of those that
    /// were refused since this one's start no more than [`REFUSED_MAX`] do; the calls whose results are forgotten.
    pub fn refused(&self, call: Uuid) -> Result<Vec<Uuid>, JournalError> {
        self.with(|db| {
            let transaction = db.transaction()?;
            transaction.execute("UPDATE call SET phase = 'refused' WHERE id = ?1", [call.to_string()])?;
            let forgotten = {
                let mut statement = transaction.prepare(
                    "DELETE FROM call WHERE rowid IN (
                         SELECT rowid FROM call WHERE phase = 'refused' ORDER BY rowid DESC LIMIT -1 OFFSET ?1)
                     RETURNING id",
                )?;
                let ids = statement.query_map([REFUSED_MAX], |row| row.get::<_, String>(0))?;
                ids.map(|id| uuid("id", &id?)).collect::<Result<_, _>>()?
            };
            transaction.commit()?;
            Ok(forgotten)
        })
    }

    /// The manager has the result. A call without an attempt is forgotten, one with an attempt stays as a short record.
    pub fn acknowledged(&self, call: Uuid) -> Result<(), JournalError> {
        self.with(|db| {
            let transaction = db.transaction()?;
            transaction.execute("DELETE FROM call WHERE id = ?1 AND digest IS NULL", [call.to_string()])?;
            transaction.execute(
                "UPDATE call SET phase = 'acknowledged', input = NULL, result = NULL, account = NULL WHERE id = ?1",
                [call.to_string()],
            )?;
            transaction.execute(
                "DELETE FROM call WHERE phase = 'acknowledged' AND rowid <= (
                     SELECT max(rowid) FROM call WHERE phase = 'acknowledged') - ?1",
                [ACKNOWLEDGED_MAX],
            )?;
            transaction.commit()?;
            Ok(())
        })
    }

    /// Calls that never ended.
    pub fn unfinished(&self) -> Result<Vec<Unfinished>, JournalError> {
        self.with(|db| {
            let mut statement = db.prepare(
                "SELECT id, sector, attempt, method, pid, starttime, created, running, input FROM call
                 WHERE phase IN ('accepted', 'running') ORDER BY rowid",
            )?;
            let mut rows = statement.query([])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let process = match (row.get::<_, Option<u32>>(4)?, row.get::<_, Option<String>>(5)?) {
                    (Some(pid), Some(starttime)) => Some(ProcessMark { pid, starttime }),
                    _ => None,
                };
                let created = from_json("created", &row.get::<_, String>(6)?)?;
                let running = row.get::<_, Option<String>>(7)?;
                let running = running.map(|text| from_json("running", &text)).transpose()?;
                let input = from_json("input", &row.get::<_, String>(8)?)?;
                found.push(Unfinished { accepted: accepted(row)?, input, process, created, running });
            }
            Ok(found)
        })
    }

    /// Calls that ended and whose results were not acknowledged; refused ones get another chance.
    pub fn unreturned(&self) -> Result<Vec<(Accepted, Ended)>, JournalError> {
        self.with(|db| {
            db.execute("UPDATE call SET phase = 'returning' WHERE phase = 'refused'", [])?;
            let mut statement = db.prepare(
                "SELECT id, sector, attempt, method, result, account FROM call
                 WHERE phase = 'returning' ORDER BY rowid",
            )?;
            let mut rows = statement.query([])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let result = from_json("result", &row.get::<_, String>(4)?)?;
                let account = from_json("account", &row.get::<_, String>(5)?)?;
                found.push((accepted(row)?, Ended { result, account }));
            }
            Ok(found)
        })
    }

    fn with<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        // A panic inside leaves SQLite consistent: open transactions roll back when dropped.
        work(&mut self.connection.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One attempt may hold several calls (bring files, then work), so the input is part of what makes it the same.
fn digest_of(attempt: AttemptId, input: &str) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(attempt.to_string().as_bytes()).update(b"\n").update(input.as_bytes());
    hasher.finalize().as_bytes().to_vec()
}

fn find_known(db: &Connection, sector: SectorRef, digest: &[u8]) -> Result<Option<CallId>, JournalError> {
    let id = |row: &Row<'_>| row.get::<_, String>(0);
    let known = db.query_row("SELECT id FROM call WHERE digest = ?1", [digest], id).optional()?;
    known.map(|text| Ok(CallId { sector: sector.id, id: uuid("id", &text)? })).transpose()
}

fn accepted(row: &Row<'_>) -> Result<Accepted, JournalError> {
    let sector: SectorRef = from_json("sector", &row.get::<_, String>(1)?)?;
    let id = uuid("id", &row.get::<_, String>(0)?)?;
    let attempt = row.get::<_, Option<String>>(2)?;
    let attempt = attempt.map(|text| text.parse().map_err(|_| unreadable("attempt", &text))).transpose()?;
    let method = from_json("method", &row.get::<_, String>(3)?)?;
    Ok(Accepted { call: CallId { sector: sector.id, id }, sector, attempt, method })
}

fn uuid(column: &'static str, text: &str) -> Result<Uuid, JournalError> {
    Uuid::try_parse(text).map_err(|_| unreadable(column, text))
}

/// Our own values always have a JSON form: no maps with odd keys, no failing serializers.
fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("a journalled value has a JSON form")
}

fn from_json<T: DeserializeOwned>(column: &'static str, text: &str) -> Result<T, JournalError> {
    serde_json::from_str(text).map_err(|_| unreadable(column, text))
}

fn unreadable(column: &'static str, text: &str) -> JournalError {
    JournalError::Unreadable { column, text: text.chars().take(200).collect() }
}

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// SQLite refused.
    #[error("journal.db: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// Written by another version of this program.
    #[error("{} has version {found}; this program reads versions up to 2", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version in it.
        found: i64,
    },
    /// A column holds something we never wrote.
    #[error("journal.db: column `{column}` holds {text:?}, which this program did not write")]
    Unreadable {
        /// The column.
        column: &'static str,
        /// What it holds, cut to 200 characters.
        text: String,
    },
    /// The thread that did the work ended early.
    #[error("journal.db: the write was interrupted")]
    Interrupted,
}

#[cfg(test)]
mod tests;

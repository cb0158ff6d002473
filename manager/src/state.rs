//! The manager's durable state: an append-only table of events and, in the same transaction, the row tables that they
//! project to. SQLite in WAL mode with `synchronous=FULL`, written by one thread that puts all waiting submissions
//! into one transaction (group commit).
//!
//! Every commit carries the epoch of the manager that makes it and fails when a newer manager has begun. A crash loses
//! what was not acknowledged, nothing else. Never: decisions; whoever submits has made them.

mod checkpoint;
mod clock;
mod control;
pub(crate) mod copy;
mod event;
mod event_text;
mod failed_on;
mod hold;
mod identity;
mod loading;
mod measure;
mod projection;
mod query;
mod reign;
mod schema;
mod scrub;
mod superseded;
mod writer;
mod writing;

pub use clock::Clock;
pub use control::{CAPS_MAX, CONTROLS_MAX, CapChanges, Controls, WorkerControl, WorkerIdentity};
pub use event::{AttemptOutcome, CallStage, ReservedSpace, StateEvent, TaskOutcome};
pub use hold::Hold;
pub use identity::{ChainIdentity, MinerIdentity};
pub use loading::RawSector;
pub use measure::{Duration, Measured, Measures, Throughput};
pub use query::{CallRow, LogRow, OpenAttempt, OpenTask, SectorRow, TaskRow};
pub use superseded::OldCopy;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

/// Submissions waiting for the writer; beyond, submitters wait.
const SUBMISSIONS_MAX: usize = 1024;

/// The database file's name in the repo.
pub const FILE_NAME: &str = "state.db";

/// The open durable state. Clones share one writer; the last one dropped ends it.
#[derive(Clone)]
pub struct State {
    submissions: mpsc::Sender<writer::Submission>,
    reader: Arc<Mutex<Connection>>,
    path: Arc<Path>,
    epoch: Epoch,
    clock: Arc<Clock>,
    batches: Arc<std::sync::atomic::AtomicU64>,
}

/// A manager's start, counted from 1. A commit of an older epoch is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(u64);

impl Epoch {
    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl std::fmt::Display for Epoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Why the durable state cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// There is no database where one should be.
    #[error("{path} does not exist; run `sealyard init` first")]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// A database of another version, or no database of ours.
    #[error(
        "{path} has schema version {found}, this program reads {expected}; use the program that wrote it"
    )]
    Schema {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: i64,
        /// What we read.
        expected: i64,
    },
    /// Not SQLite's, or damaged.
    #[error(
        "{path} is no state database or is damaged; put a copy of it back (a new `init` would give sector numbers out \
         a second time)"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// SQLite's words.
        #[source]
        source: rusqlite::Error,
    },
    /// Another manager has begun since.
    #[error("this manager's epoch is {ours}, but a manager of epoch {newest} has taken over; stop this one")]
    StaleEpoch {
        /// Ours.
        ours: Epoch,
        /// The newest in the database.
        newest: Epoch,
    },
    /// The disk is full. What was acknowledged is there; what was not has not happened.
    #[error(
        "the state database failed to {action}: its disk is full; free some space, then start the manager again"
    )]
    DiskFull {
        /// What was tried.
        action: &'static str,
        /// SQLite's words.
        #[source]
        source: rusqlite::Error,
    },
    /// SQLite failed.
    #[error("the state database failed to {action}")]
    Database {
        /// What was tried.
        action: &'static str,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// A row or an event that cannot be.
    #[error("the state database holds a bad {what}: {detail}")]
    Corrupt {
        /// Which row or value.
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// An event that fits no row: the driver's own mistake.
    #[error("event {kind} does not apply: {detail}")]
    Inapplicable {
        /// The event's kind.
        kind: &'static str,
        /// Why not.
        detail: String,
    },
    /// The writer has ended.
    #[error("the state database is closed")]
    Closed,
}

impl StateError {
    /// Stable code for scripts and logs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "MGR001",
            Self::Schema { .. } => "MGR002",
            Self::StaleEpoch { .. } => "MGR003",
            Self::Database { .. } => "MGR004",
            Self::Corrupt { .. } => "MGR005",
            Self::Inapplicable { .. } => "MGR006",
            Self::Closed => "MGR007",
            Self::Damaged { .. } => "MGR008",
            Self::DiskFull { .. } => "MGR009",
        }
    }
}

impl State {
    /// Makes a new database for this miner. The file must not exist.
    ///
    /// # Errors
    /// SQLite's, or when the file exists.
    pub fn create(path: &Path, miner: &MinerIdentity) -> Result<(), StateError> {
        schema::create(path, miner)
    }

    /// Opens the database, begins a new epoch and starts the writer.
    ///
    /// # Errors
    /// No database, another schema version, or SQLite's.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let mut connection = schema::open(path)?;
        let (epoch, last_ms) = schema::begin_epoch(&mut connection)?;
        let reader = schema::open(path)?;
        let (submissions, waiting) = mpsc::channel(SUBMISSIONS_MAX);
        let batches = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let checkpoints = checkpoint::Checkpoints::spawn(path)?;
        writer::spawn(connection, epoch, waiting, batches.clone(), checkpoints)?;
        Ok(Self {
            submissions,
            reader: Arc::new(Mutex::new(reader)),
            path: path.into(),
            epoch,
            clock: Arc::new(Clock::starting_at(last_ms)),
            batches,
        })
    }

    /// Makes these events durable, all or none. Returns after the disk has them.
    ///
    /// # Errors
    /// A newer epoch, an event that does not apply, or SQLite's; nothing of `events` is kept then.
    pub async fn commit(&self, events: Vec<StateEvent>) -> Result<(), StateError> {
        let (ack, done) = oneshot::channel();
        let events = events.into_iter().map(writer::Written::new).collect::<Result<_, StateError>>()?;
        let submission = writer::Submission { at_ms: self.clock.now_ms(), events, ack };
        self.submissions.send(submission).await.map_err(|_| StateError::Closed)?;
        done.await.map_err(|_| StateError::Closed)?
    }

    /// Wall time in Unix milliseconds, never smaller than any time given or stored before.
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// This manager's epoch.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Transactions written so far: fewer than submissions when several were waiting together.
    pub fn batches(&self) -> u64 {
        self.batches.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Runs a query on the projection, off the async threads.
    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> Result<T, StateError> + Send + 'static,
    ) -> Result<T, StateError> {
        let reader = self.reader.clone();
        let run = move || {
            // A panic in an earlier query leaves the connection itself whole: queries do not write.
            let connection = reader.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            query(&connection)
        };
        tokio::task::spawn_blocking(run).await.map_err(|_| StateError::Closed)?
    }
}

/// Turns SQLite's error into ours, naming what was tried.
fn database(action: &'static str) -> impl Fn(rusqlite::Error) -> StateError {
    move |source| match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => StateError::DiskFull { action, source },
        _ => StateError::Database { action, source },
    }
}

/// A number as SQLite keeps it: signed, so the upper half of u64 has no place.
fn stored(what: &'static str, number: u64) -> Result<i64, StateError> {
    i64::try_from(number)
        .map_err(|_| StateError::Corrupt { what, detail: format!("{number} is above {}", i64::MAX) })
}

/// The reverse of [`stored`].
fn loaded(what: &'static str, number: i64) -> Result<u64, StateError> {
    u64::try_from(number).map_err(|_| StateError::Corrupt { what, detail: format!("{number} is negative") })
}

#[cfg(test)]
mod tests {
    use super::database;

    #[test]
    fn a_full_disk_says_so_and_what_to_do() {
        let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
        let error = database("commit")(rusqlite::Error::SqliteFailure(full, None));
        assert_eq!(error.code(), "MGR009");
        assert!(error.to_string().contains("free some space"), "{error}");
    }
}

//! The writer thread: takes all submissions that wait, makes one transaction of them, tells each how it went.
//! Never: reads for others, decisions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::{Epoch, StateError, StateEvent, database, projection, schema};

/// Submissions in one transaction; bounds how long the first of them waits for the others' work.
const BATCH_MAX: usize = 256;

/// Events that stand or fall together.
pub(super) struct Submission {
    /// When they happened, in Unix milliseconds.
    pub(super) at_ms: u64,
    /// The events, in order.
    pub(super) events: Vec<Written>,
    /// Told once the disk has them, or why it has not.
    pub(super) ack: oneshot::Sender<Result<(), StateError>>,
}

/// An event and what stands in its row. The text is made by whoever submits it, so that the one writer need not.
pub(super) struct Written {
    pub(super) event: StateEvent,
    pub(super) body: String,
}

/// Starts the thread. It ends when the last sender is gone.
pub(super) fn spawn(
    connection: Connection,
    epoch: Epoch,
    waiting: mpsc::Receiver<Submission>,
    batches: Arc<AtomicU64>,
) -> Result<(), StateError> {
    let run = move || write_until_closed(connection, epoch, waiting, &batches);
    std::thread::Builder::new().name("state-writer".to_owned()).spawn(run).map(|_thread| ()).map_err(
        |source| StateError::Corrupt {
            what: "process limit",
            detail: format!("no thread for the writer: {source}"),
        },
    )
}

fn write_until_closed(
    mut connection: Connection,
    epoch: Epoch,
    mut waiting: mpsc::Receiver<Submission>,
    batches: &AtomicU64,
) {
    while let Some(first) = waiting.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX {
            match waiting.try_recv() {
                Ok(next) => batch.push(next),
                Err(_) => break,
            }
        }
        write_batch(&mut connection, epoch, batch);
        batches.fetch_add(1, Ordering::Relaxed);
    }
}

/// One transaction. A submission that does not apply is rolled back alone; when the transaction itself fails, all of
/// them have failed.
fn write_batch(connection: &mut Connection, epoch: Epoch, batch: Vec<Submission>) {
    // What fits together is nearly everything. Savepoints cost as much as a submission, so only a batch that did not go
    // as a whole is done again with one around each.
    let written = match write_transaction(connection, epoch, &batch, Together::Whole) {
        Err(failure) if batch.len() > 1 && is_of_a_submission(&failure) => {
            write_transaction(connection, epoch, &batch, Together::Each)
        }
        whole => whole,
    };
    let mut results = written.map(Vec::into_iter);
    for submission in batch {
        let result = match &mut results {
            Ok(each) => each.next().unwrap_or(Ok(())),
            Err(failure) => Err(again(failure)),
        };
        // A submitter that no longer listens changes nothing: its events are durable or not, all the same.
        drop(submission.ack.send(result));
    }
}

/// Whether a submission is at fault, and not the database or its disk: after those nothing is tried again.
fn is_of_a_submission(failure: &StateError) -> bool {
    match failure {
        StateError::Inapplicable { .. } | StateError::Corrupt { .. } => true,
        StateError::Database { source, .. } => {
            source.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation)
        }
        _ => false,
    }
}

/// What stands or falls together in a transaction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Together {
    /// All of it.
    Whole,
    /// Each submission.
    Each,
}

/// How each submission went; none are said when all of them went well.
fn write_transaction(
    connection: &mut Connection,
    epoch: Epoch,
    batch: &[Submission],
    together: Together,
) -> Result<Vec<Result<(), StateError>>, StateError> {
    let begun = connection.transaction_with_behavior(TransactionBehavior::Immediate);
    let mut transaction = begun.map_err(database("begin a transaction"))?;
    let newest = schema::newest_epoch(&transaction)?;
    if newest != epoch {
        return Err(StateError::StaleEpoch { ours: epoch, newest });
    }
    let results = match together {
        Together::Whole => write_submissions(&transaction, epoch, batch).map(|()| Vec::new())?,
        Together::Each => batch.iter().map(|one| write_alone(&mut transaction, epoch, one)).collect(),
    };
    transaction.commit().map_err(database("commit"))?;
    Ok(results)
}

fn write_alone(
    transaction: &mut Transaction<'_>,
    epoch: Epoch,
    submission: &Submission,
) -> Result<(), StateError> {
    let savepoint = transaction.savepoint().map_err(database("open a savepoint"))?;
    write_submissions(&savepoint, epoch, std::slice::from_ref(submission))?;
    savepoint.commit().map_err(database("close a savepoint"))
}

fn write_submissions(db: &Connection, epoch: Epoch, batch: &[Submission]) -> Result<(), StateError> {
    for submission in batch {
        for written in &submission.events {
            projection::append(db, epoch, submission.at_ms, written)?;
            projection::apply(db, submission.at_ms, &written.event)?;
        }
    }
    let last_ms = batch.iter().map(|submission| submission.at_ms).max().unwrap_or(0);
    schema::raise_counter(db, "last_ms", last_ms)
}

/// The same failure for another submitter: SQLite's error cannot be cloned, so its code and text are kept.
fn again(failure: &StateError) -> StateError {
    match failure {
        StateError::StaleEpoch { ours, newest } => StateError::StaleEpoch { ours: *ours, newest: *newest },
        StateError::Database { action, source } | StateError::DiskFull { action, source } => {
            let code = source
                .sqlite_error()
                .copied()
                .unwrap_or(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ERROR));
            database(action)(rusqlite::Error::SqliteFailure(code, Some(source.to_string())))
        }
        StateError::Inapplicable { kind, detail } => {
            StateError::Inapplicable { kind, detail: detail.clone() }
        }
        StateError::Corrupt { what, detail } => StateError::Corrupt { what, detail: detail.clone() },
        other => StateError::Corrupt { what: "transaction", detail: other.to_string() },
    }
}

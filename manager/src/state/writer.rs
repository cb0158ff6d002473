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
    pub(super) events: Vec<StateEvent>,
    /// Told once the disk has them, or why it has not.
    pub(super) ack: oneshot::Sender<Result<(), StateError>>,
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
    let mut acks = Vec::with_capacity(batch.len());
    let written = write_transaction(connection, epoch, batch, &mut acks);
    for (ack, result) in acks {
        let result = match &written {
            Ok(()) => result,
            Err(failure) => Err(again(failure)),
        };
        // A submitter that no longer listens changes nothing: its events are durable or not, all the same.
        drop(ack.send(result));
    }
}

type Acks = Vec<(oneshot::Sender<Result<(), StateError>>, Result<(), StateError>)>;

fn write_transaction(
    connection: &mut Connection,
    epoch: Epoch,
    batch: Vec<Submission>,
    acks: &mut Acks,
) -> Result<(), StateError> {
    let begun = connection.transaction_with_behavior(TransactionBehavior::Immediate);
    let (mut transaction, newest) =
        match begun.map_err(database("begin a transaction")).and_then(|transaction| {
            let newest = schema::newest_epoch(&transaction)?;
            Ok((transaction, newest))
        }) {
            Ok(open) => open,
            Err(failure) => {
                acks.extend(batch.into_iter().map(|submission| (submission.ack, Ok(()))));
                return Err(failure);
            }
        };
    if newest != epoch {
        acks.extend(batch.into_iter().map(|submission| (submission.ack, Ok(()))));
        return Err(StateError::StaleEpoch { ours: epoch, newest });
    }
    for submission in batch {
        let result = write_submission(&mut transaction, epoch, submission.at_ms, &submission.events);
        acks.push((submission.ack, result));
    }
    transaction.commit().map_err(database("commit"))
}

fn write_submission(
    transaction: &mut Transaction<'_>,
    epoch: Epoch,
    at_ms: u64,
    events: &[StateEvent],
) -> Result<(), StateError> {
    let savepoint = transaction.savepoint().map_err(database("open a savepoint"))?;
    for event in events {
        projection::append(&savepoint, epoch, at_ms, event)?;
        projection::apply(&savepoint, at_ms, event)?;
    }
    schema::raise_counter(&savepoint, "last_ms", at_ms)?;
    savepoint.commit().map_err(database("close a savepoint"))
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
        other => StateError::Corrupt { what: "transaction", detail: other.to_string() },
    }
}

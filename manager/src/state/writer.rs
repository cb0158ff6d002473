//! The writer thread: takes all submissions that wait, makes one transaction of them, and has each told how it went. Those
//! of a large batch are woken by a thread beside it, which also takes their events away: that is a sixth of the work.
//! Never: reads for others, decisions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SendError, SyncSender, sync_channel};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use sealtasks::ActorId;
use tokio::sync::{mpsc, oneshot};

use super::checkpoint::Checkpoints;
use super::projection::Among;
use super::writing::Writing;
use super::{Epoch, StateError, StateEvent, database, projection, schema, stored};

/// Submissions in one transaction; bounds how long the first of them waits for the others' work.
const BATCH_MAX: usize = 256;

/// Submitters of fewer submissions are woken by the writer itself: that is sooner done than a thread is woken for it.
const TOLD_AT_ONCE: usize = 16;

/// Batches that are durable and whose submitters have not all been told; beyond, the writer waits.
const OUTCOMES_MAX: usize = 4;

/// Events that stand or fall together.
pub(super) struct Submission {
    /// When they happened, in Unix milliseconds.
    pub(super) at_ms: u64,
    /// The events, in order.
    pub(super) events: Vec<Written>,
    /// Told once the disk has them, or why it has not.
    pub(super) ack: oneshot::Sender<Result<(), StateError>>,
}

/// An event and what stands in rows of it. The text is made by whoever submits it, so that the one writer need not.
pub(super) struct Written {
    pub(super) event: StateEvent,
    pub(super) body: String,
    /// Of the sector's record, for its own row; empty where the event brings none.
    pub(super) record: String,
}

impl Written {
    pub(super) fn new(event: StateEvent) -> Result<Self, StateError> {
        let body = projection::json(&event)?;
        let record = match &event {
            StateEvent::SectorPledged { record, .. } | StateEvent::SectorStepped { record, .. } => {
                projection::json(record)?
            }
            _ => String::new(),
        };
        Ok(Self { event, body, record })
    }
}

/// Starts the threads. They end when the last sender is gone.
pub(super) fn spawn(
    connection: Connection,
    epoch: Epoch,
    mut waiting: mpsc::Receiver<Submission>,
    batches: Arc<AtomicU64>,
    mut checkpoints: Checkpoints,
) -> Result<(), StateError> {
    let (outcomes, told) = sync_channel(OUTCOMES_MAX);
    thread("state-teller", move || told.into_iter().for_each(Outcome::tell))?;
    let writer = move || {
        let writing = Writing::new(&connection);
        while let Some(batch) = next_batch(&mut waiting) {
            let outcome = write_batch(&writing, epoch, batch);
            batches.fetch_add(1, Ordering::Relaxed);
            let (events, bytes) = outcome.size();
            hand_over(outcome, &outcomes);
            checkpoints.written(&connection, events, bytes);
        }
    };
    thread("state-writer", writer)
}

pub(super) fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), StateError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map(|_thread| ()).map_err(|source| {
        StateError::Corrupt { what: "process limit", detail: format!("no thread for the writer: {source}") }
    })
}

/// Those that wait, as soon as there is one; `None`: there will be no more.
fn next_batch(waiting: &mut mpsc::Receiver<Submission>) -> Option<Vec<Submission>> {
    let mut batch = vec![waiting.blocking_recv()?];
    batch.extend(std::iter::from_fn(|| waiting.try_recv().ok()).take(BATCH_MAX - 1));
    Some(batch)
}

fn hand_over(outcome: Outcome, outcomes: &SyncSender<Outcome>) {
    if outcome.batch.len() < TOLD_AT_ONCE {
        outcome.tell();
    } else if let Err(SendError(outcome)) = outcomes.send(outcome) {
        outcome.tell();
    }
}

/// How a batch went.
struct Outcome {
    batch: Vec<Submission>,
    /// None said: all of them went well.
    results: Result<Vec<Result<(), StateError>>, StateError>,
}

impl Outcome {
    /// How many events, and how many bytes of text they brought.
    fn size(&self) -> (usize, usize) {
        let all = || self.batch.iter().flat_map(|submission| &submission.events);
        (all().count(), all().map(|written| written.body.len() + written.record.len()).sum())
    }

    /// Wakes those who wait, each with how it went.
    fn tell(self) {
        let mut results = self.results.map(Vec::into_iter);
        for submission in self.batch {
            let result = match &mut results {
                Ok(each) => each.next().unwrap_or(Ok(())),
                Err(failure) => Err(again(failure)),
            };
            // A submitter that no longer listens changes nothing: its events are durable or not, all the same.
            drop(submission.ack.send(result));
        }
    }
}

/// One transaction. A submission that does not apply is rolled back alone; when the transaction itself fails, all of
/// them have failed.
fn write_batch(writing: &Writing<'_>, epoch: Epoch, batch: Vec<Submission>) -> Outcome {
    // What fits together is nearly everything. Savepoints cost as much as a submission, so only a batch that did not go
    // as a whole is done again with one around each.
    let results = match write_transaction(writing, epoch, &batch, Together::Whole) {
        Err(failure) if batch.len() > 1 && is_of_a_submission(&failure) => {
            write_transaction(writing, epoch, &batch, Together::Each)
        }
        whole => whole,
    };
    Outcome { batch, results }
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
    writing: &Writing<'_>,
    epoch: Epoch,
    batch: &[Submission],
    together: Together,
) -> Result<Vec<Result<(), StateError>>, StateError> {
    let written = write_uncommitted(writing, epoch, batch, together)
        .and_then(|(transaction, results)| Ok((transaction.commit().map_err(database("commit"))?, results)));
    if written.is_err() {
        writing.forget();
    }
    written.map(|((), results)| results)
}

/// The transaction is rolled back when it is dropped.
fn write_uncommitted<'db>(
    writing: &Writing<'db>,
    epoch: Epoch,
    batch: &[Submission],
    together: Together,
) -> Result<(Transaction<'db>, Vec<Result<(), StateError>>), StateError> {
    // None is open: the writer is the only one who begins any on its connection, and each ends here.
    let begun = Transaction::new_unchecked(writing.connection(), TransactionBehavior::Immediate);
    let transaction = begun.map_err(database("begin a transaction"))?;
    let newest = schema::newest_epoch(&transaction)?;
    if newest != epoch {
        return Err(StateError::StaleEpoch { ours: epoch, newest });
    }
    let results = match together {
        Together::Whole => write_submissions(writing, epoch, batch).map(|()| Vec::new())?,
        Together::Each => {
            batch.iter().map(|one| write_alone(writing, epoch, one)).collect::<Result<_, _>>()?
        }
    };
    Ok((transaction, results))
}

/// The inner result is the submission's; the outer one that of the transaction around it.
fn write_alone(
    writing: &Writing<'_>,
    epoch: Epoch,
    submission: &Submission,
) -> Result<Result<(), StateError>, StateError> {
    writing.run("SAVEPOINT one", []).map_err(database("open a savepoint"))?;
    let written = write_submissions(writing, epoch, std::slice::from_ref(submission));
    if let Err(failure) = written {
        writing.forget();
        // After a full disk SQLite has rolled everything back, the savepoint with it: what is told is why.
        if !is_of_a_submission(&failure) || writing.run("ROLLBACK TO one", []).is_err() {
            return Err(failure);
        }
        return close_savepoint(writing).map(|()| Err(failure));
    }
    close_savepoint(writing).map(Ok)
}

fn close_savepoint(writing: &Writing<'_>) -> Result<(), StateError> {
    writing.run("RELEASE one", []).map(drop).map_err(database("close a savepoint"))
}

fn write_submissions(writing: &Writing<'_>, epoch: Epoch, batch: &[Submission]) -> Result<(), StateError> {
    writing.append(epoch, batch)?;
    for Submission { at_ms, events, .. } in batch {
        let at = |place: Option<usize>| place.and_then(|at| events.get(at)).map(|written| &written.event);
        for (place, Written { event, record, .. }) in events.iter().enumerate() {
            let (before, next) = (at(place.checked_sub(1)), at(place.checked_add(1)));
            let among = Among { before, event, next, record };
            projection::apply(writing, *at_ms, among)?;
        }
    }
    raise_counters(writing.connection(), batch)
}

/// Once for all of them, where nothing was given out before what the latest one says.
fn raise_counters(db: &Connection, batch: &[Submission]) -> Result<(), StateError> {
    let (mut next_task, mut next_sectors) = (0, BTreeMap::<ActorId, u64>::new());
    for Written { event, .. } in batch.iter().flat_map(|submission| &submission.events) {
        let after = |last: u64, none: &str| {
            let left = || StateError::Inapplicable { kind: event.kind(), detail: none.to_owned() };
            last.checked_add(1).ok_or_else(left)
        };
        match event {
            StateEvent::TaskSubmitted { task, .. } => {
                next_task = next_task.max(after(task.get(), "no task id is left")?);
            }
            StateEvent::SectorPledged { sector, .. } => {
                let next = next_sectors.entry(sector.id.miner).or_default();
                *next = (*next).max(after(sector.id.number.get(), "no number is left")?);
            }
            _ => {}
        }
    }
    for (miner, next) in next_sectors {
        schema::raise_next_sector(db, stored("miner actor", miner.get())?, next)?;
    }
    if next_task > 0 {
        schema::raise_counter(db, "next_task", next_task)?;
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

#[cfg(test)]
mod tests {
    use sealtasks::{RegisteredSealProof, SectorId, SectorRef, SectorSize};

    use super::*;
    use crate::state::MinerIdentity;

    type Told = oneshot::Receiver<Result<(), StateError>>;

    fn database() -> (tempfile::TempDir, Connection, Epoch) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state.db");
        let (actor, sector_size) = (ActorId::new(1000), SectorSize::KiB2);
        schema::create(&path, &MinerIdentity { actor, sector_size, beacon: [7; 32], chain: None })
            .expect("a new database");
        let mut connection = schema::open(&path).expect("the writer's connection");
        let (epoch, _) = schema::begin_epoch(&mut connection).expect("an epoch");
        (dir, connection, epoch)
    }

    /// A new sector with a record of so many bytes.
    fn pledged(number: u64, bytes: usize) -> (Submission, Told) {
        let proof = RegisteredSealProof::for_new_sector(SectorSize::KiB2);
        let event = StateEvent::SectorPledged {
            sector: SectorRef { id: SectorId::new(1000, number), proof },
            state: "Packing".to_owned(),
            record: "a".repeat(bytes).into(),
        };
        let (ack, told) = oneshot::channel();
        (Submission { at_ms: 1, events: vec![Written::new(event).expect("text")], ack }, told)
    }

    fn sectors(connection: &Connection) -> Vec<u64> {
        let mut statement = connection.prepare("SELECT number FROM sector ORDER BY number").expect("a query");
        let rows = statement.query_map([], |row| row.get::<_, i64>(0)).expect("rows");
        rows.map(|number| number.expect("a number").try_into().expect("not negative")).collect()
    }

    /// SQLite rolls the whole transaction back then, and the savepoint is gone.
    #[test]
    fn a_disk_that_is_full_in_the_midst_of_a_batch_is_what_each_of_it_is_told() {
        let (_dir, connection, epoch) = database();
        let writing = Writing::new(&connection);
        let pages: i64 =
            connection.pragma_query_value(None, "page_count", |row| row.get(0)).expect("its pages");
        let most = |most: i64| {
            connection.pragma_update_and_check(None, "max_page_count", most, |_| Ok(())).expect("a limit")
        };
        most(pages + 40);
        let (batch, _told): (Vec<_>, Vec<_>) = [(1, 10), (2, 1 << 20), (3, 10)]
            .map(|(number, bytes)| pledged(number, bytes))
            .into_iter()
            .unzip();
        let error = write_transaction(&writing, epoch, &batch, Together::Each).expect_err("no room");
        assert_eq!(error.code(), "MGR009", "{error}");
        assert!(connection.is_autocommit(), "nothing is under way");
        assert!(sectors(&connection).is_empty());
        most(pages + 4_000);
        let results = write_transaction(&writing, epoch, &batch, Together::Each).expect("there is room");
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        assert_eq!(sectors(&connection), [1, 2, 3]);
    }

    /// Of so many as are told by the thread beside the writer.
    #[test]
    fn one_that_does_not_apply_is_refused_alone_among_many() {
        let (_dir, connection, epoch) = database();
        let writing = Writing::new(&connection);
        // The seventh is of a sector that the third has entered.
        let number = |place: u64| if place == 7 { 3 } else { place };
        let (batch, told): (Vec<_>, Vec<_>) = (1..=20).map(|place| pledged(number(place), 10)).unzip();
        assert!(batch.len() > TOLD_AT_ONCE);
        let (outcomes, handed) = sync_channel(1);
        hand_over(write_batch(&writing, epoch, batch), &outcomes);
        handed.try_recv().expect("too many to be told at once").tell();
        let mut refused = Vec::new();
        for (place, mut told) in (1..).zip(told) {
            if let Err(error) = told.try_recv().expect("told") {
                refused.push((place, error.code()));
            }
        }
        assert_eq!(refused, [(7, "MGR004")]);
        assert_eq!(sectors(&connection), (1..=20).filter(|number| *number != 7).collect::<Vec<_>>());
    }
}

//! Takes the WAL into the database beside the writer, which would otherwise let everybody wait while it copies thousands of
//! pages. A connection of its own copies what is committed while more is; the writer then copies the little that came
//! meanwhile, whereupon the WAL begins anew. Never: what is durable; a commit is in the WAL and synced before it counts.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rusqlite::{Connection, Row};

use super::{StateError, schema, writer};

/// Bytes of a page.
const PAGE: usize = 4096;

/// What the writer may find left, in pages; beyond, one more pass is made first.
const LEFT_MOST: i64 = 512;

/// Passes over one WAL: what came meanwhile is less each time, unless the disk is slower than its writers.
const PASSES_MOST: usize = 3;

/// The writer's end: it tells how much it has written.
pub(super) struct Checkpoints {
    asked: SyncSender<()>,
    /// Nearly all of the WAL is in the database.
    ready: Arc<AtomicBool>,
    /// Pages that were written since, as far as can be told from events and bytes.
    pages: usize,
}

impl Checkpoints {
    /// Starts the thread that copies; it ends when this is dropped.
    pub(super) fn spawn(path: &Path) -> Result<Self, StateError> {
        let connection = schema::open(path)?;
        let (asked, asks) = sync_channel(1);
        let ready = Arc::new(AtomicBool::new(false));
        let told = ready.clone();
        writer::thread("state-wal", move || copy_when_asked(&connection, &asks, &told))?;
        Ok(Self { asked, ready, pages: 0 })
    }

    /// The writer has committed so many events of so many bytes on this connection.
    pub(super) fn written(&mut self, connection: &Connection, events: usize, bytes: usize) {
        if self.ready.swap(false, Ordering::AcqRel) {
            copy(connection);
            self.pages = 0;
            return;
        }
        // What an event changes lies in several pages, most of which the next one changes, too.
        self.pages += events + bytes / PAGE;
        if self.pages >= schema::CHECKPOINT_PAGES {
            self.pages = 0;
            // One that is asked for already will copy this, too.
            let _ = self.asked.try_send(());
        }
    }
}

fn copy_when_asked(connection: &Connection, asks: &Receiver<()>, ready: &AtomicBool) {
    for () in asks {
        let mut is_copied = false;
        for _ in 0..PASSES_MOST {
            // Readers or the writer itself may keep it from being finished; the next one goes on where it stopped.
            let Some(left) = copy(connection) else { break };
            is_copied = true;
            if left <= LEFT_MOST {
                break;
            }
        }
        // Else the writer would have all of it to copy; it asks again when it has written as much once more.
        if is_copied {
            ready.store(true, Ordering::Release);
        }
    }
}

/// Copies what no reader needs to find in the WAL. How many pages are left there; `None`: nothing was copied, because another
/// connection is at it or SQLite failed.
fn copy(connection: &Connection) -> Option<i64> {
    let counts = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    match connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], counts) {
        // A busy one counts no pages: it says -1 of both.
        Ok((false, all, copied)) => Some(i64::saturating_sub(all, copied)),
        Ok((true, _, _)) => None,
        Err(error) => {
            // Nothing is lost: it stays in the WAL.
            tracing::warn!(%error, "the state's WAL cannot be taken into its database");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::{Duration, Instant};

    use sealtasks::{ActorId, SectorSize};

    use super::*;
    use crate::state::MinerIdentity;

    #[test]
    fn what_was_written_comes_into_the_database_without_the_writer() {
        let (_dir, path) = database();
        let connection = schema::open(&path).expect("the writer's connection");
        let mut checkpoints = Checkpoints::spawn(&path).expect("its thread");
        let length = || std::fs::metadata(&path).expect("it is there").len();
        let before = length();
        let text = "a".repeat(PAGE * 100);
        connection.execute("INSERT INTO takeover (id) VALUES (?1)", [text]).expect("some pages, in the WAL");
        checkpoints.written(&connection, 1, PAGE);
        assert_eq!(length(), before, "too few to be copied");
        checkpoints.written(&connection, schema::CHECKPOINT_PAGES, 0);
        let begun = Instant::now();
        while !checkpoints.ready.load(Ordering::Acquire) {
            assert!(begun.elapsed() < Duration::from_secs(60), "it was asked to copy them");
            std::thread::yield_now();
        }
        assert!(length() >= before + PAGE as u64 * 100, "they are in the database");
        let before = length();
        let text = "b".repeat(PAGE * 100);
        connection.execute("INSERT INTO takeover (id) VALUES (?1)", [text]).expect("some more meanwhile");
        assert_eq!(length(), before, "they are in the WAL");
        checkpoints.written(&connection, 1, 0);
        assert!(!checkpoints.ready.load(Ordering::Acquire), "its turn is over");
        assert!(length() >= before + PAGE as u64 * 100, "the writer has copied the rest");
    }

    /// Nothing is left for who finds nothing to copy; of one that could not look it is not known.
    #[test]
    fn one_that_finds_another_connection_at_it_has_copied_nothing() {
        thread_local! {
            static BESIDE: RefCell<Option<(Connection, Option<i64>)>> = const { RefCell::new(None) };
        }
        /// Called while the one that has taken the checkpoint waits for the writer.
        fn look_beside(_: i32) -> bool {
            BESIDE.with_borrow_mut(|beside| {
                if let Some((connection, left)) = beside {
                    *left = copy(connection);
                }
            });
            false
        }
        let (_dir, path) = database();
        let [writer, waiting, beside] = [(); 3].map(|()| schema::open(&path).expect("a connection"));
        writer.execute("INSERT INTO takeover (id) VALUES ('some')", []).expect("something in the WAL");
        BESIDE.set(Some((beside, Some(i64::MIN))));
        waiting.busy_handler(Some(look_beside)).expect("it is told when it waits");
        writer.execute_batch("BEGIN IMMEDIATE").expect("the writer holds its lock");
        waiting.query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(())).expect("an answer");
        writer.execute_batch("ROLLBACK").expect("it lets go");
        let (beside, left) = BESIDE.take().expect("it was put there");
        assert_eq!(left, None, "busy");
        assert_eq!(copy(&beside), Some(0), "alone");
    }

    fn database() -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state.db");
        let (actor, sector_size) = (ActorId::new(1000), SectorSize::KiB2);
        schema::create(&path, &MinerIdentity { actor, sector_size, beacon: [7; 32], chain: None })
            .expect("a new database");
        (dir, path)
    }
}

//! How many requests read one storage path at once. A mount that hangs keeps those that wait for it, and no others: each
//! path has its own turns.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::StoreError;

/// Bodies that are read from one path at once; further requests wait.
const SENDERS_MAX: usize = 64;
/// Requests that look at what lies in one path, at once. They are over in a moment where the disk answers.
const LOOKERS_MAX: usize = 16;

/// The turns of all paths. Bounded by the paths that a process has had open.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<PathBuf, PathTurns>>);

#[derive(Clone)]
struct PathTurns {
    senders: Arc<Semaphore>,
    lookers: Arc<Semaphore>,
}

impl Turns {
    /// A turn to send what is read of a sector's file.
    pub(super) async fn to_send(&self, file: &Path) -> Result<OwnedSemaphorePermit, StoreError> {
        had(self.of(file).senders).await
    }

    /// A turn to look at a sector's file.
    pub(super) async fn to_look(&self, file: &Path) -> Result<OwnedSemaphorePermit, StoreError> {
        had(self.of(file).lookers).await
    }

    fn of(&self, file: &Path) -> PathTurns {
        // `<path>/<type>/<sector>`.
        let path = file.ancestors().nth(2).unwrap_or(file);
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = turns.get(path) {
            return found.clone();
        }
        let fresh = PathTurns {
            senders: Arc::new(Semaphore::new(SENDERS_MAX)),
            lookers: Arc::new(Semaphore::new(LOOKERS_MAX)),
        };
        turns.insert(path.to_owned(), fresh.clone());
        fresh
    }
}

/// Does what a turn is for, to its end: whoever asked may go before the disk has answered, and would leave the thread that waits
/// for it behind without a turn.
pub(super) async fn held<T: Send + 'static>(
    turn: impl Send + 'static,
    work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    let all = async move {
        let done = work.await;
        drop(turn);
        done
    };
    tokio::spawn(all).await.unwrap_or(Err(StoreError::Lost { what: "reading a sector file" }))
}

async fn had(turns: Arc<Semaphore>) -> Result<OwnedSemaphorePermit, StoreError> {
    // Nobody closes them.
    turns.acquire_owned().await.map_err(|_| StoreError::Lost { what: "waiting for a turn to read" })
}

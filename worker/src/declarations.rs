//! Declaring paths to the manager again: each in a task of its own, one at a time for each path.
//!
//! A path that hangs, or takes long to read, keeps neither the worker from its manager nor the others' health from being told;
//! it is declared when it has been read. Whoever asks while a path is being declared has it declared once more behind that: the
//! manager may be another one by now. From the worker's stop on nothing is declared.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sealtasks::StorageId;
use stores::{IndexError, StoreError};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::error::chain;
use crate::worker::Shared;

/// The paths that are being declared.
#[derive(Default)]
pub(crate) struct Declarations(Mutex<BTreeMap<StorageId, Run>>);

/// A path's declarations, until nobody wants a further one. They are numbered from 1.
struct Run {
    under_way: u64,
    wanted: u64,
    ended: watch::Sender<Ended>,
}

/// The last one that has ended, and how.
#[derive(Clone, Default)]
struct Ended {
    number: u64,
    error: Option<Arc<StoreError>>,
}

/// A declaration that somebody asked for.
struct Asked {
    number: u64,
    ended: watch::Receiver<Ended>,
}

impl Asked {
    /// Waits for its end; `None`: it went well, or will not be done because the worker stops.
    async fn failure(mut self) -> Option<Arc<StoreError>> {
        let ended = self.ended.wait_for(|ended| ended.number >= self.number).await;
        ended.ok().and_then(|ended| ended.error.clone())
    }
}

impl Declarations {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<StorageId, Run>> {
        // Single inserts and removes: a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Declares all paths and their files again. One that has not been read within [`crate::Periods::slow_path`] is declared
    /// later, and is not waited for.
    ///
    /// # Errors
    /// The manager does not answer, or refuses.
    pub(crate) async fn declare_paths_again(self: &Arc<Self>) -> Result<(), Arc<StoreError>> {
        let paths = self.local.paths().into_iter();
        let asked: Vec<_> = paths.map(|path| (self.declare_again(&path.id), path.id)).collect();
        let deadline = Instant::now() + self.periods.slow_path;
        for (declaration, path) in asked {
            match timeout_at(deadline, declaration.failure()).await {
                Ok(Some(error)) if is_managers(&error) => return Err(error),
                // What runs and lies elsewhere on this machine goes on; the health reports try this path again.
                Ok(_) => {}
                Err(_) => {
                    tracing::warn!(%path, "the path takes long to read; it is declared when it has been read")
                }
            }
        }
        Ok(())
    }

    /// Declares a path again in the background that the manager does not know, unless that is under way.
    pub(crate) fn declare_unknown(self: &Arc<Self>, path: &StorageId) {
        if !self.declarations.lock().contains_key(path) {
            self.declare_again(path);
        }
    }

    fn declare_again(self: &Arc<Self>, path: &StorageId) -> Asked {
        let mut runs = self.declarations.lock();
        if let Some(run) = runs.get_mut(path) {
            run.wanted = run.under_way + 1;
            return Asked { number: run.wanted, ended: run.ended.subscribe() };
        }
        let (sender, ended) = watch::channel(Ended::default());
        runs.insert(path.clone(), Run { under_way: 1, wanted: 1, ended: sender });
        drop(runs);
        let (own, path) = (Arc::clone(self), path.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = own.stopping.cancelled() => drop(own.declarations.lock().remove(&path)),
                () = own.declare_while_wanted(&path) => {}
            }
        });
        Asked { number: 1, ended }
    }

    async fn declare_while_wanted(&self, path: &StorageId) {
        loop {
            let error = self.local.redeclare(Some(path), false).await.err();
            self.beats.declared(path);
            if let Some(error) = &error {
                tracing::warn!(%path, error = %chain(error), "the path could not be declared again");
            }
            let mut runs = self.declarations.lock();
            let Some(run) = runs.get_mut(path) else { return };
            run.ended.send_replace(Ended { number: run.under_way, error: error.map(Arc::new) });
            if run.wanted == run.under_way {
                runs.remove(path);
                return;
            }
            run.under_way = run.wanted;
        }
    }
}

/// Whether the manager is at fault, and not the path.
fn is_managers(error: &StoreError) -> bool {
    matches!(error, StoreError::Index(IndexError::Remote(_)))
}

//! Opening the paths of `storage.json` when a process starts: all at once, and none waits for a mount that hangs.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, oneshot};
use tokio::time::timeout;

use super::departures::{Begun, BegunFile, Departures};
use super::{Local, LocalOptions, chain};
use crate::config::StorageConfig;
use crate::error::StoreError;
use crate::index::IndexError;
use crate::kept::Kept;
use crate::rehearsal::Rehearsal;
use crate::sent::Sent;

/// A path that has not answered within this time does not keep the others from starting.
pub const START_DEADLINE: Duration = Duration::from_secs(20);

/// A storage path that could not be opened.
#[derive(Debug)]
pub struct PathProblem {
    /// The directory.
    pub path: PathBuf,
    /// Why.
    pub error: StoreError,
}

/// A path waits for the ones listed before it for at most this part of the deadline: one of them may hang.
const TURN_PART: u32 = 8;

/// Paths are read all at once and entered in the order of `storage.json`, so that of two with one id it is not chance which
/// is opened.
struct Turn {
    /// Ends when the path before has been entered, or will not be.
    before: Option<oneshot::Receiver<()>>,
    within: Duration,
    /// Tells the path behind by being dropped.
    _entered: oneshot::Sender<()>,
}

impl Turn {
    async fn come(mut self) -> Self {
        if let Some(before) = self.before.take() {
            // Nothing is ever sent: it ends, or the time does.
            let _ = timeout(self.within, before).await;
        }
        self
    }
}

impl Local {
    /// Opens every path of `storage.json`, all at once. A path that cannot be opened is returned as a problem; the others go
    /// on. So does one that does not answer within [`START_DEADLINE`]; it is opened when it does.
    ///
    /// # Errors
    /// When `storage.json` is damaged, or the index cannot be reached.
    pub async fn open(options: LocalOptions) -> Result<(Arc<Self>, Vec<PathProblem>), StoreError> {
        Self::open_within(options, START_DEADLINE).await
    }

    /// [`Local::open`] for a rehearsal: a path that holds no files becomes one of rehearsals, and stays it.
    ///
    /// # Errors
    /// As there. A path with real files is a problem.
    pub async fn open_rehearsal(
        options: LocalOptions,
        rehearsal: Rehearsal,
    ) -> Result<(Arc<Self>, Vec<PathProblem>), StoreError> {
        Self::open_as(options, START_DEADLINE, Some(rehearsal), Vec::new()).await
    }

    /// [`Local::open`] with another deadline.
    ///
    /// # Errors
    /// As there.
    pub async fn open_within(
        options: LocalOptions,
        deadline: Duration,
    ) -> Result<(Arc<Self>, Vec<PathProblem>), StoreError> {
        Self::open_as(options, deadline, None, Vec::new()).await
    }

    /// [`Local::open`], or [`Local::open_rehearsal`], while tasks of an earlier life may still be writing `begun`: no scan
    /// takes those files and directories for whole until [`Local::begun_settled`], and nobody is offered their room.
    ///
    /// # Errors
    /// As there.
    pub async fn open_beside(
        options: LocalOptions,
        rehearsal: Option<Rehearsal>,
        begun: Vec<BegunFile>,
    ) -> Result<(Arc<Self>, Vec<PathProblem>), StoreError> {
        Self::open_as(options, START_DEADLINE, rehearsal, begun).await
    }

    async fn open_as(
        options: LocalOptions,
        deadline: Duration,
        rehearsal: Option<Rehearsal>,
        begun: Vec<BegunFile>,
    ) -> Result<(Arc<Self>, Vec<PathProblem>), StoreError> {
        let config = StorageConfig::read(&options.config)?;
        let (kept, sent) = (Kept::open(&options.config), Sent::open(&options.config));
        let local = Arc::new(Self {
            config: options.config,
            urls: options.urls,
            index: options.index,
            open: Mutex::default(),
            rehearsal,
            changing: AsyncMutex::default(),
            entering: AsyncMutex::default(),
            removing: AsyncMutex::default(),
            kept,
            sent,
            departures: Departures::default(),
            begun: Mutex::new(Begun::of(begun)),
        });
        let dirs: Vec<&Path> = config.paths().collect();
        let mut before = None;
        let opening: Vec<_> = dirs
            .iter()
            .map(|dir| {
                let (entered, next) = oneshot::channel();
                let turn =
                    Turn { before: before.replace(next), within: deadline / TURN_PART, _entered: entered };
                Arc::clone(&local).open_at_start((*dir).to_owned(), deadline, turn)
            })
            .collect();
        let mut problems = Vec::new();
        for (dir, opened) in dirs.iter().zip(futures_util::future::join_all(opening).await) {
            match opened {
                Ok(()) => {}
                Err(error @ StoreError::Index(IndexError::Remote(_))) => return Err(error),
                Err(error) => problems.push(PathProblem { path: (*dir).to_owned(), error }),
            }
        }
        Ok((local, problems))
    }

    /// A path whose mount hangs is left behind after `deadline`; should it ever answer, it is opened then.
    async fn open_at_start(
        self: Arc<Self>,
        dir: PathBuf,
        deadline: Duration,
        turn: Turn,
    ) -> Result<(), StoreError> {
        let path = dir.clone();
        let late = Arc::new(AtomicBool::new(false));
        let is_late = Arc::clone(&late);
        let mut opening = tokio::spawn(async move {
            let read = self.read_contents(&dir, None).await;
            let _turn = turn.come().await;
            let opened = match read {
                Ok((contents, scanning)) => self.open_one(&dir, contents, scanning).await,
                Err(error) => Err(error),
            };
            match &opened {
                _ if !is_late.load(Ordering::SeqCst) => {}
                Ok(_) => tracing::info!(?dir, "a storage path that had not answered is open now"),
                Err(error) => {
                    tracing::error!(
                        ?dir,
                        error = chain(error),
                        "a storage path that had not answered does not open"
                    );
                }
            }
            opened
        });
        match timeout(deadline, &mut opening).await {
            Ok(opened) => {
                opened.unwrap_or(Err(StoreError::Lost { what: "opening a storage path" })).map(drop)
            }
            Err(_) => {
                late.store(true, Ordering::SeqCst);
                Err(StoreError::Hangs { path, seconds: deadline.as_secs() })
            }
        }
    }
}

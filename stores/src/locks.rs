//! Locks per sector and file type: many readers or one writer of each, taken all at once or not at all.
//!
//! A lock lasts as long as its guard. Waiters of one sector are served in the order they came, so that a stream of
//! readers cannot starve a writer. Nothing is durable, and nothing here expires: who holds a guard decides.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sealtasks::{FileType, FileTypes, SectorId};
use tokio::sync::oneshot;

use crate::mem_index::Clock;

/// At most so many callers wait for one sector; a further one is refused.
pub const WAITERS_MAX: usize = 1024;

/// Who wants a lock, shown to whoever finds it busy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockOwner {
    /// For example an attempt, or the address of an RPC caller.
    pub owner: String,
    /// What for, for example `PC2`.
    pub reason: String,
}

/// What is to be locked of one sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockWant {
    /// The sector.
    pub sector: SectorId,
    /// Types to read.
    pub read: FileTypes,
    /// Types to write.
    pub write: FileTypes,
}

/// One held lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldLock {
    /// Types it reads.
    pub read: FileTypes,
    /// Types it writes.
    pub write: FileTypes,
    /// Who holds it and why.
    pub owner: LockOwner,
    /// Since when, in unix milliseconds.
    pub since_ms: u64,
}

/// All locks held on one sector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SectorLockView {
    /// The sector.
    pub sector: SectorId,
    /// Readers per file type, by the type's index.
    pub read: [u32; 6],
    /// Writers per file type (0 or 1), by the type's index.
    pub write: [u32; 6],
    /// The holders, oldest first.
    pub holders: Vec<HeldLock>,
    /// How many callers wait.
    pub waiting: usize,
}

/// The lock table. Clones share it.
#[derive(Clone)]
pub struct SectorLocks {
    state: Arc<Mutex<BTreeMap<SectorId, SectorQueue>>>,
    clock: Clock,
}

/// A held lock; dropping it releases.
#[must_use = "the lock is released when the guard is dropped"]
pub struct LockGuard {
    locks: SectorLocks,
    sector: SectorId,
    ticket: u64,
}

#[derive(Default)]
struct SectorQueue {
    tickets: u64,
    held: BTreeMap<u64, HeldLock>,
    waiting: VecDeque<Waiter>,
}

struct Waiter {
    want: LockWant,
    owner: LockOwner,
    granted: oneshot::Sender<LockGuard>,
}

impl SectorLocks {
    /// An empty table; `clock` tells unix milliseconds.
    pub fn new(clock: Clock) -> Self {
        Self { state: Arc::default(), clock }
    }

    /// Takes the lock now, or says that it is busy (`None`). It is busy too while earlier callers wait for it.
    ///
    /// # Errors
    /// [`LockError::Nothing`] when neither reading nor writing is asked for.
    pub fn try_lock(&self, want: LockWant, owner: LockOwner) -> Result<Option<LockGuard>, LockError> {
        want.check()?;
        let mut state = self.state();
        let queue = state.entry(want.sector).or_default();
        let guard = queue.free_for(&want).then(|| self.grant(queue, want, owner));
        if queue.is_idle() {
            state.remove(&want.sector);
        }
        Ok(guard)
    }

    /// Waits for the lock. Dropping the future gives the place in the queue up.
    ///
    /// # Errors
    /// [`LockError::Nothing`] when neither reading nor writing is asked for, [`LockError::Crowded`] when
    /// [`WAITERS_MAX`] callers wait already.
    pub async fn lock(&self, want: LockWant, owner: LockOwner) -> Result<LockGuard, LockError> {
        want.check()?;
        let granted = {
            let mut state = self.state();
            let queue = state.entry(want.sector).or_default();
            queue.waiting.retain(|waiter| !waiter.granted.is_closed());
            if queue.free_for(&want) {
                return Ok(self.grant(queue, want, owner));
            }
            if queue.waiting.len() >= WAITERS_MAX {
                return Err(LockError::Crowded { sector: want.sector });
            }
            let (granted, receiver) = oneshot::channel();
            queue.waiting.push_back(Waiter { want, owner, granted });
            receiver
        };
        let abandoned = Abandoned { locks: self, sector: want.sector };
        let guard = granted.await.map_err(|_| LockError::Closed { sector: want.sector });
        std::mem::forget(abandoned);
        guard
    }

    /// Every sector with a lock or a waiter, by sector.
    pub fn snapshot(&self) -> Vec<SectorLockView> {
        self.state().iter().map(|(sector, queue)| queue.view(*sector)).collect()
    }

    fn state(&self) -> MutexGuard<'_, BTreeMap<SectorId, SectorQueue>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn grant(&self, queue: &mut SectorQueue, want: LockWant, owner: LockOwner) -> LockGuard {
        queue.tickets += 1;
        let held = HeldLock { read: want.read, write: want.write, owner, since_ms: (self.clock)() };
        queue.held.insert(queue.tickets, held);
        LockGuard { locks: self.clone(), sector: want.sector, ticket: queue.tickets }
    }

    /// Grants what has become free, in order. Guards whose waiter went away meanwhile are returned: they lock the
    /// table when dropped, so that must happen after it is unlocked.
    fn settle(&self, sector: SectorId, released: Option<u64>) {
        let mut orphans = Vec::new();
        {
            let mut state = self.state();
            let Some(queue) = state.get_mut(&sector) else { return };
            if let Some(ticket) = released {
                queue.held.remove(&ticket);
            }
            queue.waiting.retain(|waiter| !waiter.granted.is_closed());
            let mut kept = VecDeque::new();
            while let Some(waiter) = queue.waiting.pop_front() {
                let behind = kept
                    .iter()
                    .any(|earlier: &Waiter| earlier.want.conflicts(waiter.want.read, waiter.want.write));
                if behind || !queue.compatible(&waiter.want) {
                    kept.push_back(waiter);
                } else {
                    let guard = self.grant(queue, waiter.want, waiter.owner);
                    orphans.extend(waiter.granted.send(guard).err());
                }
            }
            queue.waiting = kept;
            if queue.is_idle() {
                state.remove(&sector);
            }
        }
        drop(orphans);
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        self.locks.settle(self.sector, Some(self.ticket));
    }
}

/// Lets those behind a waiter move up when it is cancelled.
struct Abandoned<'a> {
    locks: &'a SectorLocks,
    sector: SectorId,
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        self.locks.settle(self.sector, None);
    }
}

impl LockWant {
    fn check(&self) -> Result<(), LockError> {
        if self.read.is_empty() && self.write.is_empty() {
            return Err(LockError::Nothing { sector: self.sector });
        }
        Ok(())
    }

    /// Whether this and a lock of these types exclude each other.
    fn conflicts(&self, read: FileTypes, write: FileTypes) -> bool {
        !self.write.intersection(read | write).is_empty() || !self.read.intersection(write).is_empty()
    }
}

impl SectorQueue {
    fn compatible(&self, want: &LockWant) -> bool {
        !self.held.values().any(|held| want.conflicts(held.read, held.write))
    }

    fn free_for(&self, want: &LockWant) -> bool {
        let queued = |waiter: &Waiter| {
            !waiter.granted.is_closed() && want.conflicts(waiter.want.read, waiter.want.write)
        };
        self.compatible(want) && !self.waiting.iter().any(queued)
    }

    fn is_idle(&self) -> bool {
        self.held.is_empty() && self.waiting.is_empty()
    }

    fn view(&self, sector: SectorId) -> SectorLockView {
        let count = |pick: fn(&HeldLock) -> FileTypes| {
            FileType::ALL.map(|kind| {
                let holders = self.held.values().filter(|held| pick(held).contains(kind)).count();
                u32::try_from(holders).unwrap_or(u32::MAX)
            })
        };
        SectorLockView {
            sector,
            read: count(|held| held.read),
            write: count(|held| held.write),
            holders: self.held.values().cloned().collect(),
            waiting: self.waiting.len(),
        }
    }
}

/// Why a lock was refused. Busy is no error: see [`SectorLocks::try_lock`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// Neither reading nor writing was asked for.
    #[error("lock of {sector} asks for no file type; expected at least one to read or write")]
    Nothing {
        /// The sector.
        sector: SectorId,
    },
    /// Too many callers wait.
    #[error("{WAITERS_MAX} callers wait for {sector} already; try later")]
    Crowded {
        /// The sector.
        sector: SectorId,
    },
    /// The table went away.
    #[error("the lock table was closed while waiting for {sector}")]
    Closed {
        /// The sector.
        sector: SectorId,
    },
}

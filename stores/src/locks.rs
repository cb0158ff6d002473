//! Locks per sector and file type: many readers or one writer of each, taken all at once or not at all.
//!
//! A lock lasts as long as its guard, and never expires under it: it belongs to an attempt or a move. Only a [`Lease`], for
//! those who read, is let go when it has not been renewed for its time. Waiters of one sector are served in the order
//! they came, so that a stream of readers cannot starve a writer. Nothing is durable.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
    /// A lease ends then, in unix milliseconds, unless it is renewed; `None` = it never ends by itself.
    pub until_ms: Option<u64>,
}

/// One caller that waits for a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingLock {
    /// Types it wants to read.
    pub read: FileTypes,
    /// Types it wants to write.
    pub write: FileTypes,
    /// Who waits and why.
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
    /// Who waits, in the order in which they are served.
    pub waiters: Vec<WaitingLock>,
}

/// The lock table. Clones share it.
#[derive(Clone)]
pub struct SectorLocks {
    state: Arc<Mutex<BTreeMap<SectorId, SectorQueue>>>,
    /// Never given twice, so that a lease which has ended can be taken for no other lock of its sector.
    tickets: Arc<AtomicU64>,
    clock: Clock,
}

/// A held lock; dropping it releases.
#[must_use = "the lock is released when the guard is dropped"]
pub struct LockGuard {
    locks: SectorLocks,
    sector: SectorId,
    ticket: u64,
}

/// A lock that ends by itself when it is not renewed; dropping it releases.
#[must_use = "the lock is released when the lease is dropped"]
pub struct Lease {
    guard: LockGuard,
    length_ms: u64,
}

#[derive(Default)]
struct SectorQueue {
    held: BTreeMap<u64, HeldLock>,
    waiting: VecDeque<Waiter>,
}

struct Waiter {
    want: LockWant,
    owner: LockOwner,
    since_ms: u64,
    granted: oneshot::Sender<LockGuard>,
}

impl SectorLocks {
    /// An empty table; `clock` tells unix milliseconds.
    pub fn new(clock: Clock) -> Self {
        Self { state: Arc::default(), tickets: Arc::default(), clock }
    }

    /// Takes the lock now, or says that it is busy (`None`). It is busy too while earlier callers wait for it.
    ///
    /// # Errors
    /// [`LockError::Nothing`] when neither reading nor writing is asked for.
    pub fn try_lock(&self, want: LockWant, owner: LockOwner) -> Result<Option<LockGuard>, LockError> {
        want.check()?;
        self.end_leases(want.sector);
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
        self.end_leases(want.sector);
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
            queue.waiting.push_back(Waiter { want, owner, since_ms: (self.clock)(), granted });
            receiver
        };
        let abandoned = Abandoned { locks: self, sector: want.sector };
        let guard = granted.await.map_err(|_| LockError::Closed { sector: want.sector });
        std::mem::forget(abandoned);
        guard
    }

    /// Waits for the lock as [`SectorLocks::lock`] does, for someone who might go on for ever: it ends `length` after it
    /// was last renewed.
    ///
    /// # Errors
    /// As [`SectorLocks::lock`].
    pub async fn lease(
        &self,
        want: LockWant,
        owner: LockOwner,
        length: Duration,
    ) -> Result<Lease, LockError> {
        let guard = self.lock(want, owner).await?;
        let lease = Lease { guard, length_ms: u64::try_from(length.as_millis()).unwrap_or(u64::MAX) };
        // Nothing can have ended it yet.
        let _ = lease.renew();
        Ok(lease)
    }

    /// Takes a lock whether it is free or not, for work that is being done already and was found again.
    ///
    /// # Errors
    /// [`LockError::Nothing`] when neither reading nor writing is asked for.
    pub fn adopt(&self, want: LockWant, owner: LockOwner) -> Result<LockGuard, LockError> {
        want.check()?;
        let mut state = self.state();
        let queue = state.entry(want.sector).or_default();
        Ok(self.grant(queue, want, owner))
    }

    /// Who holds what this would have to wait for now, then who waits for such before it.
    pub fn in_the_way(&self, want: LockWant) -> Vec<LockOwner> {
        self.end_leases(want.sector);
        self.state().get(&want.sector).map(|queue| queue.in_the_way(&want)).unwrap_or_default()
    }

    /// Lets go of the leases that have run out, of all sectors. Whoever asks for a lock does so for its sector; those who
    /// wait rely on this being called now and then.
    pub fn end_all_leases(&self) {
        let sectors: Vec<SectorId> = self.state().keys().copied().collect();
        sectors.into_iter().for_each(|sector| self.end_leases(sector));
    }

    /// Every sector with a lock or a waiter, by sector.
    pub fn snapshot(&self) -> Vec<SectorLockView> {
        self.end_all_leases();
        self.state().iter().map(|(sector, queue)| queue.view(*sector)).collect()
    }

    fn state(&self) -> MutexGuard<'_, BTreeMap<SectorId, SectorQueue>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn grant(&self, queue: &mut SectorQueue, want: LockWant, owner: LockOwner) -> LockGuard {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let held =
            HeldLock { read: want.read, write: want.write, owner, since_ms: (self.clock)(), until_ms: None };
        queue.held.insert(ticket, held);
        LockGuard { locks: self.clone(), sector: want.sector, ticket }
    }

    fn end_leases(&self, sector: SectorId) {
        let now = (self.clock)();
        let over = |held: &HeldLock| held.until_ms.is_some_and(|until| until <= now);
        let any = match self.state().get_mut(&sector) {
            Some(queue) => {
                let before = queue.held.len();
                queue.held.retain(|_, held| !over(held));
                queue.held.len() < before
            }
            None => false,
        };
        if any {
            self.settle(sector, None);
        }
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

impl LockGuard {
    /// The lock is somebody else's from now on, with the same types and age.
    pub fn hand_to(&self, owner: LockOwner) {
        let mut state = self.locks.state();
        let held = state.get_mut(&self.sector).and_then(|queue| queue.held.get_mut(&self.ticket));
        if let Some(held) = held {
            held.owner = owner;
        }
    }
}

impl Lease {
    /// Begins its time anew. `false`: it has ended, and what was read since the last renewal may not be what it was.
    #[must_use]
    pub fn renew(&self) -> bool {
        let LockGuard { locks, sector, ticket } = &self.guard;
        locks.end_leases(*sector);
        let until = (locks.clock)().saturating_add(self.length_ms);
        let mut state = locks.state();
        let held = state.get_mut(sector).and_then(|queue| queue.held.get_mut(ticket));
        held.map(|held| held.until_ms = Some(until)).is_some()
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

    fn in_the_way(&self, want: &LockWant) -> Vec<LockOwner> {
        let held = self.held.values().filter(|held| want.conflicts(held.read, held.write));
        let waiting = self.waiting.iter().filter(|waiter| !waiter.granted.is_closed());
        let before = waiting.filter(|waiter| want.conflicts(waiter.want.read, waiter.want.write));
        held.map(|held| &held.owner).chain(before.map(|waiter| &waiter.owner)).cloned().collect()
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
        let waiter = |waiter: &Waiter| WaitingLock {
            read: waiter.want.read,
            write: waiter.want.write,
            owner: waiter.owner.clone(),
            since_ms: waiter.since_ms,
        };
        SectorLockView {
            sector,
            read: count(|held| held.read),
            write: count(|held| held.write),
            holders: self.held.values().cloned().collect(),
            waiters: self.waiting.iter().filter(|waiter| !waiter.granted.is_closed()).map(waiter).collect(),
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

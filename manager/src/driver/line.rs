//! Tasks and those of whom the scheduler knows nothing: readers, operators' moves, callers of the lock methods. The
//! scheduler shares a sector's files out among tasks; the lock table is what all of them meet at. A task that the
//! scheduler binds while somebody else has its files is taken back before anything is committed, and stands in line like
//! everyone. When its turn comes the scheduler gets it again, with the lock in its hand: bound at once, it keeps the lock;
//! if no worker is free, others may have the files meanwhile. So neither starves the other, and no worker is ever
//! called for a task whose files are in use. Never: takes a lock from anyone.

use sched::{Event, Millis, Whereabouts};
use sealtasks::{AttemptId, FileTypes, TaskId};
use stores::{LockGuard, LockOwner, LockWant};
use tokio_util::sync::CancellationToken;

use super::input::Effect;
use super::sectors::short_code;
use super::{Driver, Task};

/// What would let a task in line start.
pub(super) const CHANGE: &str = "it goes on when they let go, a reader at the latest 10 minutes after it last took data; `sealyard storage locks` shows \
     them";

/// Somebody else has the files.
pub(super) struct InUse;

impl Driver {
    /// The lock of an attempt that the scheduler binds; `None`: its work needs none.
    pub(super) fn lock_for(&mut self, attempt: AttemptId) -> Result<Option<LockGuard>, InUse> {
        let Some(want) = self.want_of(attempt.task) else { return Ok(None) };
        let Some(task) = self.tasks.get_mut(&attempt.task) else { return Ok(None) };
        let owner = owner(attempt, task);
        if let Some(lock) = task.turn.take() {
            lock.hand_to(owner);
            return Ok(Some(lock));
        }
        self.shared.locks.try_lock(want, owner).map_err(|_| InUse)?.map(Some).ok_or(InUse)
    }

    /// The lock of an attempt that was found running: it holds its files whoever else does.
    pub(super) fn lock_found(&mut self, attempt: AttemptId) {
        let Some(want) = self.want_of(attempt.task) else { return };
        let Some(task) = self.tasks.get(&attempt.task) else { return };
        let owner = owner(attempt, task);
        let locks = self.shared.locks.clone();
        if let Some(open) = self.open_mut(attempt)
            && open.lock.is_none()
        {
            open.lock = locks.adopt(want, owner).ok();
        }
    }

    /// Takes a task that was just bound back from the scheduler, until its files are free. Nothing of the binding is
    /// committed yet, and nobody was called.
    pub(super) fn stand_in_line(&mut self, attempt: AttemptId) {
        let id = attempt.task;
        let Some(want) = self.want_of(id) else { return };
        self.take_back(attempt, "its files are in use");
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let left = CancellationToken::new();
        let owner = LockOwner { owner: format!("task {id}"), reason: short_code(&task.work).into() };
        tracing::info!(task = %id, sector = %task.sector.id, "waits for files that somebody else has");
        (task.held_back, task.in_line) = (true, Some(left.clone().drop_guard()));
        self.effects.push(Effect::StandInLine { task: id, want, owner, left });
    }

    /// The scheduler lets a task go that it has just bound.
    pub(super) fn take_back(&mut self, attempt: AttemptId, reason: &str) {
        let not_before = Millis::new(self.now_ms().saturating_add(1));
        self.tell_sched(Event::StartFailed { attempt, reason: reason.to_owned(), not_before });
        self.tell_sched(Event::Cancel { task: attempt.task });
    }

    /// A task in line has its lock: the scheduler may bind it now.
    pub(super) fn turn_came(&mut self, id: TaskId, lock: LockGuard) {
        let Some(task) = self.tasks.get_mut(&id).filter(|task| task.in_line.is_some()) else { return };
        task.turn = Some(lock);
        self.submit(id);
        self.drain_sched();
        if let Some(task) = self.tasks.get_mut(&id) {
            task.turn = None;
        }
    }

    /// Who has the files that a task waits for; `None`: nobody, or the scheduler knows better. One that waits for a worker
    /// would stand in line once it is bound, so the table is looked at for it, too.
    pub(super) fn files_in_use(&self, task: &Task) -> Option<String> {
        let in_line = task.in_line.is_some();
        let locked = || matches!(self.sched.whereabouts_of(task.id), None | Some(Whereabouts::Locked { .. }));
        if !in_line && (task.open.is_some() || locked()) {
            return None;
        }
        let own = format!("task {}", task.id);
        let others = self.shared.locks.in_the_way(self.want_of(task.id)?).into_iter();
        let names: Vec<_> = others
            .take_while(|holder| holder.owner != own)
            .map(|holder| format!("{} ({})", holder.owner, holder.reason))
            .collect();
        match names.as_slice() {
            [] => in_line.then(|| "has its files in a moment".to_owned()),
            names => Some(format!("waits for files that are in use by {}", names.join(", "))),
        }
    }

    fn want_of(&self, id: TaskId) -> Option<LockWant> {
        let task = self.tasks.get(&id)?;
        let locks = self.asking().request(id)?.locks;
        let any = locks.read.union(locks.write) != FileTypes::NONE;
        any.then_some(LockWant { sector: task.sector.id, read: locks.read, write: locks.write })
    }
}

fn owner(attempt: AttemptId, task: &Task) -> LockOwner {
    LockOwner { owner: format!("attempt {attempt}"), reason: short_code(&task.work).into() }
}

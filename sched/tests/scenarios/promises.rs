//! What every reservation promises, checked from one snapshot to the next.

use std::collections::{BTreeMap, BTreeSet};

use sched::{Event, Millis, QueuedTask, ReservationUse, Snapshot, WorkerKey};
use sealtasks::TaskId;
use sealtasks::TaskType::{AddPiece, Commit1, Fetch, Finalize};

/// The reservations of the last snapshot.
#[derive(Default)]
pub struct Promises(BTreeMap<(TaskId, WorkerKey, Millis), ReservationUse>);

impl Promises {
    /// Whether this may turn facts against a reservation.
    pub fn turned_by(event: &Event) -> bool {
        matches!(
            event,
            Event::Adopt { .. }
                | Event::WorkerUp { .. }
                | Event::WorkerChanged { .. }
                | Event::WorkerLost { .. }
                | Event::MachineCaps { .. }
        )
    }

    /// A task that waits for nothing any more has started; a promised start is not put off; nothing long is let past once
    /// its time has come.
    /// `has_turned`: whether facts have turned against it since, which alone makes one anew.
    pub fn check(&mut self, snapshot: &Snapshot, has_turned: bool) {
        let bound: BTreeMap<_, _> = snapshot.bound.iter().map(|bound| (bound.attempt, bound.kind)).collect();
        let is_long = |attempt| !matches!(bound.get(attempt), Some(Commit1 | Finalize | Fetch));
        for path in &snapshot.paths {
            let kept = snapshot.reservations.iter().flat_map(|kept| &kept.space);
            let of_it = kept.filter(|part| part.path == path.path).map(|part| u128::from(part.bytes));
            assert_eq!(path.kept, of_it.sum(), "{path:?}");
        }
        let mut now = BTreeMap::new();
        for kept in &snapshot.reservations {
            let mut waiting = snapshot.waiting.iter();
            let waits = waiting.find(|queued| queued.task == kept.task);
            // Starts of this type are kept apart; that may be all that it waits for.
            let is_apart = |queued: &QueuedTask| queued.kind == AddPiece && snapshot.now < kept.start_by;
            assert!(
                waits.is_none_or(is_apart) || !kept.waits_for.is_empty(),
                "it waits for nothing and has not started: {kept:?}"
            );
            assert!(kept.waits_for.iter().all(|attempt| bound.contains_key(attempt)), "{kept:?}");
            let name = (kept.task, kept.worker, kept.made_at);
            let same = (kept.task, kept.worker, Millis::ZERO)..=(kept.task, kept.worker, snapshot.now);
            let anew = self.0.range(same).any(|(before, _)| *before != name);
            assert!(has_turned || !anew, "made anew for no reason: {kept:?}");
            if let Some(before) = self.0.get(&name).filter(|_| kept.made_at < snapshot.now) {
                assert_eq!(before.start_by, kept.start_by, "it was put off");
                let known: BTreeSet<_> = before.waits_for.iter().collect();
                let mut new = kept.waits_for.iter().filter(|attempt| !known.contains(attempt)).peekable();
                if snapshot.now > kept.start_by && new.peek().is_some() {
                    assert!(!new.any(is_long), "something long was let past: {before:?}, then {kept:?}");
                    assert!(kept.waits_for.iter().any(is_long), "nothing long was waited for: {kept:?}");
                }
            }
            now.insert(name, kept.clone());
        }
        self.0 = now;
    }
}

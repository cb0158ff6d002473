//! What a stand-in saw, in order: tests wait for an event instead of for time to pass.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A list that only grows.
pub struct Trace<T> {
    events: Mutex<Vec<T>>,
    grown: Condvar,
}

impl<T: Clone + std::fmt::Debug> Trace<T> {
    pub fn new() -> Self {
        Self { events: Mutex::new(Vec::new()), grown: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn push(&self, event: T) {
        self.lock().push(event);
        self.grown.notify_all();
    }

    pub fn all(&self) -> Vec<T> {
        self.lock().clone()
    }

    /// Waits until `look` finds something in the list.
    #[track_caller]
    pub fn wait<U>(&self, what: &str, bound: Duration, look: impl Fn(&[T]) -> Option<U>) -> U {
        let begun = Instant::now();
        let mut events = self.lock();
        loop {
            if let Some(found) = look(&events) {
                return found;
            }
            let left = bound.saturating_sub(begun.elapsed());
            assert!(!left.is_zero(), "{what} did not come within {bound:?}; seen: {:#?}", *events);
            let waited = self.grown.wait_timeout(events, left);
            events = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The first event that fits, waited for.
    #[track_caller]
    pub fn first(&self, what: &str, bound: Duration, fits: impl Fn(&T) -> bool) -> T {
        self.wait(what, bound, |events| events.iter().find(|event| fits(event)).cloned())
    }
}

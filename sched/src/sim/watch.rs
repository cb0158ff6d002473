//! Looking on while a simulation runs.

use std::fmt;

use crate::{Action, Event, Millis};

/// Sees every event and action of a simulation, and may stop it.
pub trait Watch<S> {
    /// The scheduler is about to be told of this.
    fn told(&mut self, now: Millis, event: &Event) {
        let _ = (now, event);
    }

    /// It answered with this.
    fn answered(&mut self, now: Millis, action: &Action) {
        let _ = (now, action);
    }

    /// It has said all that it had to say to the last event.
    ///
    /// # Errors
    /// A rule that is broken now; the simulation stops.
    fn settled(&mut self, now: Millis, scheduler: &S) -> Result<(), Violation> {
        let _ = (now, scheduler);
        Ok(())
    }

    /// Its driver crashed; what is told from here on goes to a new one that knows nothing.
    fn restarted(&mut self, now: Millis) {
        let _ = now;
    }
}

/// Nobody looks.
impl<S> Watch<S> for () {}

/// A rule that a scheduler broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule, by a fixed name.
    pub rule: &'static str,
    /// What was seen.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.detail)
    }
}

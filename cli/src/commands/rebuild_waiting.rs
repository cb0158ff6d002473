//! What a sector that is sealed again waits for: said once, when that lasts.

use std::time::{Duration, Instant};

use rpc::explain::{Explanation, WaitsFor};
use sealtasks::TaskId;

/// So long a sector may wait for something before that is said: between two steps it always does for a moment.
const WAITS_SILENTLY: Duration = Duration::from_secs(5);

/// What a sector that is under way waits for.
pub struct Waiting {
    /// For what, and which task of it.
    what: (WaitsFor, Option<TaskId>),
    since: Instant,
    /// An operator was told.
    told: bool,
}

impl Waiting {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Self { what: (WaitsFor::Running, None), since: Instant::now(), told: false }
    }

    /// Whether it is time to say what it waits for: once, when that lasts.
    pub fn is_due(&mut self, why: &Explanation) -> bool {
        let what = (why.waits_for, why.task.as_ref().map(|task| task.task));
        if self.what != what {
            *self = Self { what, ..Self::new() };
        }
        let says = match why.waits_for {
            WaitsFor::Worker
            | WaitsFor::Lock
            | WaitsFor::Delay
            | WaitsFor::Reserved
            | WaitsFor::Slot
            | WaitsFor::SilentWorker
            | WaitsFor::BackOff
            | WaitsFor::File => true,
            WaitsFor::Running
            | WaitsFor::Answer
            | WaitsFor::Operator
            | WaitsFor::Stopped
            | WaitsFor::Nothing => false,
        };
        let due = says && !self.told && self.since.elapsed() >= WAITS_SILENTLY;
        self.told |= due;
        due
    }
}

//! The record of a run, event by event, and playing it again. What was recorded needs neither seed nor engine to lead to
//! the same violation.

use std::cell::RefCell;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::oracle::Oracle;
use crate::sim::{Violation, Watch};
use crate::{Action, Event, Millis, Options, Policy, Sched};

/// One line of a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum Entry {
    /// A scheduler with these options begins, or takes over after a crash.
    Begin {
        /// How to choose among workers that fit.
        policy: Policy,
        /// Staged tasks per running one.
        staged_per_running: usize,
        /// When a task that names no limit becomes due.
        wait_limit: Millis,
        /// Where the random policy begins.
        seed: u64,
        /// How often the books were compared, in events.
        check_every: u64,
    },
    /// The driver crashed.
    Crash,
    /// The scheduler was told this.
    Told {
        /// What its clock showed.
        now: Millis,
        /// What.
        told: Box<Event>,
    },
    /// Everything was healed and nothing more happened: nothing may be left.
    Drained,
}

/// Where entries go; shared, so that they outlive a scheduler that panics.
pub type Entries = Rc<RefCell<Vec<Entry>>>;

/// The oracle, and a record of what it saw where one is wanted.
#[derive(Debug)]
pub struct Recorder {
    /// The oracle.
    pub oracle: Oracle,
    entries: Option<Entries>,
}

impl Recorder {
    /// Watches with an oracle, and records where `entries` are given.
    pub fn new(options: &Options, check_every: u64, entries: Option<Entries>) -> Self {
        let recorder = Self { oracle: Oracle::new(options, check_every), entries };
        recorder.put(|| Entry::Begin {
            policy: options.policy,
            staged_per_running: options.staged_per_running,
            wait_limit: options.wait_limit,
            seed: options.seed,
            check_every,
        });
        recorder
    }

    pub(super) fn put(&self, entry: impl FnOnce() -> Entry) {
        if let Some(entries) = &self.entries {
            entries.borrow_mut().push(entry());
        }
    }
}

impl Watch<Sched> for Recorder {
    fn told(&mut self, now: Millis, event: &Event) {
        self.put(|| Entry::Told { now, told: Box::new(event.clone()) });
        self.oracle.told(now, event);
    }

    fn answered(&mut self, now: Millis, action: &Action) {
        self.oracle.answered(now, action);
    }

    fn settled(&mut self, now: Millis, scheduler: &Sched) -> Result<(), Violation> {
        self.oracle.settled(now, scheduler)
    }

    fn restarted(&mut self, now: Millis) {
        self.put(|| Entry::Crash);
        self.oracle.restarted(now);
    }
}

/// Plays a record to a new scheduler.
///
/// # Errors
/// The rule that is broken, or that the record has no beginning.
pub fn replay(entries: &[Entry]) -> Result<(), Violation> {
    let no_beginning =
        || Violation { rule: "record", detail: "the first line must have \"line\":\"begin\"".to_owned() };
    let Some(Entry::Begin { policy, staged_per_running, wait_limit, seed, check_every }) = entries.first()
    else {
        return Err(no_beginning());
    };
    let options = Options {
        policy: *policy,
        staged_per_running: *staged_per_running,
        wait_limit: *wait_limit,
        seed: *seed,
        ..Options::default()
    };
    let mut oracle = Oracle::new(&options, *check_every);
    let mut scheduler = Sched::new(options.clone());
    for entry in &entries[1..] {
        match entry {
            Entry::Begin { .. } => return Err(no_beginning()),
            Entry::Crash => {
                scheduler = Sched::new(options.clone());
                oracle.restarted(Millis::ZERO);
            }
            Entry::Told { now, told } => {
                oracle.told(*now, told);
                scheduler.handle(*now, (**told).clone());
                while let Some(action) = scheduler.poll_action() {
                    oracle.answered(*now, &action);
                }
                oracle.settled(*now, &scheduler)?;
            }
            Entry::Drained => oracle.check_drained(&scheduler)?,
        }
    }
    Ok(())
}

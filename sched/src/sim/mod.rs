//! A cluster in virtual time, for capacity planning and for tests: workers with profiles and speeds, storage paths that
//! fill, transfers that take time, sectors that go through their stages, and everything that can go wrong.
//!
//! [`Engine`] drives anything that fulfils [`Scheduler`] and is as pure as the scheduler is: it has no clock, no file
//! and no randomness but a generator with a given seed, so that one seed gives one history, bit for bit. It is no part
//! of the manager: nothing in here decides where a real task goes.

mod attempts;
pub mod bound;
mod cluster;
mod driver;
mod engine;
pub mod faults;
mod files;
mod hosts;
mod jobs;
pub mod lotus;
mod random;
mod report;
mod shape;
pub mod trace;
mod trouble;
mod usage;
mod watch;

pub use cluster::{Cluster, Job, JobStage, SimPath, SimWorker, Speed, Workload, worker_key};
pub use driver::{ClockTrouble, Luck, Noise};
pub use engine::{Engine, Settings};
pub use random::SplitMix;
pub use report::{PathReport, Report, SectorSpan, Span, SpanPhase, TaskStats, WorkerReport};
pub use shape::{After, Input, SealStage, Shape};
pub use trouble::Trouble;
pub use watch::{Violation, Watch};

use crate::{Action, Event, Millis, Sched};

/// What is told of events and says what is to be done: [`Sched`], or something to compare it with.
pub trait Scheduler {
    /// Takes in one event that happened at `now`.
    fn handle(&mut self, now: Millis, event: Event);

    /// The next thing to do; `None`: nothing more until the next event.
    fn poll_action(&mut self) -> Option<Action>;
}

impl Scheduler for Sched {
    fn handle(&mut self, now: Millis, event: Event) {
        Self::handle(self, now, event);
    }

    fn poll_action(&mut self) -> Option<Action> {
        Self::poll_action(self)
    }
}

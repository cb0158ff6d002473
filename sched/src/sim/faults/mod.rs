//! Fault schedules: many small clusters on bad days, watched by an oracle that keeps books of its own.
//!
//! One seed makes one [`Schedule`]: a cluster, its work, and what goes wrong. [`run`] plays it and checks safety after
//! every event; then everything heals, and everything must drain. A run is a function of its schedule alone.

mod apply;
mod compare;
mod coverage;
mod fit;
mod log;
mod model;
mod oracle;
mod play;
mod schedule;
mod shared;
mod trouble;

pub use coverage::{Coverage, Place};
pub use log::{Entries, Entry, Recorder, replay};
pub use oracle::Oracle;
pub use play::{run, shorten};
pub use schedule::{Fault, FaultKind, Schedule};

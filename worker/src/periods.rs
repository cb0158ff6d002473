//! How often a worker does what it does again and again. Never: does it.

use std::time::Duration;

use crate::process;

/// How often things happen. The defaults are Lotus's where it has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Periods {
    /// Between heartbeats to the manager, and health reports of paths.
    pub heartbeat: Duration,
    /// The shortest pause between two pushes of the state.
    pub push_gap: Duration,
    /// The first pause after a failed return; it grows twelvefold.
    pub return_retry: Duration,
    /// How many error answers to one return until it is kept for the next start.
    pub refusals_max: u32,
    /// The first pause after parameters could not be obtained; it grows sixtyfold.
    pub parameters_retry: Duration,
    /// Between two looks at whether missing parameters have appeared by another's doing.
    pub parameters_look: Duration,
    /// How long a worker that joins another manager waits for paths that take long to read.
    pub slow_path: Duration,
    /// How long a start waits for the end of executors that it kills.
    pub death: Duration,
}

impl Default for Periods {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(10),
            push_gap: Duration::from_millis(200),
            return_retry: Duration::from_secs(5),
            refusals_max: 20,
            parameters_retry: Duration::from_secs(10),
            parameters_look: Duration::from_secs(10),
            slow_path: stores::START_DEADLINE,
            death: process::DEATH_MAX,
        }
    }
}

//! Wall time made monotonic. Never: durations shorter than a millisecond, sleeping.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Wall time in Unix milliseconds that never goes back, not even over a restart: it begins at the last stored value.
#[derive(Debug)]
pub struct Clock {
    last_ms: AtomicU64,
}

impl Clock {
    /// A clock that shows at least `last_ms`.
    pub const fn starting_at(last_ms: u64) -> Self {
        Self { last_ms: AtomicU64::new(last_ms) }
    }

    /// Now, in Unix milliseconds.
    pub fn now_ms(&self) -> u64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        self.last_ms.fetch_max(wall_ms, Ordering::AcqRel).max(wall_ms)
    }
}

//! Downloads between storage holders as they are shown to people, and what they may use. The same values travel from the
//! process that downloads to the manager and on to the command line.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{FileType, SectorId};

/// Downloads at once, at most, whatever is asked for.
pub const PARALLEL_MAX: usize = 256;
/// Connections of one download, at most.
pub const STREAMS_MAX: usize = 16;
/// Connections of one download unless told otherwise: one reads the network while another writes the disk.
pub const STREAMS: usize = 3;
/// A bandwidth is at least this (bytes per second): with less, a sender that waits for many slow connections would take
/// them for dead.
pub const BANDWIDTH_MIN: u64 = 1 << 20;

/// How much may be downloaded at once by one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferLimits {
    /// Bytes per second of all downloads together, at least [`BANDWIDTH_MIN`]; `None` is no limit.
    pub bandwidth: Option<u64>,
    /// Downloads at once, 1 to [`PARALLEL_MAX`]; others wait their turn.
    pub parallel: usize,
    /// Connections per download between Sealyards, 1 to [`STREAMS_MAX`]; holds from the next download on.
    pub streams: usize,
    /// Whether every block's BLAKE3 hash is compared.
    pub verify: bool,
}

impl Default for TransferLimits {
    fn default() -> Self {
        Self { bandwidth: None, parallel: 10, streams: STREAMS, verify: true }
    }
}

impl TransferLimits {
    /// The same with each value brought within its bounds.
    #[must_use]
    pub fn bounded(self) -> Self {
        Self {
            bandwidth: self.bandwidth.map(|rate| rate.max(BANDWIDTH_MIN)),
            parallel: self.parallel.clamp(1, PARALLEL_MAX),
            streams: self.streams.clamp(1, STREAMS_MAX),
            verify: self.verify,
        }
    }

    /// The same with what `change` names, within bounds.
    #[must_use]
    pub fn changed(self, change: TransferChange) -> Self {
        let bandwidth = match change.bandwidth {
            None => self.bandwidth,
            Some(0) => None,
            Some(rate) => Some(rate),
        };
        Self {
            bandwidth,
            parallel: change.parallel.unwrap_or(self.parallel),
            streams: change.streams.unwrap_or(self.streams),
            verify: change.verify.unwrap_or(self.verify),
        }
        .bounded()
    }
}

/// New values for some [`TransferLimits`]; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransferChange {
    /// Bytes per second; 0 lifts the limit.
    pub bandwidth: Option<u64>,
    /// Downloads at once.
    pub parallel: Option<usize>,
    /// Connections per download.
    pub streams: Option<usize>,
    /// Whether hashes are compared.
    pub verify: Option<bool>,
}

impl TransferChange {
    /// What this and then `later` change together.
    #[must_use]
    pub fn then(self, later: Self) -> Self {
        Self {
            bandwidth: later.bandwidth.or(self.bandwidth),
            parallel: later.parallel.or(self.parallel),
            streams: later.streams.or(self.streams),
            verify: later.verify.or(self.verify),
        }
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether every value can hold as it is said: a person who names one that cannot is told so, instead of getting
    /// another one.
    ///
    /// # Errors
    /// A value out of its bounds.
    pub fn check(&self) -> Result<(), TransferChangeError> {
        if let Some(rate @ 1..BANDWIDTH_MIN) = self.bandwidth {
            return Err(TransferChangeError::Bandwidth { rate });
        }
        let within = |name, value: Option<usize>, most| match value {
            Some(value) if value == 0 || value > most => {
                Err(TransferChangeError::Number { name, value, most })
            }
            _ => Ok(()),
        };
        within("parallel", self.parallel, PARALLEL_MAX)?;
        within("streams", self.streams, STREAMS_MAX)
    }
}

/// A limit that cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferChangeError {
    /// See [`BANDWIDTH_MIN`].
    #[error(
        "a limit of {rate} bytes per second is too low; the least is 1MiB ({BANDWIDTH_MIN} bytes) per second"
    )]
    Bandwidth {
        /// Bytes per second.
        rate: u64,
    },
    /// A number out of its bounds.
    #[error("{name} {value} is not within 1 to {most}")]
    Number {
        /// Which one.
        name: &'static str,
        /// What was asked for.
        value: usize,
        /// The greatest.
        most: usize,
    },
}

/// How far a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferPhase {
    /// Others go first.
    Waiting,
    /// Bytes are coming.
    Receiving,
    /// Everything is here and is made durable.
    Syncing,
}

impl TransferPhase {
    /// Its name for people and for JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Receiving => "receiving",
            Self::Syncing => "syncing",
        }
    }
}

/// One download as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferView {
    /// Counts up within the process.
    pub number: u64,
    /// The sector.
    pub sector: SectorId,
    /// The file.
    pub kind: FileType,
    /// Id of the storage path that it comes from; empty while it waits.
    pub from: String,
    /// Where it comes from; empty while it waits.
    pub url: String,
    /// Id of the storage path that it goes to.
    pub to: String,
    /// That path's directory, on the host of the process.
    pub path: PathBuf,
    /// How far it is.
    pub phase: TransferPhase,
    /// Bytes of the whole file, 0 while unknown: a Lotus peer does not say how long a directory is.
    pub bytes_total: u64,
    /// Bytes that are here, those of earlier attempts included.
    pub bytes_done: u64,
    /// Bytes per second over the last seconds.
    pub rate: u64,
    /// Milliseconds since it was asked for.
    pub elapsed_ms: u64,
    /// Seconds until the rest is here at the present rate; `None` when that cannot be told.
    #[serde(default)]
    pub eta_s: Option<u64>,
}

/// Seconds until `total` bytes are here at `rate` bytes per second; `None` when that cannot be told.
pub fn eta_seconds(done: u64, total: u64, rate: u64) -> Option<u64> {
    (total > 0 && rate > 0).then(|| total.saturating_sub(done).div_ceil(rate))
}

/// All downloads of a process, and what they may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferReport {
    /// What downloads may use.
    pub limits: TransferLimits,
    /// Downloads that run or wait, in the order in which they were asked for.
    pub transfers: Vec<TransferView>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_names_what_it_changes_and_stays_within_bounds() {
        let limits = TransferLimits::default();
        assert_eq!(limits.changed(TransferChange::default()), limits);
        let change: TransferChange = serde_json::from_str("{\"bandwidth\":5,\"streams\":99}").expect("JSON");
        let slow = limits.changed(change);
        assert_eq!((slow.bandwidth, slow.streams), (Some(BANDWIDTH_MIN), STREAMS_MAX));
        assert_eq!((slow.parallel, slow.verify), (limits.parallel, true));
        let lifted = slow.changed(TransferChange { bandwidth: Some(0), ..TransferChange::default() });
        assert_eq!((lifted.bandwidth, lifted.streams), (None, STREAMS_MAX));
        assert!(serde_json::from_str::<TransferChange>("{\"bandwith\":5}").is_err(), "a slip is no wish");
    }

    #[test]
    fn values_that_cannot_hold_are_refused_and_not_changed_into_others() {
        let said = |change: TransferChange| change.check().err().map(|error| error.to_string());
        let rate = |rate| TransferChange { bandwidth: Some(rate), ..TransferChange::default() };
        assert_eq!((said(rate(0)), said(rate(BANDWIDTH_MIN))), (None, None));
        let low = said(rate(BANDWIDTH_MIN - 1)).expect("too low");
        assert!(low.contains("1048575 bytes") && low.contains("the least is 1MiB"), "{low}");
        let parallel = |parallel| TransferChange { parallel: Some(parallel), ..TransferChange::default() };
        assert_eq!(said(parallel(PARALLEL_MAX)), None);
        assert_eq!(said(parallel(0)).expect("none"), "parallel 0 is not within 1 to 256");
        let streams = TransferChange { streams: Some(17), ..TransferChange::default() };
        assert_eq!(said(streams).expect("too many"), "streams 17 is not within 1 to 16");
    }

    #[test]
    fn the_rest_takes_as_long_as_the_rate_says() {
        assert_eq!(eta_seconds(250, 1000, 100), Some(8));
        assert_eq!(eta_seconds(1000, 1000, 100), Some(0));
        assert_eq!(eta_seconds(0, 1000, 0), None);
        assert_eq!(eta_seconds(10, 0, 100), None);
    }
}

//! What a simulation found: who did what when, how busy the machines were, how long tasks waited.

use std::collections::BTreeMap;

use sealtasks::{AttemptId, SectorId, StorageId, TaskType};
use serde::Serialize;

use crate::{GpuShare, Millis};

/// The outcome of one simulation.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// When the last task ended, or the horizon where work was left.
    pub makespan: Millis,
    /// Jobs that went through all their stages, in the order in which they ended.
    pub sectors: Vec<SectorSpan>,
    /// Jobs that were under way or had not begun at the end.
    pub unfinished: usize,
    /// Jobs that ended before their last stage: failed or cancelled.
    pub failed: usize,
    /// Per task type: from submission until it began to work, its inputs being fetched included.
    pub waiting: BTreeMap<TaskType, TaskStats>,
    /// Per task type: the work alone.
    pub working: BTreeMap<TaskType, TaskStats>,
    /// In the order of the cluster.
    pub workers: Vec<WorkerReport>,
    /// In the order of their ids.
    pub paths: Vec<PathReport>,
    /// Bytes fetched, over all workers.
    pub bytes_moved: u64,
    /// Events that the scheduler was told of.
    pub events: u64,
    /// Events that it refused.
    pub refused: u64,
    /// Attempts that were begun.
    pub attempts: u64,
    /// What each worker did, in the order in which it ended; empty where the settings did not ask for it.
    pub timeline: Vec<Span>,
}

/// One job from its release to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SectorSpan {
    /// The sector.
    pub sector: SectorId,
    /// When its first stage was submitted.
    pub from: Millis,
    /// When its last stage ended.
    pub to: Millis,
}

/// One worker spent this time on this attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Span {
    /// Position in the cluster.
    pub worker: usize,
    /// The attempt.
    pub attempt: AttemptId,
    /// Its type.
    pub task: TaskType,
    /// Its sector.
    pub sector: SectorId,
    /// What it did.
    pub phase: SpanPhase,
    /// From when.
    pub from: Millis,
    /// Until when.
    pub to: Millis,
    /// The devices that it held.
    pub gpus: Vec<GpuShare>,
    /// Whether it came to its proper end; a lost worker's attempts, failed ones and cancelled ones did not.
    pub complete: bool,
}

/// What an attempt does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SpanPhase {
    /// Its inputs are fetched.
    Fetch,
    /// Its inputs are there and its slot is not.
    Wait,
    /// It works.
    Run,
}

/// How long something took over all tasks of a type, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TaskStats {
    /// How many.
    pub count: usize,
    /// The mean, rounded down.
    pub mean: Millis,
    /// Half of them took no longer.
    pub p50: Millis,
    /// 99 of 100 took no longer.
    pub p99: Millis,
    /// None took longer.
    pub max: Millis,
}

impl TaskStats {
    /// The figures of these values; all zero where there are none.
    pub fn of(mut values: Vec<u64>) -> Self {
        values.sort_unstable();
        let Some(max) = values.last().copied() else { return Self::default() };
        // The smallest value that at least this share of all values does not exceed.
        let rank = |per_cent: usize| values[(values.len() * per_cent).div_ceil(100).max(1) - 1];
        let sum: u128 = values.iter().map(|value| u128::from(*value)).sum();
        Self {
            count: values.len(),
            mean: Millis::new((sum / values.len() as u128) as u64),
            p50: Millis::new(rank(50)),
            p99: Millis::new(rank(99)),
            max: Millis::new(max),
        }
    }
}

/// How one worker was used. Shares are of all it has, over the whole makespan, from 0 to 1.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct WorkerReport {
    /// Its host name.
    pub host: String,
    /// Share of its CPU threads.
    pub cpu: f64,
    /// Share of its RAM, by the least that its tasks need.
    pub memory: f64,
    /// Share of its GPUs; 0 where it has none.
    pub gpu: f64,
    /// Share of the time with at least one task in a slot.
    pub busy: f64,
    /// The most CPU threads held at once.
    pub cpu_peak: u64,
    /// The most RAM held at once, in bytes.
    pub memory_peak: u64,
    /// The most thousandths of GPUs held at once.
    pub gpu_peak: u64,
    /// Bytes that it fetched.
    pub bytes_in: u64,
    /// Share of the time in which it fetched.
    pub fetching: f64,
    /// Tasks that it finished.
    pub finished: BTreeMap<TaskType, u64>,
}

/// How full one storage path became.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PathReport {
    /// The path.
    pub path: StorageId,
    /// The most bytes written and set aside at once.
    pub peak: u64,
    /// Bytes that it holds.
    pub capacity: u64,
}

impl Report {
    /// Milliseconds of one day.
    pub const DAY: u64 = 24 * 60 * 60 * 1000;

    /// Jobs that ended within a span of time, per day; 0 where the span is empty.
    pub fn sectors_per_day(&self, from: Millis, to: Millis) -> f64 {
        let span = to.get().saturating_sub(from.get());
        if span == 0 {
            return 0.0;
        }
        let ended = self.sectors.iter().filter(|sector| sector.to > from && sector.to <= to).count();
        ended as f64 * Self::DAY as f64 / span as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let stats = TaskStats::of((1..=200).rev().collect());
        let figures = [stats.mean, stats.p50, stats.p99, stats.max].map(Millis::get);
        assert_eq!((stats.count, figures), (200, [100, 100, 198, 200]));
        assert_eq!(TaskStats::of(vec![7]).p99, Millis::new(7));
        assert_eq!(TaskStats::of(Vec::new()), TaskStats::default());
    }
}

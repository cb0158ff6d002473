//! The simulated workers: alive or not, how busy their network is, and the attempts that they have in hand.

use std::collections::BTreeMap;

use sealtasks::{AttemptId, TaskId};

use super::cluster::{Cluster, Speed, worker_key};
use super::usage::Usage;
use crate::{GpuShare, Millis, Outcome, Plan, WorkerKey, WorkerMode, WorkerProfile};

/// One worker through all its lives.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) key: WorkerKey,
    pub(super) alive: bool,
    /// As it is now.
    pub(super) profile: WorkerProfile,
    pub(super) enabled: bool,
    pub(super) mode: WorkerMode,
    pub(super) suspect: bool,
    pub(super) bandwidth: u64,
    pub(super) speed: Speed,
    /// Thousandths of its speed that are left to it: less than 1000 while it is slow.
    pub(super) pace: u32,
    /// Until when its network is taken.
    link_free: Millis,
    pub(super) link_busy: u64,
    pub(super) bytes_in: u64,
    pub(super) usage: Usage,
    pub(super) finished: BTreeMap<sealtasks::TaskType, u64>,
}

/// One attempt in a worker's hands.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) attempt: AttemptId,
    pub(super) worker: usize,
    pub(super) plan: Plan,
    pub(super) phase: LivePhase,
    /// Whether it has a slot.
    pub(super) has_slot: bool,
    /// Since when it is in this phase.
    pub(super) since: Millis,
    /// Tells the timer of this phase from those of earlier ones.
    pub(super) token: u64,
    pub(super) gpus: Vec<GpuShare>,
}

/// How far an attempt really is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LivePhase {
    Fetching,
    Fetched,
    Working,
    /// It has ended; the scheduler has perhaps not heard of it yet.
    Over(Outcome),
}

impl Live {
    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, LivePhase::Over(_))
    }
}

/// All workers, and all attempts by task.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    pub(super) all: Vec<Host>,
    pub(super) live: BTreeMap<TaskId, Live>,
}

impl Hosts {
    pub(super) fn new(cluster: &Cluster) -> Self {
        let host = |(position, worker): (usize, &super::cluster::SimWorker)| Host {
            key: worker_key(position),
            alive: true,
            profile: worker.profile.clone(),
            enabled: true,
            mode: WorkerMode::Open,
            suspect: false,
            bandwidth: worker.bandwidth,
            speed: worker.speed.clone(),
            pace: Speed::NOMINAL,
            link_free: Millis::ZERO,
            link_busy: 0,
            bytes_in: 0,
            usage: Usage::default(),
            finished: BTreeMap::new(),
        };
        Self { all: cluster.workers.iter().enumerate().map(host).collect(), live: BTreeMap::new() }
    }

    /// The worker that answers under this key now.
    pub(super) fn answering(&self, key: WorkerKey) -> Option<usize> {
        // The reverse of `worker_key`.
        let position = usize::try_from(key.session.0.as_u128().checked_sub(1)?).ok()?;
        self.all.get(position).filter(|host| host.alive && host.key == key).map(|_| position)
    }

    /// The attempt, if it is the one that its task has in hand.
    pub(super) fn live_mut(&mut self, attempt: AttemptId) -> Option<&mut Live> {
        self.live.get_mut(&attempt.task).filter(|live| live.attempt == attempt)
    }

    /// The attempts in one worker's hands that have not ended.
    pub(super) fn on(&self, worker: usize) -> Vec<AttemptId> {
        let here = self.live.values().filter(|live| live.worker == worker && !live.is_over());
        here.map(|live| live.attempt).collect()
    }
}

impl Host {
    /// Takes the network for so many bytes once it is free, and tells when they are there.
    pub(super) fn fetch(&mut self, now: Millis, bytes: u64) -> Millis {
        self.bytes_in = self.bytes_in.saturating_add(bytes);
        if self.bandwidth == 0 {
            return now;
        }
        let millis = u128::from(bytes) * 1000 / u128::from(self.bandwidth);
        let millis = u64::try_from(millis).unwrap_or(u64::MAX);
        self.link_busy = self.link_busy.saturating_add(millis);
        self.link_free = self.link_free.max(now).after(Millis::new(millis));
        self.link_free
    }

    /// How long this work takes here now.
    pub(super) fn time(&self, task: sealtasks::TaskType, work: Millis) -> Millis {
        let millis = self.speed.time(task, work).get();
        let slowed = u128::from(millis) * u128::from(Speed::NOMINAL) / u128::from(self.pace.max(1));
        Millis::new(u64::try_from(slowed).unwrap_or(u64::MAX))
    }
}

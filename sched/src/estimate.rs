//! How long a task of a type and size takes on a worker: as measured there, else as measured on others, else as
//! published. For deadlines, reservations and explanations; nothing is ever stopped because an estimate was wrong.

use sealtasks::{SealTaskType, SectorSize, TaskType};
use serde::{Deserialize, Serialize};

use crate::flat::Flat;
use crate::slab::TaskIdx;
use crate::task::Phase;
use crate::worker::Worker;
use crate::{KindDuration, Millis, Sched, WorkerKey};

/// How long a task takes, from its slot to its end, and how that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// Milliseconds.
    pub millis: Millis,
    /// How it is known.
    pub source: EstimateSource,
}

/// How an estimate is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EstimateSource {
    /// Measured on this worker, now or in an earlier life.
    Worker,
    /// Measured on other workers.
    Others,
    /// From [`builtin_duration`]: nobody has run such a task yet.
    Builtin,
}

/// What was learned about one worker, or about all of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Learned(Flat<SealTaskType, Mean>);

/// A moving average.
#[derive(Clone, Copy, Debug)]
struct Mean {
    millis: u64,
    samples: u32,
}

impl Mean {
    /// Each new sample weighs at least one in so many.
    const SAMPLES_MAX: u32 = 8;
    /// What an earlier life learned counts as so many samples: a few new ones correct it.
    const SEED_SAMPLES: u32 = 4;
    /// Once there are so many samples, a new one counts for at most [`Mean::OUTLIER`] times the mean and at least its
    /// part: one night with a dying disk must not spoil what a hundred tasks taught.
    const STEADY_SAMPLES: u32 = 3;
    const OUTLIER: u64 = 4;

    fn add(&mut self, sample: Millis) {
        let mut sample = sample.get().max(1);
        if self.samples >= Self::STEADY_SAMPLES {
            let least = (self.millis / Self::OUTLIER).max(1);
            sample = sample.clamp(least, self.millis.saturating_mul(Self::OUTLIER).max(least));
        }
        self.samples = (self.samples + 1).min(Self::SAMPLES_MAX);
        self.millis = self.mean_with(sample);
    }

    /// What the mean is, rounded, when this sample is the last one of those that are counted.
    fn mean_with(&self, sample: u64) -> u64 {
        /// Of numbers below this the sum can be taken in 64 bits, in which dividing costs a fraction of what it does in 128.
        const SMALL: u64 = u64::MAX / (Mean::SAMPLES_MAX as u64 + 1);
        let weight = u64::from(self.samples);
        if self.millis <= SMALL && sample <= SMALL {
            return (self.millis * (weight - 1) + sample + weight / 2) / weight;
        }
        let weight = u128::from(weight);
        let sum = u128::from(self.millis) * (weight - 1) + u128::from(sample);
        // A mean of 64-bit numbers is one.
        u64::try_from((sum + weight / 2) / weight).unwrap_or(u64::MAX)
    }
}

impl Learned {
    pub(crate) fn add(&mut self, kind: SealTaskType, sample: Millis) {
        self.0.get_or_insert_with(kind, || Mean { millis: 0, samples: 0 }).add(sample);
    }

    /// Whether this sample changes the mean.
    fn is_news(&self, kind: SealTaskType, sample: Millis) -> bool {
        let Some(before) = self.0.get(kind) else { return true };
        let mut after = *before;
        after.add(sample);
        after.millis != before.millis
    }

    /// Takes what was learned earlier, where nothing is known yet.
    pub(crate) fn seed(&mut self, durations: &[KindDuration]) {
        for known in durations {
            let kind = SealTaskType { proof: known.proof, task: known.task };
            let mean = Mean { millis: known.millis.get().max(1), samples: Mean::SEED_SAMPLES };
            self.0.get_or_insert_with(kind, || mean);
        }
    }

    /// Reads it, so that it is at hand.
    pub(crate) fn touch(&self) {
        self.0.touch();
    }

    fn get(&self, kind: SealTaskType) -> Option<Millis> {
        self.0.get(kind).map(|mean| Millis::new(mean.millis))
    }

    fn all(&self) -> impl Iterator<Item = KindDuration> + '_ {
        self.0.iter().map(|(kind, mean)| KindDuration {
            task: kind.task,
            proof: kind.proof,
            millis: Millis::new(mean.millis),
        })
    }
}

impl Sched {
    /// How long this worker takes to fetch so many bytes.
    pub(crate) fn moving_time(&self, slot: usize, bytes: u64) -> Millis {
        let bandwidth = self.bandwidth(slot);
        if let Some(bytes) = bytes.checked_mul(1000) {
            return Millis::new(bytes / bandwidth);
        }
        let millis = u128::from(bytes) * 1000 / u128::from(bandwidth);
        Millis::new(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// How long tasks took on this worker, for its profile in its next life; `None`: the worker is not here.
    pub fn durations(&self, worker: WorkerKey) -> Option<Vec<KindDuration>> {
        let slot = self.workers.slot(worker)?;
        Some(self.workers.get(slot).learned.all().collect())
    }

    /// How long such a task would take on this worker; of a worker that is not here, on any.
    pub fn estimate(&self, worker: WorkerKey, kind: SealTaskType) -> Estimate {
        let slot = self.workers.slot(worker);
        slot.map_or_else(
            || self.estimate_anywhere(kind),
            |slot| self.estimate_in(self.workers.get(slot), kind),
        )
    }

    /// How long such a task takes, whoever does it.
    pub fn estimate_anywhere(&self, kind: SealTaskType) -> Estimate {
        match self.learned.get(kind) {
            Some(millis) => Estimate { millis, source: EstimateSource::Others },
            None => Estimate { millis: builtin_duration(kind), source: EstimateSource::Builtin },
        }
    }

    pub(crate) fn estimate_in(&self, worker: &Worker, kind: SealTaskType) -> Estimate {
        let own = worker.learned.get(kind).map(|millis| Estimate { millis, source: EstimateSource::Worker });
        own.unwrap_or_else(|| self.estimate_anywhere(kind))
    }

    /// Takes over what the worker's profile says that tasks took there, where nothing newer is known.
    pub(crate) fn seed_durations(&mut self, slot: usize) {
        let worker = self.workers.get_mut(slot);
        worker.learned.seed(&worker.profile.durations);
        self.learned.seed(&worker.profile.durations);
    }

    /// Learns from a task that finishes now.
    pub(crate) fn learn_from(&mut self, at: TaskIdx) {
        let task = &self.tasks[at];
        let Some(binding) = task.binding() else { return };
        if binding.phase == Phase::Running && binding.is_measured && !binding.cancelled {
            let kind = SealTaskType { proof: task.sector.proof, task: task.kind };
            let took = self.now.since(binding.since).since(binding.moving);
            // If the moving of its files was expected to take longer than all of it, nothing can be said.
            if binding.moving == Millis::ZERO || took > Millis::ZERO {
                let (group, worker) = (task.group, binding.worker);
                let is_news =
                    self.workers.get(worker).learned.is_news(kind, took) || self.learned.is_news(kind, took);
                let before = if is_news { self.estimates_at_kept(kind) } else { Vec::new() };
                self.workers.get_mut(worker).learned.add(kind, took);
                self.learned.add(kind, took);
                if is_news {
                    self.estimates_changed(group, kind, &before);
                }
            }
        }
    }
}

/// How long a task takes where nobody has measured it yet.
///
/// 32 GiB: AddPiece, PreCommit1, PreCommit2, Commit1, Commit2 and Unseal are one EPYC 7662 with an RTX 3090 (lotus-bench
/// v28, jackoelv/bellperson issue 22); Finalize is 0.75 h of clearing for 128 sectors (supra_seal's chart); Fetch is a
/// cache and its sealed file, 451 GiB, over 10 Gbit/s. What nobody has published is taken from the task that does the same
/// work: DataCid from AddPiece, a replica update from PreCommit2 (it builds the same trees) and its proofs from Commit1 and
/// Commit2, a regenerated key from PreCommit1. The PoSt tasks have the time that the chain leaves them at most: a quarter
/// of a 30-minute deadline, a third of an epoch.
///
/// 64 GiB: twice that, where the work grows with the size; Commit proves as many challenges. The small sizes: measured here
/// without a GPU (AddPiece, PreCommit1 and PreCommit2 of 8 MiB 26, 2446 and 4897 ms; Commit2 of 2 KiB 40 s), 512 MiB
/// scaled from 8 MiB, and never less than the 100 ms that starting an executor may take.
pub fn builtin_duration(kind: SealTaskType) -> Millis {
    const SECOND: u64 = 1000;
    const MINUTE: u64 = 60 * SECOND;
    const HOUR: u64 = 60 * MINUTE;
    const LABELS: [u64; 5] =
        [100, 2_500, 157 * SECOND, 3 * HOUR + 3 * MINUTE + 17 * SECOND, 6 * HOUR + 6 * MINUTE + 34 * SECOND];
    const TREES: [u64; 5] = [100, 4_900, 313 * SECOND, 23 * MINUTE + 44 * SECOND, 47 * MINUTE + 28 * SECOND];
    const SNARK: [u64; 5] = [40 * SECOND, MINUTE, MINUTE, 16 * MINUTE + 6 * SECOND, 16 * MINUTE + 6 * SECOND];
    const CHALLENGES: [u64; 5] = [100, 100, 330, 330, 330];
    const CLEARING: [u64; 5] = [100, 100, SECOND, 21 * SECOND, 42 * SECOND];
    // 2 KiB, 8 MiB, 512 MiB, 32 GiB, 64 GiB.
    let row: [u64; 5] = match kind.task {
        TaskType::DataCid | TaskType::AddPiece => [100, 100, 1_600, 100_600, 201_200],
        TaskType::PreCommit1 | TaskType::RegenSectorKey => LABELS,
        TaskType::Unseal => [100, 2_500, 157 * SECOND, 2 * HOUR + 59 * MINUTE, 5 * HOUR + 58 * MINUTE],
        TaskType::PreCommit2 | TaskType::ReplicaUpdate => TREES,
        TaskType::Commit1 | TaskType::ProveReplicaUpdate1 => CHALLENGES,
        TaskType::Commit2 | TaskType::ProveReplicaUpdate2 => SNARK,
        TaskType::Finalize | TaskType::FinalizeUnsealed | TaskType::FinalizeReplicaUpdate => CLEARING,
        TaskType::Fetch | TaskType::DownloadSector => [100, 150, 6_400, 408 * SECOND, 816 * SECOND],
        TaskType::WindowPost => [MINUTE, MINUTE, MINUTE, 450 * SECOND, 450 * SECOND],
        TaskType::WinningPost => [10 * SECOND; 5],
    };
    Millis::new(match kind.proof.sector_size() {
        SectorSize::KiB2 => row[0],
        SectorSize::MiB8 => row[1],
        SectorSize::MiB512 => row[2],
        SectorSize::GiB32 => row[3],
        SectorSize::GiB64 => row[4],
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sealtasks::RegisteredSealProof;

    use super::*;

    proptest! {
        /// The short way gives what the long one does, on both sides of where it ends.
        #[test]
        fn means_are_the_same_in_either_width(mean: u64, shift in 0..64_u32, sample: u64, less in 0..64_u32, samples in 1..9_u32) {
            let (mean, sample, weight) = (mean >> shift, sample >> less, u128::from(samples));
            let wide = (u128::from(mean) * (weight - 1) + u128::from(sample) + weight / 2) / weight;
            let short = Mean { millis: mean, samples }.mean_with(sample);
            prop_assert_eq!(u128::from(short), wide.min(u64::MAX.into()));
        }
    }

    fn kind(task: TaskType) -> SealTaskType {
        SealTaskType { proof: RegisteredSealProof::for_new_sector(SectorSize::GiB32), task }
    }

    fn learned(samples: &[u64]) -> u64 {
        let mut learned = Learned::default();
        samples.iter().for_each(|sample| learned.add(kind(TaskType::PreCommit1), Millis::new(*sample)));
        learned.get(kind(TaskType::PreCommit1)).expect("something was learned").get()
    }

    #[test]
    fn the_mean_follows_its_samples_and_not_an_outlier() {
        assert_eq!(learned(&[1000]), 1000);
        assert_eq!(learned(&[1000, 2000]), 1500);
        let steady = [1000; 20];
        assert_eq!(learned(&steady), 1000);
        let spoiled = learned(&[&steady[..], &[1_000_000_000]].concat());
        assert_eq!(spoiled, 1375, "an eighth of four times the mean");
        let crashed = learned(&[&steady[..], &[0]].concat());
        assert_eq!(crashed, 906, "an eighth of a quarter of it");
        let changed = learned(&[&steady[..], &[3000; 40]].concat());
        assert!((2900..=3000).contains(&changed), "a lasting change is followed: {changed}");
        assert_eq!(learned(&[u64::MAX; 12]), u64::MAX);
    }

    #[test]
    fn what_an_earlier_life_learned_is_a_start_and_does_not_overwrite() {
        let mut learned = Learned::default();
        let known = |millis| {
            let SealTaskType { proof, task } = kind(TaskType::PreCommit1);
            KindDuration { task, proof, millis: Millis::new(millis) }
        };
        learned.seed(&[known(1000)]);
        learned.add(kind(TaskType::PreCommit1), Millis::new(2000));
        learned.seed(&[known(9)]);
        assert_eq!(learned.get(kind(TaskType::PreCommit1)), Some(Millis::new(1200)));
        assert_eq!(learned.all().collect::<Vec<_>>(), [known(1200)]);
    }

    #[test]
    fn every_task_of_every_size_has_a_time_and_larger_sizes_do_not_take_less() {
        for task in TaskType::ALL {
            let times: Vec<_> = SectorSize::ALL
                .iter()
                .map(|size| SealTaskType { proof: RegisteredSealProof::for_new_sector(*size), task: *task })
                .map(|kind| builtin_duration(kind).get())
                .collect();
            assert!(times[0] >= 100 && times.is_sorted(), "{task}: {times:?}");
        }
    }
}

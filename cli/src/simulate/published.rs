//! What a cluster file need not say: the scheduler's built-in task times, Lotus's resources, and the chain's delays.

use std::collections::BTreeMap;

use sched::{Millis, builtin_duration};
use sealtasks::{RegisteredSealProof, ResourceTable, SealTaskType, SectorSize, TaskType};

use super::cluster::{TIMED, TaskProfile};

/// Even spread of each task's time where the file gives none, in thousandths. Ours: the published times are of single
/// runs and tell no spread.
pub const SPREAD: u64 = 50;

/// From PreCommit2's end to Commit1 where the file does not say. The chain draws the seed 150 epochs of 30 s after the
/// PreCommit message has landed (`PreCommitChallengeDelay`); five epochs more are for the message to land and for the
/// confidence that Lotus waits for.
pub const WAIT_SEED: Millis = Millis::new(155 * 30 * 1000);

/// The profile of each of [`TIMED`]: times as [`builtin_duration`] has them, with their sources; resources as Lotus has them.
pub fn profiles(size: SectorSize) -> BTreeMap<TaskType, TaskProfile> {
    let table = ResourceTable::builtin();
    let proof = RegisteredSealProof::for_new_sector(size);
    let profile = |task: TaskType| {
        let duration = builtin_duration(SealTaskType { task, proof });
        let resources = table.get(task, proof).unwrap_or_default();
        (task, TaskProfile { duration, spread: SPREAD, resources })
    };
    TIMED.into_iter().map(profile).collect()
}

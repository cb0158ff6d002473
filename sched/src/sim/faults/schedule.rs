//! From a seed to a cluster, its work, and what goes wrong with it.

use sealtasks::{
    FileTypes, RegisteredSealProof, SealingPurpose, SectorId, SectorRef, SectorSize, StorageId, TaskType,
};

use super::trouble::{draw_plans, fault, plain_stray, plans_change};
use crate::sim::{Cluster, Job, JobStage, SealStage, SimPath, SimWorker, Speed, SplitMix, Trouble, Workload};
use crate::{GroupCap, Millis, Options, PathFacts, Policy, WorkerProfile};

const GIB: u64 = 1 << 30;
const SECOND: u64 = 1000;
/// Work and faults begin within this.
pub(super) const BUSY: u64 = 300 * SECOND;
/// By then every fault is over, and everything heals.
const HEAL: u64 = 700 * SECOND;
/// Heals again when everything that was late has arrived.
const HEAL_AGAIN: u64 = 900 * SECOND;
/// Makes the numbers for the paths' groups others than those for all else: what a seed meant before there were groups it means
/// still, wherever there are none.
const GROUPS: u64 = 0x6772_6f75_7073;
/// The same for plans.
const PLANS: u64 = 0x70_6c61_6e73;
/// No word is later than this.
pub(super) const LATE_MAX: u64 = 60 * SECOND;

/// Everything that one run does.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// What it was made from.
    pub seed: u64,
    /// The machines.
    pub cluster: Cluster,
    /// The work.
    pub jobs: Vec<Job>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// How to choose among workers that fit.
    pub policy: Policy,
    /// Staged tasks per running one.
    pub staged_per_running: usize,
}

/// One thing that goes wrong, from its beginning to its end.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Which.
    pub kind: FaultKind,
    /// What it does when.
    pub strikes: Vec<(Millis, Trouble)>,
}

macro_rules! fault_kinds {
    ($($(#[$doc:meta])* $kind:ident, $name:literal;)*) => {
        /// What can go wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FaultKind { $($(#[$doc])* $kind,)* }

        impl FaultKind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)*];

            /// For people.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }
        }
    };
}

fault_kinds! {
    /// A worker is lost with all it has in hand, and comes back only when everything heals.
    Lost, "worker lost for good";
    /// A worker is lost with all it has in hand, and comes back in its next life.
    LostAndBack, "worker lost and back";
    /// A worker is cut off, works on, and its attempts are adopted when it is back.
    CutOff, "worker cut off, its attempts adopted";
    /// A worker is cut off, and its attempts are given up before it is back.
    CutOffAndLost, "worker cut off and given up";
    /// A worker is slow for a while.
    Slow, "worker slow";
    /// A worker comes and goes.
    Flapping, "worker flapping";
    /// A worker takes nothing for a while.
    Disabled, "worker disabled";
    /// A worker is not heard of for a while.
    Suspect, "worker suspect";
    /// No new sectors for a while.
    Cordoned, "worker cordoned";
    /// Only what lives there is finished.
    Draining, "worker draining";
    /// An operator's disabling.
    ModeDisabled, "worker's mode disabled";
    /// Words come twice.
    Duplicates, "events twice";
    /// Words are late and change places.
    Late, "events late and out of order";
    /// Attempts never begin.
    StartFailures, "starts that fail";
    /// Attempts fail and are tried again.
    Retries, "attempts that fail and are retried";
    /// Attempts fail for good.
    Failures, "attempts that fail for good";
    /// One attempt fails at once.
    FailsNow, "one attempt fails at once";
    /// A path is detached for a while.
    PathGone, "path gone and back";
    /// A path is full for a while.
    PathFull, "path full";
    /// A path reports an error for a while.
    PathSick, "path unhealthy";
    /// A task is cancelled.
    Cancel, "task cancelled";
    /// A task's priority changes.
    Priority, "task re-prioritised";
    /// A worker's caps change.
    Caps, "worker's caps changed";
    /// A task's deadline changes.
    Deadline, "task's deadline changed";
    /// What a worker offers changes.
    Tasks, "worker's tasks changed";
    /// What a worker reaches changes.
    Paths, "worker's paths changed";
    /// A worker has less memory, CPU threads and devices.
    Shrunk, "worker shrunk";
    /// A worker's plans change.
    Plans, "worker's plans changed";
    /// The clock stands still for a while.
    ClockStops, "clock stands still";
    /// The clock jumps forwards.
    ClockJumps, "clock jumps forwards";
    /// The clock jumps backwards.
    ClockBack, "clock jumps backwards";
    /// The policy changes.
    PolicyChange, "policy changed";
    /// A machine's caps change.
    MachineCaps, "machine's caps changed";
    /// The driver crashes.
    Crash, "driver crashes";
    /// Words that make no sense.
    Stray, "events that make no sense";
}

impl Schedule {
    /// The schedule of this seed: 5 to 8 workers, 60 to 84 tasks and more where sectors go through all their stages, 12 to
    /// 20 faults.
    pub fn from_seed(seed: u64) -> Self {
        let mut random = SplitMix::new(seed);
        let mut cluster = cluster(&mut random.split());
        let mut jobs = jobs(&mut random.split(), &cluster);
        let mut plans_random = SplitMix::new(seed ^ PLANS);
        let has_plans = plans_random.chance(1, 3);
        if has_plans {
            give_plans(&mut plans_random, &mut cluster, &mut jobs);
        }
        let mut faults_random = random.split();
        let count = faults_random.within(12, 20);
        let mut faults: Vec<Fault> = (0..count).map(|_| fault(&mut faults_random, &cluster)).collect();
        faults.push(plain_stray(&mut faults_random));
        if has_plans {
            let changes = plans_random.within(1, 4);
            faults.extend((0..changes).map(|_| plans_change(&mut plans_random, &cluster)));
        }
        group_paths(&mut SplitMix::new(seed ^ GROUPS), &mut cluster);
        let policies =
            [Policy::Utilization, Policy::Spread, Policy::SpreadTasks, Policy::SpreadQcount, Policy::Random];
        Self {
            seed,
            cluster,
            jobs,
            faults,
            policy: *random.one_of(&policies),
            staged_per_running: *random.one_of(&[1, 1, 2, 0]),
        }
    }

    /// The scheduler's options.
    pub fn options(&self) -> Options {
        Options {
            policy: self.policy,
            staged_per_running: self.staged_per_running,
            wait_limit: Millis::new(60 * SECOND),
            seed: self.seed,
            ..Options::default()
        }
    }

    /// Everything that happens, with the instants at which all heals.
    pub fn troubles(&self) -> impl Iterator<Item = (Millis, Trouble)> + '_ {
        let heals = [HEAL, HEAL_AGAIN].map(|at| (Millis::new(at), Trouble::Heal));
        self.faults.iter().flat_map(|fault| fault.strikes.iter().cloned()).chain(heals)
    }

    /// The work as the engine takes it.
    pub fn workload(&self) -> Workload {
        Workload { jobs: self.jobs.clone(), open_max: None }
    }
}

fn storage(number: usize) -> StorageId {
    format!("path-{number}").parse().expect("letters, digits and a dash are a good id")
}

/// The last path is for finished sectors; every other one is for sealing.
fn cluster(random: &mut SplitMix) -> Cluster {
    let sealing = random.within(3, 5) as usize;
    let mut paths: Vec<SimPath> =
        (0..sealing).map(|number| path(number, true, false, random.within(1, 6) * 1024 * GIB)).collect();
    paths.push(path(sealing, false, true, 64 * 1024 * GIB));
    let mut workers: Vec<SimWorker> =
        (0..random.within(5, 8) as usize).map(|number| worker(random, number, sealing)).collect();
    if random.chance(2, 3) {
        // Who holds the files does not work on them: they have to be fetched, and staging has a point.
        let fetching = [TaskType::PreCommit2, TaskType::Unseal];
        workers[0].profile.tasks.retain(|task| !fetching.contains(task));
        workers[1].profile.tasks.extend(fetching);
    }
    Cluster { workers, paths, ..Cluster::default() }
}

/// In some clusters paths have groups, and say which groups their files may be fetched into: those of the path for finished
/// sectors and of the second worker's, which fetches what the first one does not do, so that nothing waits for ever.
fn group_paths(random: &mut SplitMix, cluster: &mut Cluster) {
    const STORAGE: &str = "long-term";
    if !random.chance(1, 3) {
        return;
    }
    let home = cluster.workers[1].profile.paths[0].clone();
    for SimPath { facts, .. } in &mut cluster.paths {
        let group = match facts.can_seal {
            true if facts.id == home || random.chance(1, 2) => "near",
            true => "far",
            false => STORAGE,
        };
        facts.groups = vec![group.to_owned()];
        if random.chance(2, 3) {
            facts.allow_to = vec![STORAGE.to_owned(), "near".to_owned()];
        }
    }
}

/// In some clusters sectors are sealed for this and that, and workers have plans; not the first two, so that nothing waits
/// for ever.
fn give_plans(random: &mut SplitMix, cluster: &mut Cluster, jobs: &mut [Job]) {
    for worker in cluster.workers.iter_mut().skip(2) {
        draw_plans(random, &mut worker.profile);
    }
    for job in jobs {
        job.purpose = *random.one_of(&[None, Some(SealingPurpose::New), Some(SealingPurpose::Rebuild)]);
    }
}

fn path(number: usize, can_seal: bool, can_store: bool, capacity: u64) -> SimPath {
    let facts = PathFacts {
        id: storage(number),
        available: 0,
        covers: Vec::new(),
        healthy: true,
        can_seal,
        can_store,
        weight: 1 + number as u64,
        accepts: FileTypes::ALL,
        allow_miners: Vec::new(),
        deny_miners: Vec::new(),
        groups: Vec::new(),
        allow_to: Vec::new(),
    };
    SimPath { facts, capacity }
}

/// The first worker does everything and reaches every path, so that whatever else is lost nothing waits for ever once all
/// is healed; it is the manager's own. The second is as large.
fn worker(random: &mut SplitMix, number: usize, sealing: usize) -> SimWorker {
    use TaskType::{AddPiece, Commit1, Commit2, Fetch, Finalize, PreCommit1, PreCommit2, Unseal};
    const EVERYTHING: [TaskType; 8] =
        [AddPiece, PreCommit1, PreCommit2, Commit1, Commit2, Finalize, Fetch, Unseal];
    let tasks: Vec<TaskType> = match (number, random.below(4)) {
        (0, _) | (_, 0) => EVERYTHING.to_vec(),
        (_, 1) => vec![AddPiece, PreCommit1, Finalize, Fetch],
        (_, 2) => vec![PreCommit2, Commit1, Commit2, Finalize, Unseal],
        _ => vec![Commit1, Commit2, Fetch, PreCommit2],
    };
    let mut paths: Vec<StorageId> = if number == 0 {
        (0..=sealing).map(storage).collect()
    } else {
        vec![storage(random.below(sealing as u64) as usize)]
    };
    if number > 0 && random.chance(1, 3) {
        paths.push(storage(sealing));
    }
    let gpus = if number < 2 { 1 } else { random.below(3) };
    let big = number < 2;
    let bandwidth = random.within(5, 80) * GIB;
    let mut profile = WorkerProfile {
        host: format!("w{number}"),
        is_local: number == 0,
        tasks,
        mem_physical: if big { 256 * GIB } else { random.within(64, 300) * GIB },
        mem_swap: if big { 64 * GIB } else { random.below(200) * GIB },
        mem_used: random.below(8) * GIB,
        swap_used: 0,
        cpus: if big { 32 } else { random.within(4, 48) },
        gpus: (0..gpus).map(|device| format!("gpu{device}")).collect(),
        paths,
        bandwidth: if random.chance(1, 2) { bandwidth } else { 0 },
        ..WorkerProfile::default()
    };
    if random.chance(1, 3) {
        profile.caps.insert(*random.one_of(&EVERYTHING), random.within(1, 3) as u32);
    }
    if random.chance(1, 4) {
        let tasks = [PreCommit2, Commit2].into_iter().collect();
        profile.group_caps.push(GroupCap {
            name: "card".to_owned(),
            tasks,
            most: random.within(1, 2) as u32,
        });
    }
    if random.chance(1, 4) {
        profile.stagger.insert(PreCommit1, Millis::new(random.below(20 * SECOND)));
    }
    if number > 0 && random.chance(1, 3) {
        profile.machine = Some("m0".to_owned());
    }
    let speed = Speed { usual: random.within(500, 2000) as u32, ..Speed::default() };
    SimWorker { profile, bandwidth, speed }
}

fn jobs(random: &mut SplitMix, cluster: &Cluster) -> Vec<Job> {
    let whole = random.within(5, 8);
    let single = random.within(55, 76);
    let mut jobs: Vec<Job> = (0..whole).map(|number| job(random, number, &SealStage::SEALING)).collect();
    for _ in 0..single {
        let stage = *random.one_of(&SealStage::ALL);
        // A few sectors share many tasks, so that locks meet.
        let number = 100 + random.below(24);
        let mut job = job(random, number, &[stage]);
        for kind in stage.shape().input.map_or(FileTypes::NONE, |input| input.types).iter() {
            let last = cluster.paths.len() as u64 - 1;
            job.files.push((kind, storage(number as usize % last as usize)));
        }
        jobs.push(job);
    }
    jobs
}

fn job(random: &mut SplitMix, number: u64, stages: &[SealStage]) -> Job {
    let size = if number % 7 == 3 { SectorSize::GiB64 } else { SectorSize::GiB32 };
    let proof = RegisteredSealProof::for_new_sector(size);
    let stage = |stage: &SealStage| JobStage {
        shape: stage.shape(),
        work: Millis::new(random.within(2, 120) * SECOND),
        gap: Millis::new(if *stage == SealStage::Commit1 { 5 * SECOND } else { 0 }),
    };
    let stages = stages.iter().map(stage).collect();
    let release = Millis::new(random.below(BUSY));
    let wait_limit = match random.below(3) {
        0 => None,
        1 => Some(Millis::new(random.below(30 * SECOND))),
        _ => Some(Millis::new(random.below(600 * SECOND))),
    };
    let deadline = random.chance(1, 8).then(|| release.after(Millis::new(random.below(300 * SECOND))));
    Job {
        sector: SectorRef { id: SectorId::new(1000 + number % 2, number), proof },
        release,
        purpose: None,
        priority: *random.one_of(&[0, 0, 0, 1, 1024, -1]),
        wait_limit,
        deadline,
        files: Vec::new(),
        stages,
    }
}

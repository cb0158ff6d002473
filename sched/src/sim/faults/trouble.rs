//! From a kind of fault to what it does when.

use std::collections::BTreeSet;

use sealtasks::{AttemptId, SealingPlan, TaskId, TaskType};

use super::schedule::{BUSY, Fault, FaultKind, LATE_MAX};
use crate::sim::{ClockTrouble, Cluster, Luck, Noise, SplitMix, Trouble, worker_key};
use crate::{Event, GroupCap, Millis, Outcome, Policy, WorkerKey, WorkerMode, WorkerProfile};

const SECOND: u64 = 1000;

/// A fault of any kind, somewhere, some time.
pub(super) fn fault(random: &mut SplitMix, cluster: &Cluster) -> Fault {
    // Plans change only where there are some. What a seed meant before there were any it means still in all other clusters.
    let drawn: Vec<_> = FaultKind::ALL.iter().copied().filter(|kind| *kind != FaultKind::Plans).collect();
    let kind = *random.one_of(&drawn);
    let from = random.below(BUSY);
    let span = random.within(SECOND, 120 * SECOND);
    let (start, end) = (Millis::new(from), Millis::new(from + span));
    let worker = random.below(cluster.workers.len() as u64) as usize;
    let strikes = match kind {
        FaultKind::Lost
        | FaultKind::LostAndBack
        | FaultKind::CutOff
        | FaultKind::CutOffAndLost
        | FaultKind::Flapping => losses(random, kind, worker, (start, end)),
        FaultKind::Slow
        | FaultKind::Disabled
        | FaultKind::Suspect
        | FaultKind::Cordoned
        | FaultKind::Draining
        | FaultKind::ModeDisabled => states(random, kind, worker, (start, end)),
        FaultKind::Caps | FaultKind::Tasks | FaultKind::Paths | FaultKind::Shrunk => {
            profiles(random, kind, worker, cluster, (start, end))
        }
        FaultKind::PathGone | FaultKind::PathFull | FaultKind::PathSick => {
            paths(random, kind, cluster, (start, end))
        }
        FaultKind::Duplicates
        | FaultKind::Late
        | FaultKind::StartFailures
        | FaultKind::Retries
        | FaultKind::Failures => odds(random, kind, (start, end)),
        FaultKind::ClockStops | FaultKind::ClockJumps | FaultKind::ClockBack => {
            clocks(random, kind, (start, end))
        }
        FaultKind::Cancel => (0..random.within(1, 6))
            .map(|_| (Millis::new(random.within(start.get(), end.get())), at_once(random, kind)))
            .chain([(start, Trouble::Aborts(500)), (end, Trouble::Aborts(0))])
            .collect(),
        FaultKind::Plans => plans_change(random, cluster).strikes,
        FaultKind::FailsNow
        | FaultKind::Priority
        | FaultKind::Deadline
        | FaultKind::PolicyChange
        | FaultKind::MachineCaps
        | FaultKind::Crash
        | FaultKind::Stray => vec![(start, at_once(random, kind))],
    };
    Fault { kind, strikes }
}

/// One event that makes no sense, so that every schedule has one.
pub(super) fn plain_stray(random: &mut SplitMix) -> Fault {
    let at = Millis::new(random.below(BUSY));
    Fault { kind: FaultKind::Stray, strikes: vec![(at, at_once(random, FaultKind::Stray))] }
}

/// A worker, not one of the first two, has other plans for a while.
pub(super) fn plans_change(random: &mut SplitMix, cluster: &Cluster) -> Fault {
    let worker = random.within(2, cluster.workers.len() as u64 - 1) as usize;
    let before = &cluster.workers[worker].profile;
    let mut after = before.clone();
    draw_plans(random, &mut after);
    let from = random.below(BUSY);
    let strikes = [(from, after), (from + random.within(SECOND, 120 * SECOND), before.clone())]
        .map(|(at, profile)| (Millis::new(at), Trouble::Profile { worker, profile: Box::new(profile) }));
    Fault { kind: FaultKind::Plans, strikes: strikes.into() }
}

/// Gives a worker a plan of its own, plans for some of its paths, or both.
pub(super) fn draw_plans(random: &mut SplitMix, profile: &mut WorkerProfile) {
    profile.plan = *random.one_of(&SealingPlan::ALL);
    profile.path_plans.clear();
    for path in &profile.paths {
        if random.chance(1, 3) {
            profile.path_plans.insert(path.clone(), *random.one_of(&SealingPlan::ALL));
        }
    }
}

type Strikes = Vec<(Millis, Trouble)>;

fn losses(random: &mut SplitMix, kind: FaultKind, worker: usize, (start, end): (Millis, Millis)) -> Strikes {
    let grace = Millis::new(random.below(30 * SECOND));
    let (lose, back) = (Trouble::Lose { worker, grace }, Trouble::Back { worker });
    let cut = Trouble::CutOff { worker };
    match kind {
        FaultKind::Lost => vec![(start, lose)],
        FaultKind::LostAndBack => vec![(start, lose), (end, back)],
        FaultKind::CutOff => vec![(start, cut), (end, back)],
        FaultKind::CutOffAndLost => {
            let later = Millis::new(random.within(start.get(), end.get()));
            vec![(start, cut), (later, lose), (end, back)]
        }
        _ => (0..random.within(2, 6))
            .flat_map(|_| {
                let at = random.within(start.get(), end.get());
                let down = if random.chance(1, 2) { cut.clone() } else { lose.clone() };
                let up = Millis::new(at + random.below(5 * SECOND));
                [(Millis::new(at), down), (up, back.clone())]
            })
            .collect(),
    }
}

fn states(random: &mut SplitMix, kind: FaultKind, worker: usize, (start, end): (Millis, Millis)) -> Strikes {
    let mode = |mode| {
        [(start, Trouble::Mode { worker, mode }), (end, Trouble::Mode { worker, mode: WorkerMode::Open })]
    };
    match kind {
        FaultKind::Slow => {
            let pace = |thousandths| Trouble::Pace { worker, thousandths };
            vec![(start, pace(random.within(20, 800) as u32)), (end, pace(1000))]
        }
        FaultKind::Disabled => {
            let enable = |enabled| Trouble::Enable { worker, enabled };
            vec![(start, enable(false)), (end, enable(true))]
        }
        FaultKind::Suspect => {
            let suspect = |suspect| Trouble::Suspect { worker, suspect };
            vec![(start, suspect(true)), (end, suspect(false))]
        }
        FaultKind::Cordoned => mode(WorkerMode::Cordoned).into(),
        FaultKind::Draining => mode(WorkerMode::Draining).into(),
        _ => mode(WorkerMode::Disabled).into(),
    }
}

fn profiles(
    random: &mut SplitMix,
    kind: FaultKind,
    worker: usize,
    cluster: &Cluster,
    (start, end): (Millis, Millis),
) -> Strikes {
    let before = cluster.workers[worker].profile.clone();
    let mut after: WorkerProfile = before.clone();
    match kind {
        FaultKind::Caps => {
            after.caps.clear();
            for task in &before.tasks {
                if random.chance(1, 2) {
                    after.caps.insert(*task, random.below(3) as u32);
                }
            }
        }
        FaultKind::Tasks => {
            after.tasks.retain(|_| random.chance(2, 3));
            for task in before.tasks.iter().filter(|_| random.chance(1, 4)) {
                after.pending.insert(*task, "parameters are missing".to_owned());
            }
        }
        FaultKind::Paths => after.paths.retain(|_| random.chance(1, 2)),
        _ => {
            after.mem_physical /= random.within(1, 4);
            after.mem_swap /= random.within(1, 4);
            after.cpus = after.cpus.div_ceil(random.within(1, 4));
            after.gpus.truncate(random.below(2) as usize);
        }
    }
    let profile = |profile| Trouble::Profile { worker, profile: Box::new(profile) };
    vec![(start, profile(after)), (end, profile(before))]
}

fn paths(
    random: &mut SplitMix,
    kind: FaultKind,
    cluster: &Cluster,
    (start, end): (Millis, Millis),
) -> Strikes {
    let path = random.one_of(&cluster.paths);
    let (capacity, path) = (path.capacity, path.facts.id.clone());
    let back = |clutter| Trouble::PathBack { path: path.clone(), clutter };
    match kind {
        FaultKind::PathGone => vec![(start, Trouble::PathGone { path: path.clone() }), (end, back(0))],
        FaultKind::PathFull => {
            vec![(start, back(capacity - capacity / random.within(2, 50))), (end, back(0))]
        }
        _ => {
            let healthy = |healthy| Trouble::PathHealth { path: path.clone(), healthy };
            vec![(start, healthy(false)), (end, healthy(true))]
        }
    }
}

fn odds(random: &mut SplitMix, kind: FaultKind, (start, end): (Millis, Millis)) -> Strikes {
    let some = random.within(100, 600);
    let noise = |late_max, twice| Trouble::Noise(Noise { late_max: Millis::new(late_max), twice });
    let luck = |never_begin, retry, fail| Trouble::Luck(Luck { never_begin, retry, fail });
    match kind {
        FaultKind::Duplicates => vec![(start, noise(random.below(SECOND), some)), (end, noise(0, 0))],
        FaultKind::Late => {
            let late = if random.chance(1, 2) { LATE_MAX } else { 2 * SECOND };
            vec![(start, noise(random.within(1, late), 0)), (end, noise(0, 0))]
        }
        FaultKind::StartFailures => vec![(start, luck(some, 0, 0)), (end, luck(0, 0, 0))],
        FaultKind::Retries => vec![(start, luck(0, some, 0)), (end, luck(0, 0, 0))],
        _ => vec![(start, luck(0, 0, some)), (end, luck(0, 0, 0))],
    }
}

fn clocks(random: &mut SplitMix, kind: FaultKind, (start, end): (Millis, Millis)) -> Strikes {
    let by = random.within(1, 300 * SECOND) as i64;
    let clock = Trouble::Clock;
    match kind {
        FaultKind::ClockStops => vec![(start, clock(ClockTrouble::Stop)), (end, clock(ClockTrouble::GoOn))],
        FaultKind::ClockJumps => vec![(start, clock(ClockTrouble::Jump(by)))],
        _ => vec![(start, clock(ClockTrouble::Jump(-by))), (end, clock(ClockTrouble::Jump(by)))],
    }
}

fn at_once(random: &mut SplitMix, kind: FaultKind) -> Trouble {
    let nth = random.below(1000) as usize;
    match kind {
        FaultKind::Cancel => Trouble::Cancel { nth },
        FaultKind::Priority => Trouble::Priority { nth, priority: random.within(0, 4) as i64 - 2 },
        FaultKind::Deadline => {
            let deadline = random.chance(2, 3).then(|| Millis::new(random.below(2 * BUSY)));
            Trouble::Deadline { nth, deadline }
        }
        FaultKind::PolicyChange => {
            let policies = [
                Policy::Utilization,
                Policy::Spread,
                Policy::SpreadTasks,
                Policy::SpreadQcount,
                Policy::Random,
            ];
            Trouble::Say(Box::new(Event::PolicySet { policy: *random.one_of(&policies) }))
        }
        FaultKind::MachineCaps => {
            let tasks: BTreeSet<TaskType> =
                [TaskType::PreCommit1, TaskType::PreCommit2, TaskType::Commit2].into_iter().collect();
            let most = random.below(3) as u32;
            let caps = vec![GroupCap { name: "heavy".to_owned(), tasks, most }];
            Trouble::Say(Box::new(Event::MachineCaps { machine: "m0".to_owned(), caps }))
        }
        FaultKind::Crash => Trouble::Crash,
        FaultKind::FailsNow => {
            let retry = random.chance(1, 2).then(|| Millis::new(random.below(30 * SECOND)));
            Trouble::Fail { nth, retry }
        }
        _ => Trouble::Say(Box::new(stray(random))),
    }
}

/// An event about something that was never there.
fn stray(random: &mut SplitMix) -> Event {
    let task = TaskId::new(random.within(1, 80));
    let attempt = AttemptId { task, attempt: 1_000_000 };
    let worker = WorkerKey { generation: 1_000_000, ..worker_key(random.below(8) as usize) };
    match random.below(8) {
        0 => Event::Cancel { task: TaskId::new(1_000_000) },
        1 => Event::SetPriority { task: TaskId::new(1_000_000), priority: 1 },
        2 => Event::WorkerLost { worker },
        3 => Event::WorkerEnabled { worker, enabled: true },
        4 => Event::Started { attempt },
        5 => Event::StageDone { attempt },
        6 => Event::Ended { attempt, outcome: Outcome::Finished },
        _ => Event::StartFailed { attempt, reason: "stray".to_owned(), not_before: Millis::ZERO },
    }
}

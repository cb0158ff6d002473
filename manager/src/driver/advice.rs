//! What would change it: for each obstacle the thing that an operator can do, or that will happen by itself. Never:
//! commands that this program does not have.

use sched::{Finding, Obstacle, Relief, Shortage, Why};
use sealtasks::{PathType, TaskType};

/// What would remove one obstacle on the worker of this name.
pub(super) fn for_one(finding: &Finding, worker: &str, why: &Why) -> String {
    let by_itself = match &finding.relief {
        Some(relief @ (Relief::Ends { .. } | Relief::Starts { .. } | Relief::Passes { .. })) => {
            Some(relief.to_string())
        }
        Some(Relief::OtherPrograms) => Some("it is free when other programs there use less".to_owned()),
        Some(Relief::Never) | None => None,
    };
    let by_hand = by_hand(finding, worker, why);
    match by_itself {
        Some(text) if by_hand.is_empty() => text,
        Some(text) => format!("{text}; or {by_hand}"),
        None => by_hand,
    }
}

fn by_hand(finding: &Finding, worker: &str, why: &Why) -> String {
    match &finding.obstacle {
        Obstacle::NotOffered { task } if is_switched(*task) => format!(
            "start that worker with {}; where it was, `sealyard worker tasks enable {task}` there switches it on again",
            flag(*task)
        ),
        Obstacle::NotOffered { task } => format!("start that worker with {}", flag(*task)),
        Obstacle::Disabled | Obstacle::Cordoned | Obstacle::Draining => {
            format!("`sealyard workers enable {worker}` opens it again")
        }
        Obstacle::OtherPlan { purpose, .. } => format!(
            "start that worker with --plan {0}, or write plan = \"{0}\" into the config.toml of one of its sealing threads",
            purpose.plan()
        ),
        Obstacle::Suspect => {
            "it goes on when that worker answers again; look at its log and the network".into()
        }
        Obstacle::Lost => "it goes on when that worker is started again".into(),
        Obstacle::NotYet { .. } => {
            format!("it offers it by itself then; parameters can be brought with {}", params(why))
        }
        Obstacle::Capped { machine: Some(machine), .. } => {
            format!("raise it with `sealyard workers caps --machine {machine} …`")
        }
        Obstacle::Capped { machine: None, .. } => format!("raise it with `sealyard workers caps {worker} …`"),
        Obstacle::Short(shortage) | Obstacle::MachineShort { shortage, .. } => {
            short(shortage, finding.relief.as_ref(), worker, why)
        }
        Obstacle::FileElsewhere { kind, paths: 0 } => {
            format!("start the worker, or attach the path, that holds the {kind} file")
        }
        Obstacle::FileElsewhere { kind, .. } => {
            format!("let a worker that reaches the {kind} file offer {}", why.kind)
        }
        Obstacle::NoRoom { path_type, most_free: None, .. } => {
            format!("attach one there: `sealyard storage attach --init --{} DIR`", use_of(*path_type))
        }
        // Room is there; what the path takes is not this file.
        Obstacle::NoRoom { needs, most_free: Some(free), path_type, .. } if free >= needs => format!(
            "see in `sealyard storage list` that one is healthy, and in its sectorstore.json that its AllowTypes, DenyTypes, \
             AllowMiners, DenyMiners and Groups let the file in; or attach another with `sealyard storage attach --init --{} DIR`",
            use_of(*path_type)
        ),
        Obstacle::NoRoom { needs, most_free: Some(free), path_type, .. } => format!(
            "free {} bytes there, raise its MaxStorage, or attach another with `sealyard storage attach --init --{} DIR`",
            needs.saturating_sub(*free),
            use_of(*path_type)
        ),
        Obstacle::Staggered { .. } | Obstacle::MachineKeptFor { .. } | Obstacle::ReservedFor { .. } => {
            String::new()
        }
    }
}

/// What an operator can do about a shortage: the table's row for that task is his to change on each worker.
fn short(shortage: &Shortage, relief: Option<&Relief>, worker: &str, why: &Why) -> String {
    let row = format!("{}_{}", why.kind, why.sector.proof.sector_size().short());
    let (what, variable) = match shortage {
        // The limit of a single type: an operator's, the configuration's or the worker's own, whichever is least.
        Shortage::Concurrency { .. } => {
            return format!(
                "raise it with `sealyard workers caps {worker} {}=…`; where the worker was started with it, with --max or \
                 {row}_MAX_CONCURRENT there",
                why.kind
            );
        }
        Shortage::Memory { .. } => ("memory", format!("{row}_MIN_MEMORY")),
        Shortage::MemoryAndSwap { .. } => ("memory or swap", format!("{row}_MAX_MEMORY")),
        Shortage::Threads { .. } => ("CPU threads", format!("{row}_MAX_PARALLELISM")),
        Shortage::Gpu { .. } => ("GPUs", format!("{row}_GPU_UTILIZATION")),
    };
    match relief {
        Some(Relief::Never) => {
            format!("it never fits: offer it on a machine with more {what}, or lower {variable} there")
        }
        Some(Relief::Ends { .. } | Relief::Starts { .. } | Relief::Passes { .. } | Relief::OtherPrograms)
        | None => String::new(),
    }
}

/// What would help a waiting task wherever it might run; empty where each worker has a reason of its own.
pub(super) fn for_all(why: &Why) -> String {
    let offered = |obstacle: &Obstacle| !matches!(obstacle, Obstacle::NotOffered { .. });
    if why.workers.is_empty() {
        return "no worker is connected: `sealyard workers join-command` prints the line to run on a machine"
            .into();
    }
    let nobody =
        why.workers.iter().all(|worker| worker.obstacles.iter().any(|found| !offered(&found.obstacle)));
    if nobody {
        let kind = why.kind;
        return format!("no worker offers {kind}: start one with {}", flag(kind));
    }
    String::new()
}

/// Which check an obstacle belongs to, in two words.
pub(super) const fn check(obstacle: &Obstacle) -> &'static str {
    match obstacle {
        Obstacle::NotOffered { .. } => "not offered",
        Obstacle::NotYet { .. } => "not yet offered",
        Obstacle::Disabled => "disabled",
        Obstacle::Cordoned => "cordoned",
        Obstacle::Draining => "draining",
        Obstacle::OtherPlan { .. } => "other plan",
        Obstacle::Suspect => "not heard of",
        Obstacle::Lost => "gone",
        Obstacle::Staggered { .. } => "started lately",
        Obstacle::Capped { .. } => "cap reached",
        Obstacle::Short(Shortage::Concurrency { .. }) => "limit reached",
        Obstacle::Short(_) => "short of resources",
        Obstacle::MachineShort { .. } => "machine short",
        Obstacle::ReservedFor { .. } | Obstacle::MachineKeptFor { .. } => "kept for another",
        Obstacle::FileElsewhere { .. } => "files elsewhere",
        Obstacle::NoRoom { .. } => "no room",
    }
}

const fn use_of(path_type: PathType) -> &'static str {
    match path_type {
        PathType::Sealing => "seal",
        PathType::Storage => "store",
    }
}

fn params(why: &Why) -> String {
    format!("`sealyard params fetch {}`", why.sector.proof.sector_size())
}

/// Whether a worker's tasks of this type can be switched off and on while it runs; as in Lotus, some cannot.
const fn is_switched(task: TaskType) -> bool {
    match task {
        TaskType::AddPiece
        | TaskType::DataCid
        | TaskType::PreCommit1
        | TaskType::PreCommit2
        | TaskType::Commit2
        | TaskType::Unseal
        | TaskType::ReplicaUpdate
        | TaskType::ProveReplicaUpdate2
        | TaskType::RegenSectorKey => true,
        TaskType::Commit1
        | TaskType::Finalize
        | TaskType::FinalizeUnsealed
        | TaskType::Fetch
        | TaskType::ProveReplicaUpdate1
        | TaskType::FinalizeReplicaUpdate
        | TaskType::DownloadSector
        | TaskType::WindowPost
        | TaskType::WinningPost => false,
    }
}

/// The switch that makes a worker offer a task; some tasks every worker offers that is not told otherwise.
fn flag(task: TaskType) -> String {
    match task {
        TaskType::AddPiece => "--addpiece".to_owned(),
        TaskType::DataCid => "--data-cid".to_owned(),
        TaskType::PreCommit1 => "--precommit1".to_owned(),
        TaskType::PreCommit2 => "--precommit2".to_owned(),
        TaskType::Commit2 => "--commit".to_owned(),
        TaskType::Unseal => "--unseal".to_owned(),
        TaskType::Commit1
        | TaskType::Finalize
        | TaskType::FinalizeUnsealed
        | TaskType::Fetch
        | TaskType::ReplicaUpdate
        | TaskType::ProveReplicaUpdate1
        | TaskType::ProveReplicaUpdate2
        | TaskType::RegenSectorKey
        | TaskType::FinalizeReplicaUpdate
        | TaskType::DownloadSector
        | TaskType::WindowPost
        | TaskType::WinningPost => format!("{task} switched on"),
    }
}

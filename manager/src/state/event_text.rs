//! Events in words, for the logs that people read. Never: what a program goes by.

use std::fmt::Display;

use super::event::StateEvent;

impl StateEvent {
    /// The event in words.
    pub fn text(&self) -> String {
        let because = |reason: &str| if reason.is_empty() { String::new() } else { format!(": {reason}") };
        match self {
            Self::ManagerStarted { software } => format!("{software} started"),
            Self::Overtaken { by } => format!("{by} has taken over"),
            Self::SectorPledged { sector, state, .. } => format!("{} pledged, {state}", sector.id),
            Self::SectorStepped { text, .. } => text.clone(),
            Self::TaskSubmitted { task, step, .. } => format!("task {task} ({step}) queued"),
            Self::TaskEnded { task, outcome, reason } => {
                format!("task {task} {}{}", outcome.word(), because(reason))
            }
            Self::AttemptBound { attempt, name, .. } => format!("attempt {attempt} bound to {name}"),
            Self::AttemptAdopted { attempt, name, .. } => format!("attempt {attempt} found again on {name}"),
            Self::CallAccepted { attempt, call, stage } => {
                format!("attempt {attempt}: call {call} ({}) accepted", stage.word())
            }
            Self::CallReturned { attempt, stage, error, .. } => {
                format!("attempt {attempt}: {} {}", stage.word(), outcome(error.as_ref()))
            }
            Self::CallOrphaned { call, method, .. } => format!("{method} for the unknown call {call} kept"),
            Self::AttemptEnded { attempt, outcome, reason } => {
                format!("attempt {attempt} {}{}", outcome.word(), because(reason))
            }
            Self::SectorHeld { sector, types, to } => {
                let what = if types.is_empty() { "it".to_owned() } else { format!("its {types}") };
                format!("{sector} is held while {what} is moved to {to}")
            }
            Self::SectorLetGo { sector, reason } if reason.is_empty() => format!("{sector} was moved"),
            Self::SectorLetGo { sector, reason } => format!("{sector} was not moved: {reason}"),
            Self::DeletePermitted { .. }
            | Self::CopySuperseded { .. }
            | Self::CopyCounts { .. }
            | Self::FileScrubbed { .. } => self.of_a_file().unwrap_or_default(),
            Self::ReleaseAsked { task, keep } => {
                format!("task {task} frees unsealed data but for {} ranges", keep.len())
            }
            Self::SectorRemoved { sector, by } => format!("{sector} was removed, says {by}"),
            Self::DurationMeasured { worker, task_type, millis, .. } => {
                format!("{task_type} took {millis} ms on {worker}")
            }
            Self::ThroughputMeasured { worker, bytes, millis } => {
                format!("{worker} fetched {bytes} bytes in {millis} ms")
            }
            Self::WorkerModeSet { worker, mode, by } => {
                format!("{} is {}, says {by}", worker.name, mode.word())
            }
            Self::WorkerRecognised { worker, repo, before: None } => {
                format!("{} at {} is known by its repo's id {repo}", worker.name, worker.url)
            }
            Self::WorkerRecognised { worker, repo, before: Some(before) } => format!(
                "{} at {} has the repo's id {repo} and so the settings of {} at {}",
                worker.name, worker.url, before.name, before.url
            ),
            Self::WorkerCapsSet { worker, by, .. } => format!("limits of {} set by {by}", worker.name),
            Self::MachineCapsSet { machine, by, .. } => format!("limits of machine {machine} set by {by}"),
            Self::SectorPrioritySet { sector, priority, by } => {
                format!("{sector} has priority {priority}, says {by}")
            }
            Self::TaskPrioritySet { task, priority, by } => {
                format!("task {task} has priority {priority}, says {by}")
            }
            Self::MinerAdded { miner, by } => format!("miner {miner} is served from now on, says {by}"),
            Self::MinerRemoved { miner, by } => format!("miner {miner} is served no longer, says {by}"),
            Self::PledgingPaused { paused: true, by } => format!("pledging is paused, says {by}"),
            Self::PledgingPaused { paused: false, by } => format!("pledging goes on, says {by}"),
            Self::AbortAsked { attempt, by } => format!("attempt {attempt} is to end, says {by}"),
            Self::AttemptDetached { attempt, reason } => {
                format!("attempt {attempt} detached{}", because(reason))
            }
        }
    }

    /// What happened to one file on one path, in words; `None`: the event is about something else.
    fn of_a_file(&self) -> Option<String> {
        Some(match self {
            Self::DeletePermitted { file, path, reason, .. } if reason.is_empty() => {
                format!("{file} on {path} may be deleted")
            }
            Self::DeletePermitted { file, path, reason, .. } => {
                format!("{file} on {path} may be deleted: {reason}")
            }
            Self::CopySuperseded { file, path, .. } => {
                format!("{file} on {path} is older than what there is elsewhere, and is listed no more")
            }
            Self::CopyCounts { file, path, .. } => format!("{file} on {path} is no older copy any more"),
            Self::FileScrubbed { file, path, verdict, detail, .. } => {
                format!("{file} on {path} is {}: {detail}", verdict.words())
            }
            _ => return None,
        })
    }
}

fn outcome(error: Option<&impl Display>) -> String {
    error.map_or_else(|| "done".to_owned(), |error| format!("failed: {error}"))
}

//! How work is scheduled, as `config.toml` says it: the policy (`[Storage] Assigner`, with Lotus's names) and all of
//! `[Scheduler]`. Never: what is changed while the manager runs; that is durable state.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use sched::{Millis, Policy};
use sealtasks::{TaskCaps, TaskGroup, TaskType};
use toml::{Table, Value};

use super::{ConfigError, nearest, wrong};
use crate::shared::Timing;
use crate::state::CAPS_MAX;

/// How work is scheduled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduling {
    /// How to choose among workers that fit equally well.
    pub policy: Policy,
    /// A task that has waited this long becomes due.
    pub wait_limit: Millis,
    /// Tasks that a worker may stage per running one.
    pub staged_per_running: usize,
    /// Whether workers of one machine share its memory, CPU threads and GPUs in the accounts.
    pub share_machines: bool,
    /// Between two heartbeats of a worker.
    pub heartbeat: Millis,
    /// A worker that was lost for so long is forgotten and what it had is queued anew; 0 = never.
    pub forget_lost_after: Millis,
    /// The least time between two starts of a task type on one worker.
    pub stagger: BTreeMap<TaskType, Millis>,
    /// Limits per worker name.
    pub worker_caps: CapsByName,
    /// Limits per machine.
    pub machine_caps: CapsByName,
}

/// Limits by name; [`CapsByName::EVERY`] stands for all that have none of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapsByName(BTreeMap<String, TaskCaps>);

impl CapsByName {
    /// The name that stands for every other one.
    pub const EVERY: &'static str = "*";

    /// The limits for this name.
    pub fn of(&self, name: &str) -> TaskCaps {
        self.0.get(name).or_else(|| self.0.get(Self::EVERY)).cloned().unwrap_or_default()
    }
}

/// The words of `Assigner`. Lotus has two that start from what a worker holds already; `experiment-spread-tasks-qcount`
/// counts per task type, which is what `spread-tasks` does.
const ASSIGNERS: [(&str, Policy); 11] = [
    ("", Policy::Utilization),
    ("utilization", Policy::Utilization),
    ("spread", Policy::Spread),
    ("spread-tasks", Policy::SpreadTasks),
    ("spread-qcount", Policy::SpreadQcount),
    ("random", Policy::Random),
    ("experiment-spread", Policy::Spread),
    ("experiment-spread-tasks", Policy::SpreadTasks),
    ("experiment-spread-qcount", Policy::SpreadQcount),
    ("experiment-spread-tasks-qcount", Policy::SpreadTasks),
    ("experiment-random", Policy::Random),
];

const KEYS: [&str; 8] = [
    "WaitLimit",
    "StagedPerRunning",
    "ShareMachines",
    "Heartbeat",
    "ForgetLostAfter",
    "Stagger",
    "WorkerCaps",
    "MachineCaps",
];

/// Longer than a machine needs to start anew, shorter than what it would take to do most work again elsewhere.
pub(crate) const FORGET_LOST_AFTER: Millis = Millis::new(3_600_000);

/// Shorter ones only cost, and a worker that is dead must not be taken for a live one for long (milliseconds).
const HEARTBEATS: RangeInclusive<u64> = 100..=600_000;

/// More than this only fills disks.
const STAGED_MAX: i64 = 16;

impl Default for Scheduling {
    fn default() -> Self {
        let core = sched::Options::default();
        Self {
            policy: core.policy,
            wait_limit: core.wait_limit,
            staged_per_running: core.staged_per_running,
            share_machines: true,
            // Lotus's.
            heartbeat: Millis::new(10_000),
            forget_lost_after: FORGET_LOST_AFTER,
            stagger: BTreeMap::new(),
            worker_caps: CapsByName::default(),
            machine_caps: CapsByName::default(),
        }
    }
}

impl Scheduling {
    /// The periods that follow from it.
    pub fn timing(&self) -> Timing {
        let usual = Timing::default();
        let heartbeat = Duration::from_millis(self.heartbeat.get());
        let (heartbeat_timeout, look_around) =
            (usual.heartbeat_timeout.min(heartbeat), usual.look_around.min(heartbeat));
        Timing { heartbeat, heartbeat_timeout, look_around, ..usual }
    }

    /// What the scheduler is made with; `seed` is where the policy `random` begins.
    pub(crate) fn options(&self, seed: u64) -> sched::Options {
        sched::Options {
            policy: self.policy,
            wait_limit: self.wait_limit,
            staged_per_running: self.staged_per_running,
            seed,
            ..sched::Options::default()
        }
    }

    /// Takes `[Storage] Assigner`.
    pub(super) fn set_assigner(&mut self, path: &Path, value: &Value) -> Result<(), ConfigError> {
        let expected =
            "utilization, spread, experiment-spread-tasks, experiment-spread-qcount or experiment-random";
        let known = |word: &str| ASSIGNERS.iter().find(|(name, _)| *name == word).map(|(_, policy)| *policy);
        self.policy =
            value.as_str().and_then(known).ok_or_else(|| wrong(path, "Assigner", value, expected))?;
        Ok(())
    }

    /// Takes one key of `[Scheduler]`.
    pub(super) fn set(&mut self, path: &Path, key: &str, value: &Value) -> Result<(), ConfigError> {
        match key {
            "WaitLimit" => {
                self.wait_limit = span(value).ok_or_else(|| wrong(path, key, value, SPAN))?;
            }
            "StagedPerRunning" => {
                let most = value.as_integer().filter(|most| (0..=STAGED_MAX).contains(most));
                let most = most.and_then(|most| usize::try_from(most).ok());
                self.staged_per_running =
                    most.ok_or_else(|| wrong(path, key, value, "a number from 0 to 16"))?;
            }
            "ShareMachines" => {
                self.share_machines =
                    value.as_bool().ok_or_else(|| wrong(path, key, value, "true or false"))?;
            }
            "Heartbeat" => {
                let period = span(value).filter(|period| HEARTBEATS.contains(&period.get()));
                self.heartbeat = period.ok_or_else(|| wrong(path, key, value, "100ms to 10m"))?;
            }
            "ForgetLostAfter" => {
                self.forget_lost_after = span(value).ok_or_else(|| wrong(path, key, value, SPAN))?;
            }
            "Stagger" => self.stagger = stagger(path, table(path, key, value)?)?,
            "WorkerCaps" => self.worker_caps = caps_by_name(path, key, table(path, key, value)?)?,
            "MachineCaps" => self.machine_caps = caps_by_name(path, key, table(path, key, value)?)?,
            unknown => return Err(unknown_key(path, unknown, &KEYS)),
        }
        Ok(())
    }
}

fn table<'a>(path: &Path, key: &str, value: &'a Value) -> Result<&'a Table, ConfigError> {
    value
        .as_table()
        .ok_or_else(|| wrong(path, key, value, "a section of its own, such as [Scheduler.Stagger]"))
}

fn stagger(path: &Path, section: &Table) -> Result<BTreeMap<TaskType, Millis>, ConfigError> {
    let mut gaps = BTreeMap::new();
    for (short, value) in section {
        let task = TaskType::from_short(short).ok_or_else(|| unknown_key(path, short, &short_codes()))?;
        let gap = span(value).ok_or_else(|| wrong(path, &format!("Stagger.{short}"), value, SPAN))?;
        if gap > Millis::ZERO {
            gaps.insert(task, gap);
        }
    }
    Ok(gaps)
}

fn caps_by_name(path: &Path, key: &str, section: &Table) -> Result<CapsByName, ConfigError> {
    let mut by_name = BTreeMap::new();
    for (name, limits) in section {
        let Value::Table(limits) = limits else {
            let expected =
                "a section per name, such as [Scheduler.WorkerCaps.big-box], or [Scheduler.WorkerCaps.\"*\"]";
            return Err(wrong(path, &format!("{key}.{name}"), limits, expected));
        };
        if limits.len() > CAPS_MAX {
            let found = Value::Integer(i64::try_from(limits.len()).unwrap_or(i64::MAX));
            return Err(wrong(path, &format!("{key}.{name}"), &found, "at most 64 limits on one name"));
        }
        let mut caps = TaskCaps::none();
        for (group, most) in limits {
            let parsed: TaskGroup = group.parse().map_err(|_| unknown_key(path, group, &short_codes()))?;
            let number = most.as_integer().and_then(|most| u32::try_from(most).ok());
            let expected = "how many may run at once, a number from 0";
            caps.set(
                parsed,
                number.ok_or_else(|| wrong(path, &format!("{key}.{name}.{group}"), most, expected))?,
            );
        }
        by_name.insert(name.clone(), caps);
    }
    Ok(CapsByName(by_name))
}

fn short_codes() -> Vec<&'static str> {
    TaskType::ALL.iter().map(|task| task.short()).collect()
}

fn unknown_key(path: &Path, key: &str, known: &[&str]) -> ConfigError {
    ConfigError::UnknownKey { path: path.to_owned(), key: key.to_owned(), nearest: nearest(key, known) }
}

pub(super) const SPAN: &str = "a time such as \"250ms\", \"90s\", \"30m\" or \"6h\"";

/// A whole number and its unit.
pub(super) fn span(value: &Value) -> Option<Millis> {
    let text = value.as_str()?.trim();
    let digits = text.len() - text.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
    let unit = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(unit).map(Millis::new)
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn parse(text: &str) -> Result<Scheduling, ConfigError> {
        Config::parse(Path::new("config.toml"), text).map(|config| config.scheduling)
    }

    #[test]
    fn lotus_s_assigners_name_our_policies() {
        for (word, policy) in ASSIGNERS {
            let scheduling = parse(&format!("[Storage]\nAssigner = \"{word}\"")).expect("a known word");
            assert_eq!(scheduling.policy, policy, "{word}");
        }
        let text = parse("[Storage]\nAssigner = \"fastest\"").expect_err("no such word").to_string();
        assert!(text.contains("Assigner = \"fastest\"") && text.contains("experiment-random"), "{text}");
    }

    #[test]
    fn times_and_limits_are_read_per_name() {
        let text = "[Scheduler]\nWaitLimit = \"90s\"\nStagedPerRunning = 0\nShareMachines = false\n\
            [Scheduler.Stagger]\nPC1 = \"5m\"\nAP = \"0s\"\n\
            [Scheduler.WorkerCaps.big]\nPC1 = 3\n\"C2+PC2\" = 1\n[Scheduler.WorkerCaps.\"*\"]\nPC1 = 1\n\
            [Scheduler.MachineCaps.rack-7]\nC2 = 2\n";
        let read = parse(text).expect("a good file");
        assert_eq!((read.wait_limit, read.staged_per_running), (Millis::new(90_000), 0));
        assert!(!read.share_machines);
        assert_eq!(read.stagger, [(TaskType::PreCommit1, Millis::new(300_000))].into());
        let told = |caps: TaskCaps| serde_json::to_string(&caps).expect("JSON");
        assert_eq!(told(read.worker_caps.of("big")), r#"{"PC1":3,"PC2+C2":1}"#);
        assert_eq!(told(read.worker_caps.of("small")), r#"{"PC1":1}"#);
        assert_eq!(told(read.machine_caps.of("rack-7")), r#"{"C2":2}"#);
        assert!(read.machine_caps.of("rack-8").is_empty());
    }

    #[test]
    fn what_means_nothing_is_refused_with_what_would() {
        let told = |text: &str| parse(text).expect_err("a mistake").to_string();
        assert!(told("[Scheduler]\nWaitLimits = \"1h\"").ends_with("did you mean WaitLimit?"));
        assert!(told("[Scheduler]\nWaitLimit = 6").contains("\"6h\""));
        assert!(told("[Scheduler]\nWaitLimit = \"six hours\"").contains("\"6h\""));
        assert!(told("[Scheduler.Stagger]\nPC3 = \"1s\"").contains("unknown key PC3; did you mean PC"));
        assert!(told("[Scheduler.WorkerCaps.a]\nPC1 = -1").contains("WorkerCaps.a.PC1 = -1"));
        assert!(told("[Scheduler.WorkerCaps]\nPC1 = 3").contains("a section per name"));
        assert!(told("[Scheduler]\nStagger = \"1s\"").contains("a section of its own"));
    }
}

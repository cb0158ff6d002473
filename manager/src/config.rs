//! `config.toml` of the manager's repo: the commented defaults written by `init`, and reading it back. Keys are Lotus's.
//! Unknown keys are refused with the nearest known one. Never: environment, flags; `cli` lays those over it.

mod chain;
mod scheduling;
mod sealing;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sealtasks::TaskType;
use toml::{Table, Value};

pub use chain::ChainSettings;
pub(crate) use scheduling::FORGET_LOST_AFTER;
pub use scheduling::{CapsByName, Scheduling};
pub use sealing::Sealing;

/// The file's name in the repo.
pub const FILE_NAME: &str = "config.toml";

/// Written by `init`: every key with its default, commented out.
pub const DEFAULTS: &str = r#"# Sealyard's configuration. A line that begins with '#' shows the default; remove the '#' to change it.

[API]
# Where the manager listens. Workers on other machines need 0.0.0.0:2345, or the address of the right network card.
#ListenAddress = "127.0.0.1:2345"

# The address that workers on other machines reach. Empty: the listen address.
#RemoteListenAddress = ""

# Serve https, and nothing else, with this certificate (PEM, its chain behind it) and its key; both are read again when
# they change. Below this directory paths may be relative. Empty: plain http.
#CertificateFile = ""
#PrivateKeyFile = ""

# Certificate authorities that are believed besides the machine's, when workers and their files are reached by https.
# Read at the start.
#CAFile = ""

[Storage]
# Files fetched at once from other machines.
#ParallelFetchLimit = 10

# Which tasks the manager's own worker takes. It always takes C1, FIN and GET, which cost little.
#AllowAddPiece = true
#AllowPreCommit1 = true
#AllowPreCommit2 = true
#AllowCommit = true
#AllowUnseal = true

# The name of the manager's own worker. Empty: the host's name.
#LocalWorkerName = ""

# How to choose among workers that a task fits on equally well: utilization (the least used), spread (the one that was
# given the fewest tasks), experiment-spread-tasks (the fewest of this type), experiment-spread-qcount (the one that
# holds the fewest), experiment-random.
#Assigner = "utilization"

[Scheduler]
# A task that has waited this long goes first, and a worker is kept for it.
#WaitLimit = "6h"

# Tasks whose files a worker may fetch ahead, per running task.
#StagedPerRunning = 1

# Workers that run on one machine share its memory, CPU threads and GPUs.
#ShareMachines = true

# How often each worker is asked whether it is there; an answer must come within this, or 5 s. A worker that has missed one
# is suspect and gets no tasks, one that has missed six in a row is lost.
#Heartbeat = "10s"

# A Sealyard worker that was lost (it has missed six heartbeats, about a minute) for this long is forgotten, and its tasks are
# queued anew; a result that it brings later is not taken. The same for tasks whose worker has not come back since the
# manager started. "0s": never. A Lotus worker is not forgotten, since it may come back and return what it has: after this time
# its sectors are alerts, as all are with "0s" after 1 h.
#ForgetLostAfter = "1h"

# The least time between two starts of a task type on one worker, so that their peaks do not meet.
[Scheduler.Stagger]
#PC1 = "0s"

# At most so many tasks at once, by the worker's name in a section such as [Scheduler.WorkerCaps.big-box], with lines
# such as PC1=3 and "PC2+C2"=1 (both types together). The name "*" stands for every worker without a section.
# `sealyard workers caps` changes limits while the manager runs.
[Scheduler.WorkerCaps]

# The same for all workers of one machine together, by the machine's name.
[Scheduler.MachineCaps]

[sealing]
# Committed-capacity sectors that are kept in the pipeline, so many of each miner: another is pledged when PC1 has room, space
# holds to Finalize and few wait for an operator. 0: none but by hand. `sealyard sealing why pledge` tells what it waits for.
#keep_in_pipeline = 0

# Where sectors stop that the manager begins, these and those for data: "pc2", "c1", or "" for proving.
#stop_at = ""

# With more sectors than this that wait for an operator nothing is pledged by itself.
#parked_max = 3

# Data that waits to be written into sectors takes at most so much of the repo's disk.
#staging_max_gib = 256

# At most so many sectors in a state at once, by its name: AddPiece, Packing, PreCommit1, PreCommit2, Committing,
# FinalizeSector. 0 or none: no limit.
[sealing.in_flight]

[chain]
# The full node of the chain that `sealyard init` has bound this repo to, as `lotus auth api-info --perm sign` prints it;
# --full-node and FULLNODE_API_INFO go before it.
#full_node = ""

# Whether messages are sent: they move real money. --send-messages does the same.
#send_messages = false

# Sectors in one message, at most, and how long the first of them waits for others; one whose ticket or seed is about to
# expire goes before.
#pre_commit_batch = 256
#pre_commit_wait = "24h"
#prove_commit_batch = 32
#prove_commit_wait = "24h"

# Above this base fee (in FIL for a unit of gas) only sectors go that are about to expire. Empty: at any.
#base_fee_max = ""

# The most that a message's gas may cost for each sector in it, in FIL.
#pre_commit_fee = "0.02"
#prove_commit_fee = "0.03"

# Control addresses that pay before the miner's worker, the first first; the worker pays what they cannot. None: the worker
# alone. One that is not named is never used: it may be kept for window PoSt. With several miners these are all miners': of
# them each miner's messages are paid by its own; one that is no miner's is refused, that of a removed miner left out.
#pre_commit_from = []
#prove_commit_from = []

# How long sectors are to live.
#sector_lifetime_days = 540
"#;

/// What the file says, or the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `HOST:PORT` to listen on.
    pub listen: String,
    /// `HOST:PORT` that other machines reach, if it is another one.
    pub advertise: Option<String>,
    /// A PEM file with the manager's certificate and its chain, below the repo unless absolute.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub private_key: Option<PathBuf>,
    /// Certificate authorities that are believed besides the machine's.
    pub ca_file: Option<PathBuf>,
    /// Files fetched at once.
    pub parallel_fetch_limit: usize,
    /// Tasks that the manager's own worker takes.
    pub local_tasks: BTreeSet<TaskType>,
    /// Its name, if it is not the host's.
    pub local_worker_name: Option<String>,
    /// How work is scheduled.
    pub scheduling: Scheduling,
    /// How the pipeline is filled.
    pub sealing: Sealing,
    /// What is sent to the chain, when, for how much.
    pub chain: ChainSettings,
}

/// Tasks that no switch turns off.
const ALWAYS: [TaskType; 4] =
    [TaskType::Commit1, TaskType::Finalize, TaskType::FinalizeUnsealed, TaskType::Fetch];

/// The switches and what they allow.
const SWITCHES: [(&str, &[TaskType]); 5] = [
    ("AllowAddPiece", &[TaskType::AddPiece, TaskType::DataCid]),
    ("AllowPreCommit1", &[TaskType::PreCommit1]),
    ("AllowPreCommit2", &[TaskType::PreCommit2]),
    ("AllowCommit", &[TaskType::Commit2]),
    ("AllowUnseal", &[TaskType::Unseal]),
];

const API_KEYS: [&str; 5] =
    ["ListenAddress", "RemoteListenAddress", "CertificateFile", "PrivateKeyFile", "CAFile"];
const STORAGE_KEYS: [&str; 8] = [
    "Assigner",
    "ParallelFetchLimit",
    "LocalWorkerName",
    SWITCHES[0].0,
    SWITCHES[1].0,
    SWITCHES[2].0,
    SWITCHES[3].0,
    SWITCHES[4].0,
];

/// More than this at once only makes disks seek.
const FETCHES_MAX: i64 = 1024;

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:2345".to_owned(),
            advertise: None,
            certificate: None,
            private_key: None,
            ca_file: None,
            parallel_fetch_limit: 10,
            local_tasks: SWITCHES
                .iter()
                .flat_map(|(_, tasks)| tasks.iter())
                .chain(&ALWAYS)
                .copied()
                .collect(),
            local_worker_name: None,
            scheduling: Scheduling::default(),
            sealing: Sealing::default(),
            chain: ChainSettings::default(),
        }
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not there, or not readable.
    #[error("MGR030: {} cannot be read", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not TOML.
    #[error("MGR031: {} is not TOML", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A key or section that means nothing here.
    #[error("MGR032: {}: unknown key {key}{}", .path.display(), suggestion(.nearest.as_deref()))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key as written.
        key: String,
        /// What was meant, perhaps.
        nearest: Option<String>,
    },
    /// A value of the wrong kind.
    #[error("MGR033: {}: {key} = {value}; expected {expected}", .path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The value as written.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |nearest| format!("; did you mean {nearest}?"))
}

impl Config {
    /// Reads the repo's file.
    ///
    /// # Errors
    /// Unreadable, not TOML, an unknown key, or a value of the wrong kind.
    pub fn read(repo: &Path) -> Result<Self, ConfigError> {
        let path = repo.join(FILE_NAME);
        let text = std::fs::read_to_string(&path)
            .map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        Self::parse(&path, &text)
    }

    /// Reads a text; `path` is for messages.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let table: Table = text
            .parse()
            .map_err(|source| ConfigError::Syntax { path: path.to_owned(), source: Box::new(source) })?;
        let unknown = |key: &str, known: &[&str]| ConfigError::UnknownKey {
            path: path.to_owned(),
            key: key.to_owned(),
            nearest: nearest(key, known),
        };
        let mut config = Self::default();
        for (name, section) in &table {
            let known: &[&str] = match name.as_str() {
                "API" => &API_KEYS,
                "Storage" => &STORAGE_KEYS,
                "Scheduler" | "sealing" | "chain" => &[],
                _ => return Err(unknown(name, &["API", "Storage", "Scheduler", "sealing", "chain"])),
            };
            let Value::Table(section) = section else {
                return Err(wrong(
                    path,
                    name,
                    section,
                    "a section: [API], [Storage], [Scheduler], [sealing] or [chain]",
                ));
            };
            for (key, value) in section {
                if name == "Scheduler" {
                    config.scheduling.set(path, key, value)?;
                    continue;
                }
                if name == "sealing" {
                    config.sealing.set(path, key, value)?;
                    continue;
                }
                if name == "chain" {
                    config.chain.set(path, key, value)?;
                    continue;
                }
                if !known.contains(&key.as_str()) {
                    return Err(unknown(key, known));
                }
                config.set(path, key, value)?;
            }
        }
        Ok(config)
    }

    /// Takes one known key.
    fn set(&mut self, path: &Path, key: &str, value: &Value) -> Result<(), ConfigError> {
        let text = || value.as_str().map(str::to_owned);
        let filled = |text: String| (!text.is_empty()).then_some(text);
        match key {
            "ListenAddress" => {
                let expected = "a text such as \"127.0.0.1:2345\"";
                self.listen = text().and_then(filled).ok_or_else(|| wrong(path, key, value, expected))?;
            }
            "RemoteListenAddress" => {
                let expected = "a text such as \"10.0.0.5:2345\"";
                self.advertise = filled(text().ok_or_else(|| wrong(path, key, value, expected))?);
            }
            "CertificateFile" | "PrivateKeyFile" | "CAFile" => {
                let file = match key {
                    "CertificateFile" => &mut self.certificate,
                    "PrivateKeyFile" => &mut self.private_key,
                    _ => &mut self.ca_file,
                };
                *file = filled(text().ok_or_else(|| wrong(path, key, value, "a file's path"))?)
                    .map(PathBuf::from);
            }
            "LocalWorkerName" => {
                self.local_worker_name = filled(text().ok_or_else(|| wrong(path, key, value, "a text"))?);
            }
            "Assigner" => self.scheduling.set_assigner(path, value)?,
            "ParallelFetchLimit" => {
                let limit = value.as_integer().filter(|limit| (1..=FETCHES_MAX).contains(limit));
                let limit = limit.and_then(|limit| usize::try_from(limit).ok());
                self.parallel_fetch_limit =
                    limit.ok_or_else(|| wrong(path, key, value, "a number from 1 to 1024"))?;
            }
            switch => {
                let allowed = value.as_bool().ok_or_else(|| wrong(path, key, value, "true or false"))?;
                let tasks =
                    SWITCHES.iter().filter(|(name, _)| *name == switch).flat_map(|(_, tasks)| tasks.iter());
                for task in tasks {
                    if allowed {
                        self.local_tasks.insert(*task);
                    } else {
                        self.local_tasks.remove(task);
                    }
                }
            }
        }
        Ok(())
    }
}

fn wrong(path: &Path, key: &str, value: &Value, expected: &'static str) -> ConfigError {
    ConfigError::Value { path: path.to_owned(), key: key.to_owned(), value: value.to_string(), expected }
}

/// The known key that differs from `key` in the fewest letters, if it is near enough to have been meant.
fn nearest(key: &str, known: &[&str]) -> Option<String> {
    let near = known.iter().map(|candidate| (distance(key, candidate), *candidate)).min()?;
    (near.0 <= candidate_slack(near.1)).then(|| near.1.to_owned())
}

/// A third of the letters may be wrong.
const fn candidate_slack(candidate: &str) -> usize {
    candidate.len().div_ceil(3)
}

/// Letters to change, add or drop, whatever their case.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<_> = other.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (position, letter) in one.to_lowercase().chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], position + 1);
        for (column, theirs) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *theirs);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("config.toml"), text)
    }

    #[test]
    fn the_written_defaults_are_the_defaults_with_or_without_their_comment_signs() {
        assert_eq!(parse(DEFAULTS).expect("the file that init writes"), Config::default());
        let uncommented: Vec<_> = DEFAULTS
            .lines()
            .map(|line| line.strip_prefix('#').filter(|rest| rest.contains(" = ")).unwrap_or(line))
            .collect();
        assert!(uncommented.join("\n").contains("\nAllowPreCommit1 = true"));
        assert_eq!(parse(&uncommented.join("\n")).expect("all keys set"), Config::default());
    }

    #[test]
    fn switches_take_tasks_away() {
        let config = parse("[Storage]\nAllowCommit = false\nParallelFetchLimit = 3").expect("a good file");
        assert!(
            !config.local_tasks.contains(&TaskType::Commit2)
                && config.local_tasks.contains(&TaskType::Commit1)
        );
        assert_eq!(config.parallel_fetch_limit, 3);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_what_can() {
        let text = parse("[Storage]\nAllowPrecomit1 = true").expect_err("a misspelt key").to_string();
        assert!(text.contains("AllowPrecomit1") && text.ends_with("did you mean AllowPreCommit1?"), "{text}");
        let text = parse("[Strage]").expect_err("a misspelt section").to_string();
        assert!(text.ends_with("did you mean Storage?"), "{text}");
        let text = parse("[Storage]\nParallelFetchLimit = 0").expect_err("no fetches").to_string();
        assert!(text.contains("ParallelFetchLimit = 0") && text.contains("1 to 1024"), "{text}");
        assert!(matches!(parse("[Storage"), Err(ConfigError::Syntax { .. })));
    }
}

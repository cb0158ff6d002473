//! What can keep a worker from starting or joining.

pub(crate) use sealtasks::chain;

use rpc::ApiError;
use rpc::versions::VersionError;
use sealtasks::TaskType;
use stores::StoreError;

use crate::journal::JournalError;
use crate::repo::RepoError;

/// Why a worker does not run. The stable code is [`WorkerError::code`].
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The repo cannot be used.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// The journal cannot be used.
    #[error("the journal of calls cannot be used")]
    Journal(#[from] JournalError),
    /// The storage paths cannot be opened.
    #[error("the storage paths cannot be opened")]
    Stores(#[from] StoreError),
    /// A directory of the repo cannot be used.
    #[error("{path}: {source}")]
    Io {
        /// The directory.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A task was asked for that this program cannot do.
    #[error("{task} ({}) is not built into this program; known are {known}", .task.name())]
    NotBuilt {
        /// The task.
        task: TaskType,
        /// Short codes of those that are.
        known: String,
    },
    /// The manager's API is another one.
    #[error(transparent)]
    Version(#[from] VersionError),
    /// The token is wrong or allows too little.
    #[error(
        "the token for the manager at {url} {why}; make one with `sealyard auth create-token --perm worker` there; \
         a Lotus has `lotus-miner auth create-token --perm admin`"
    )]
    Token {
        /// The manager.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The manager answered a question of the handshake with an error.
    #[error("the manager at {url} answered {method} with an error")]
    Handshake {
        /// The manager.
        url: String,
        /// What was asked.
        method: &'static str,
        /// Its answer.
        source: ApiError,
    },
    /// The manager did not take this worker, most often because it cannot dial back.
    #[error("the manager did not take this worker at {address}: {words}")]
    NotTaken {
        /// The address given to the manager.
        address: String,
        /// The manager's words.
        words: String,
    },
    /// It is not the manager that this worker serves, nor its successor.
    #[error("the manager at {url} is {theirs}, and this worker serves {served}: {why}")]
    OtherManager {
        /// The manager.
        url: String,
        /// Which manager it is.
        theirs: String,
        /// Which one this worker serves.
        served: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// One of several managers is another miner's.
    #[error("the manager at {url} is that of f0{theirs}, and this worker seals for f0{ours}")]
    OtherMiner {
        /// The manager.
        url: String,
        /// The miner that this worker seals for.
        ours: u64,
        /// That manager's.
        theirs: u64,
    },
    /// None of several places has the manager now.
    #[error("none of the managers that this worker was told of can be served now")]
    NoManager,
    /// The manager would send this worker what its plans forbid.
    #[error(
        "the manager at {url} knows no plans of workers; start this one without --plan and [[sealing_thread]], or join it to a \
         Sealyard of this version"
    )]
    NoPlans {
        /// The manager.
        url: String,
    },
    /// Executors would run without the limits on memory that were asked for.
    #[error("config.toml limits the memory of executors, which this machine cannot: {0}")]
    NoLimit(String),
    /// The worker was closed meanwhile.
    #[error("the worker is closing")]
    Closed,
}

impl WorkerError {
    /// Stable code for scripts and logs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Repo(_) => "WRK001",
            Self::Journal(_) => "WRK002",
            Self::Stores(_) => "WRK003",
            Self::Io { .. } => "WRK004",
            Self::NotBuilt { .. } => "WRK005",
            // WRK006 was an executor of an earlier life that did not end.
            Self::Version(_) => "WRK007",
            Self::Token { .. } => "WRK008",
            Self::Handshake { .. } => "WRK009",
            Self::NotTaken { .. } => "WRK010",
            Self::Closed => "WRK011",
            Self::OtherManager { .. } => "WRK012",
            Self::OtherMiner { .. } => "WRK013",
            Self::NoManager => "WRK015",
            Self::NoPlans { .. } => "WRK016",
            Self::NoLimit(_) => "WRK017",
        }
    }
}

//! Arguments of `worker run` and its kin: Lotus's flags and environment names, and the 2020 form.

use std::str::FromStr;

use clap::{Args, Subcommand};
use sealtasks::{CapSpec, SealingPlan};

use super::{ExecutorArgs, ListArgs, ModeArgs, TasksCommand, TlsArgs};

/// `sealyard worker`.
#[derive(Debug, Subcommand)]
pub enum WorkerCommand {
    /// Run a worker on this machine.
    Run(Box<WorkerRunArgs>),
    /// Every worker of the manager: what it has in hand, what failed there last.
    #[command(after_help = "Example:\n  sealyard worker list")]
    List(ListArgs),
    /// Start nothing more on a worker, as `workers disable` does; what runs goes on.
    Pause(ModeArgs),
    /// Give a paused worker work again, as `workers enable` does.
    Resume(ModeArgs),
    /// What the worker on this machine is and which settings are in force; with a name, a worker as its manager sees it.
    #[command(after_help = "Examples:\n  sealyard worker info\n  sealyard worker info big-box")]
    Info {
        /// The worker's name, session, URL or host:port, as `worker list` shows them; none: the one on
        /// this machine. A name that several workers have is refused.
        worker: Option<String>,
        /// The worker's repo.
        #[arg(
            long,
            visible_alias = "workerrepo",
            env = "SEALYARD_WORKER_PATH",
            default_value = "~/.sealyardworker",
            value_name = "DIR"
        )]
        worker_repo: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// The resource table in force, as NAME=value lines.
    #[command(after_help = "Example:\n  sealyard worker resources --all")]
    Resources {
        /// Also those that no variable changes.
        #[arg(long)]
        all: bool,
        /// Only the built-in values.
        #[arg(long)]
        default: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Switch tasks of the worker on this machine on or off, until it ends.
    #[command(subcommand, after_help = "Example:\n  sealyard worker tasks disable PC1")]
    Tasks(TasksCommand),
    /// Let the worker finish what it has, detach its paths and end it.
    ///
    /// It takes nothing new meanwhile, and its files are served until then. SIGTERM and Ctrl-C are for restarts: they leave
    /// executors running for the worker that is started next on the same repo, and detach nothing.
    #[command(after_help = "Examples:\n  sealyard worker stop\n  sealyard worker stop --now")]
    Stop {
        /// Do not wait: executors are killed and their tasks given back to the manager, which queues them anew.
        #[arg(long)]
        now: bool,
        /// The worker's repo.
        #[arg(
            long,
            visible_alias = "workerrepo",
            env = "SEALYARD_WORKER_PATH",
            default_value = "~/.sealyardworker",
            value_name = "DIR"
        )]
        worker_repo: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// A task switch: bare (`--precommit1`), or with a value (`--precommit1=false`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskFlag {
    /// Given without a value.
    Bare,
    /// Given with one.
    Set(bool),
}

/// The value clap fills in for a bare flag; not something a person would type.
const BARE: &str = "(bare)";

impl FromStr for TaskFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            BARE => Ok(Self::Bare),
            "true" | "1" => Ok(Self::Set(true)),
            "false" | "0" => Ok(Self::Set(false)),
            other => Err(format!("{other:?} is neither true nor false")),
        }
    }
}

/// `sealyard worker run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sealyard worker run\n  \
    sealyard worker run --precommit1 --precommit2 --commit --address 10.0.0.7:3456\n  \
    sealyard worker run --plan rebuild\n  \
    sealyard worker run --executor all=rehearsal --rehearsal-machine memory=512GiB,cpus=64,gpus=1\n  \
    MINER_API_INFO=eyJ…:/ip4/10.0.0.5/tcp/2345/http sealyard worker run --precommit1=false\n  \
    MINER_API_INFO=eyJ…:/ip4/10.0.0.5/tcp/2345/http,/ip4/10.0.0.6/tcp/2345/http sealyard worker run\n\n\
    Only bare task flags: exactly those tasks, plus GET, C1 and FIN. Any flag with =true or =false, or its \
    environment variable: Lotus's meaning, every task is on unless switched off.")]
pub struct WorkerRunArgs {
    /// The worker's repo.
    #[arg(
        long,
        visible_alias = "workerrepo",
        env = "SEALYARD_WORKER_PATH",
        default_value = "~/.sealyardworker",
        value_name = "DIR"
    )]
    pub worker_repo: String,
    /// The address to listen on.
    #[arg(long, default_value = "0.0.0.0:3456", env = "LOTUS_WORKER_LISTEN", value_name = "HOST:PORT")]
    pub listen: String,
    /// An address the manager can reach: both listened on and advertised.
    #[arg(long, value_name = "HOST:PORT")]
    pub address: Option<String>,
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Make no storage path in the repo.
    #[arg(long, env = "LOTUS_WORKER_NO_LOCAL_STORAGE")]
    pub no_local_storage: bool,
    /// A further manager: where one would take over from the one that MINER_API_INFO names, as API info or bare address. The
    /// worker serves the one that has taken over last.
    #[arg(
        long = "manager",
        value_delimiter = ',',
        env = "SEALYARD_MANAGERS",
        value_name = "API-INFO,…",
        hide_env_values = true
    )]
    pub managers: Vec<String>,
    /// Serve the manager with this id no longer, although no other one took over from it.
    #[arg(long, value_name = "ID")]
    pub leave_manager: Option<uuid::Uuid>,
    /// Count no swap as memory.
    #[arg(long, env = "LOTUS_WORKER_NO_SWAP")]
    pub no_swap: bool,
    /// The worker's name; default: the host's.
    #[arg(long, env = "LOTUS_WORKER_NAME", value_name = "NAME")]
    pub name: Option<String>,
    /// At most this many files are fetched at once.
    #[arg(long, default_value_t = 5, value_name = "N", env = "LOTUS_WORKER_PARALLEL_FETCH_LIMIT",
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub parallel_fetch_limit: u16,
    /// Give up on a manager that has not answered for so long, for example 30m; 0s: wait for ever.
    #[arg(long, default_value = "0s", value_name = "TIME", env = "LOTUS_WORKER_TIMEOUT")]
    pub timeout: String,
    /// Let executors use a GPU where one is compiled in.
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true,
          value_name = "BOOL", action = clap::ArgAction::Set, env = "LOTUS_WORKER_ENABLE_GPU_PROVING")]
    pub enable_gpu_proving: bool,
    /// At most so many tasks at once, for example PC1=3,PC2+C2=1 (both types together).
    #[arg(long, value_delimiter = ',', value_name = "TASKS=N,…", env = "SEALYARD_WORKER_MAX")]
    pub max: Vec<CapSpec>,
    /// The machine it runs on; workers that say the same share its memory, CPU threads and GPUs. Default: told by the
    /// kernel, with the host's name; a container with a memory limit counts as a machine of its own.
    #[arg(long, value_name = "NAME", env = "SEALYARD_MACHINE")]
    pub machine: Option<String>,
    /// Which sectors it takes: sealer (new ones), rebuild (those whose files are lost), any, or none. What has begun there is
    /// finished. Each `[[sealing_thread]]` in the repo's config.toml may have another plan.
    #[arg(long, default_value_t = SealingPlan::Any, value_name = "PLAN", env = "SEALYARD_PLAN")]
    pub plan: SealingPlan,
    #[command(flatten)]
    pub executors: ExecutorArgs,
    /// Never fetch proof parameters.
    #[arg(long)]
    pub no_params_fetch: bool,
    /// Test sizes: generate insecure parameters when they cannot be fetched.
    #[arg(long)]
    pub generate_test_params: bool,
    /// Offer only storage and fetching, unless tasks are named.
    #[arg(long, env = "LOTUS_WORKER_NO_DEFAULT")]
    pub no_default: bool,
    /// End when standard input ends: for programs that start this one and must not leave it behind.
    #[arg(long, hide = true)]
    pub until_stdin_closes: bool,
    /// Which tasks to offer.
    #[command(flatten, next_help_heading = "Tasks")]
    pub tasks: TaskFlags,
}

macro_rules! task_flags {
    ($($field:ident, $env:literal, $help:literal;)*) => {
        /// The task switches.
        #[derive(Debug, Default, Args)]
        pub struct TaskFlags {
            $(
                #[doc = $help]
                // `help` as well: a derive sees a macro's argument only here.
                #[arg(long, help = concat!($help, " [env: ", $env, "]"), num_args = 0..=1, require_equals = true, default_missing_value = BARE, value_name = "BOOL")]
                pub $field: Option<TaskFlag>,
            )*
        }

        impl TaskFlags {
            /// Each switch with its name, its environment variable and what was given on the command line.
            pub fn entries(&self) -> Vec<(&'static str, &'static str, Option<TaskFlag>)> {
                vec![$((stringify!($field), $env, self.$field),)*]
            }
        }
    };
}

task_flags! {
    addpiece, "LOTUS_WORKER_ADDPIECE", "AddPiece (AP), and DataCid unless switched";
    data_cid, "LOTUS_WORKER_DATA_CID", "DataCid (DC); as --addpiece unless given";
    precommit1, "LOTUS_WORKER_PRECOMMIT1", "PreCommit1 (PC1)";
    unseal, "LOTUS_WORKER_UNSEAL", "Unseal (UNS)";
    precommit2, "LOTUS_WORKER_PRECOMMIT2", "PreCommit2 (PC2)";
    commit, "LOTUS_WORKER_COMMIT", "Commit2 (C2)";
    replica_update, "LOTUS_WORKER_REPLICA_UPDATE", "ReplicaUpdate (RU): not built yet, never offered";
    prove_replica_update2, "LOTUS_WORKER_PROVE_REPLICA_UPDATE2", "ProveReplicaUpdate2 (PR2): not built yet, never offered";
    regen_sector_key, "LOTUS_WORKER_REGEN_SECTOR_KEY", "RegenSectorKey (GSK): not built yet, never offered";
    sector_download, "LOTUS_WORKER_SECTOR_DOWNLOAD", "DownloadSector (DL): not built yet, never offered";
    windowpost, "LOTUS_WORKER_WINDOWPOST", "Window PoSt (WDP): not built yet, never offered";
    winningpost, "LOTUS_WORKER_WINNINGPOST", "Winning PoSt (WNP): not built yet, never offered";
}

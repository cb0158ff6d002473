//! Arguments of the commands that control scheduling: modes and limits of workers, priorities, aborts, a worker's tasks.

use clap::{Args, Subcommand};
use sealtasks::CapSpec;

/// `sealyard workers cordon|enable|disable`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sealyard workers cordon big-box\n  sealyard workers disable http://10.0.0.7:3456/rpc/v0\n\
    It holds until another of cordon, drain, disable and enable, also after restarts. The worker goes on to serve its files."
)]
pub struct ModeArgs {
    /// The worker's name, session or URL, as `workers list` shows them.
    pub worker: String,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `sealyard workers drain`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sealyard workers drain big-box --wait\n  sealyard workers drain big-box --json"
)]
pub struct DrainArgs {
    /// The worker's name, session or URL, as `workers list` shows them.
    pub worker: String,
    /// Wait until nothing is left there.
    #[arg(long)]
    pub wait: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `sealyard workers caps`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sealyard workers caps big-box PC1=3 PC2+C2=1\n  \
    sealyard workers caps --machine rack-7 C2=2\n  sealyard workers caps big-box PC1=none PC2+C2=default\n  \
    sealyard workers caps big-box\n\
    PC2+C2=1 limits both together. none: no limit. default: what config.toml says. Lowering a limit ends nothing.")]
pub struct CapsArgs {
    /// The worker's name, session or URL; or, where no worker has it, a machine's name.
    pub name: String,
    /// Limits to set; none: only show those in force.
    #[arg(value_name = "TASKS=N")]
    pub limits: Vec<CapSpec>,
    /// The name is a machine's: the limits hold for all its workers together.
    #[arg(long)]
    pub machine: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `sealyard sealing priority`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sealyard sealing priority 7 1024\n  sealyard sealing priority task:12 -5\n\
    Among tasks of one kind, larger goes first; 0 is where every sector begins. A sector's holds for all its later tasks."
)]
pub struct PriorityArgs {
    /// A sector (7, f01000/7 or s-t01000-7), a task (task:12), an attempt (12.1) or a call's id.
    pub what: String,
    /// The priority.
    #[arg(allow_negative_numbers = true)]
    pub priority: i64,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `sealyard sealing abort`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sealyard sealing abort 5.1\n  sealyard sealing abort 7\n\
    On a Sealyard worker the executor is killed and everything is free. A Lotus worker cannot be told to stop: its result\n\
    is not taken, and what it holds stays charged until it returns.")]
pub struct AbortArgs {
    /// The attempt as `sealing jobs` names it, a task (task:5), a sector or a call's id.
    pub what: String,
    /// Why: kept with the sector, beside who did it.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Do not wait until the executor has ended.
    #[arg(long)]
    pub no_wait: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `sealyard worker tasks`.
#[derive(Debug, Subcommand)]
pub enum TasksCommand {
    /// Offer tasks again.
    #[command(after_help = "Example:\n  sealyard worker tasks enable PC1 PC2")]
    Enable(TasksArgs),
    /// Offer tasks no longer; running ones go on.
    #[command(after_help = "Example:\n  sealyard worker tasks disable PC1")]
    Disable(TasksArgs),
}

/// `sealyard worker tasks enable|disable`. As with Lotus it lasts until the worker ends.
#[derive(Debug, Args)]
pub struct TasksArgs {
    /// Tasks by their short codes: UNS, C2, PC2, PC1, PR2, RU, AP, DC, GSK.
    #[arg(value_name = "TASK", required_unless_present = "all", conflicts_with = "all")]
    pub tasks: Vec<String>,
    /// All of them.
    #[arg(long)]
    pub all: bool,
    /// The worker's repo.
    #[arg(
        long,
        visible_alias = "workerrepo",
        env = "SEALYARD_WORKER_PATH",
        default_value = "~/.sealyardworker",
        value_name = "DIR"
    )]
    pub worker_repo: String,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

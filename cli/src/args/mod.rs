//! The command line: every command, its flags, an example in each `--help`.

mod control;
mod executors;
mod explain;
mod manager;
mod operate;
mod pipelining;
mod proving;
mod repair;
mod simulate;
mod storage;
mod unsealing;
mod worker;

use clap::{Parser, Subcommand};

pub use control::{AbortArgs, CapsArgs, DrainArgs, ModeArgs, PriorityArgs, TasksArgs, TasksCommand};
pub use executors::ExecutorArgs;
pub use explain::{SchedDiagArgs, WhyArgs};
pub use manager::{
    AuthCommand, BackupArgs, InitArgs, MinerAddArgs, MinerRemoveArgs, MinersCommand, Perm, RunArgs, TlsArgs,
};
pub use operate::{ListArgs, ParamsCommand, SealingCommand, SectorsCommand, WorkersCommand};
pub use pipelining::{
    AddPieceArgs, PledgeArgs, RebuildArgs, SectorStateArgs, SectorsListArgs, UpdateStateArgs,
};
pub use proving::{ProvingCheckArgs, ProvingCommand};
pub use repair::{ExportArgs, RepairCommand, RepairRunArgs};
pub use simulate::{SchedulerKind, SimulateArgs};
pub use storage::{
    BalanceArgs, CleanupArgs, DetachArgs, FindArgs, ListWhat, MoveArgs, RedeclareArgs, ScrubArgs,
    StorageAttachArgs, StorageCommand, TransfersArgs,
};
pub use unsealing::{DataCidArgs, ReadPieceArgs, ReleaseUnsealedArgs, UnsealArgs};
pub use worker::{TaskFlag, TaskFlags, WorkerCommand, WorkerRunArgs};

/// Sector-storage manager for Filecoin storage providers: decides which machine runs which sealing task, knows where
/// every sector file lies, moves the files, and loses nothing when machines die.
#[derive(Debug, Parser)]
#[command(name = "sealyard", version, max_term_width = 110, propagate_version = true)]
#[command(
    after_help = "Start here:\n  sealyard dev                      watch two sectors being sealed, no configuration\n  \
    sealyard init --actor t01000      make a manager's repo\n  sealyard run                      start the manager\n\n\
    Exit codes: 0 done, 1 failed, 2 usage, 3 repo, 4 listen address, 5 manager unreachable, 6 token, 7 dial-back, \
    8 version, 9 setting, 10 storage path, 11 parameters, 12 not built, 13 sealing or proof failed, \
    14 nothing is known of what was named, 15 overtaken: another manager counts."
)]
pub struct Cli {
    /// The manager's repo.
    #[arg(long, global = true, env = "SEALYARD_PATH", default_value = "~/.sealyard", display_order = 900,
          visible_aliases = ["miner-repo", "storagerepo"], value_name = "DIR")]
    pub repo: String,
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a manager's repo.
    Init(InitArgs),
    /// Run the manager.
    Run(RunArgs),
    /// The miners whose sectors one manager seals.
    #[command(subcommand, after_help = "Example:\n  sealyard miners add f02000")]
    Miners(MinersCommand),
    /// Copy the manager's repo to a safe place, while it runs.
    Backup(BackupArgs),
    /// Run a worker, or ask one.
    #[command(
        subcommand,
        after_help = "Example:\n  sealyard worker run --precommit1 --address 10.0.0.7:3456"
    )]
    Worker(WorkerCommand),
    /// The workers a manager knows.
    #[command(subcommand, after_help = "Example:\n  sealyard workers list")]
    Workers(WorkersCommand),
    /// Workers, jobs and the scheduler, by Lotus's names.
    #[command(subcommand, after_help = "Example:\n  sealyard sealing jobs")]
    Sealing(SealingCommand),
    /// Storage paths and the files in them.
    #[command(subcommand, after_help = "Example:\n  sealyard storage find 1")]
    Storage(StorageCommand),
    /// Sectors and their lives.
    #[command(subcommand, after_help = "Example:\n  sealyard sectors pledge")]
    Sectors(SectorsCommand),
    /// Tokens and connection strings.
    #[command(subcommand, after_help = "Example:\n  sealyard auth api-info --perm admin")]
    Auth(AuthCommand),
    /// Proof parameters: what is needed, what is there, getting it.
    #[command(subcommand, after_help = "Example:\n  sealyard params status")]
    Params(ParamsCommand),
    /// Run one task as an executor: read a request file, write a report file.
    Exec(ExecArgs),
    /// Seal test sectors here and now: a manager and two workers, nothing to configure.
    Dev(DevArgs),
    /// Plan a cluster's capacity: run a description of it through the scheduler in virtual time.
    Simulate(SimulateArgs),
    /// The miner, its workers and its sectors at a glance.
    #[command(after_help = "Example:\n  sealyard info")]
    Info(ListArgs),
    /// Same as `sectors pledge`.
    Pledge(PledgeArgs),
    /// Same as `storage find`.
    Find(FindArgs),
    /// Whether stored sectors can still be proven.
    #[command(subcommand, after_help = "Example:\n  sealyard proving check --only-bad")]
    Proving(ProvingCommand),
    /// Lost sectors: read from the chain what they are sealed from again.
    #[command(subcommand, after_help = "Example:\n  sealyard repair export --miner f01000 1-100,205")]
    Repair(RepairCommand),
    /// Same as `repair export`.
    Export(ExportArgs),
    /// Same as `repair run`.
    Recover(RepairRunArgs),
    /// Commands by Damocles's names.
    #[command(subcommand, after_help = "Example:\n  sealyard util sealer sectors rebuild f01000 7")]
    Util(UtilCommand),
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  sealyard completions bash > /etc/bash_completion.d/sealyard")]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// The version, and what was compiled in.
    #[command(after_help = "Example:\n  sealyard version --json")]
    Version(ListArgs),
}

/// `sealyard util`.
#[derive(Debug, Subcommand)]
pub enum UtilCommand {
    /// About sealing.
    #[command(subcommand, after_help = "Example:\n  sealyard util sealer sectors list --rebuild")]
    Sealer(UtilSealerCommand),
}

/// `sealyard util sealer`.
#[derive(Debug, Subcommand)]
pub enum UtilSealerCommand {
    /// Same as `sectors`.
    #[command(subcommand, after_help = "Example:\n  sealyard util sealer sectors state f01000 7")]
    Sectors(SectorsCommand),
}

/// `sealyard exec`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Example:\n  sealyard exec pc1 --input request.json --output report.json\n\
    The files are described in proofs/EXECUTORS.md. Piece bytes, where a task takes them, come on descriptor 3.\n\
    Exit codes of its own: 0 done, 1 failed, 2 request refused, 3 no report written.")]
pub struct ExecArgs {
    /// The task: dc, ap, pc1, pc2, c1, c2, fin, fus, uns, verify, scrub or vanilla. Must be what the request says.
    pub task: String,
    /// The request file (JSON).
    #[arg(long, value_name = "FILE")]
    pub input: std::path::PathBuf,
    /// Where the report goes (written whole or not at all).
    #[arg(long, value_name = "FILE")]
    pub output: std::path::PathBuf,
    /// Only play the task, so many times faster than it is; see `worker run --executor`.
    #[arg(long, value_name = "N", value_parser = executors::speed)]
    pub rehearsal_speed: Option<f64>,
    /// How long tasks take in life; see `worker run --rehearsal-profile`.
    #[arg(long, value_name = "FILE", requires = "rehearsal_speed")]
    pub rehearsal_profile: Option<std::path::PathBuf>,
}

/// `sealyard dev`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sealyard dev\n  sealyard dev --sector-size 8MiB --sectors 1 --until c1 --json"
)]
pub struct DevArgs {
    /// How many sectors.
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub sectors: u32,
    /// 2KiB, 8MiB or 512MiB.
    #[arg(long, default_value = "2KiB", value_name = "SIZE")]
    pub sector_size: String,
    /// Stop before Commit2, which needs proof parameters and about a minute.
    #[arg(long, value_name = "TASK", value_parser = ["c1"])]
    pub until: Option<String>,
    /// Work here instead of in a temporary directory.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<std::path::PathBuf>,
    /// Leave everything in place afterwards.
    #[arg(long)]
    pub keep: bool,
    /// Print one JSON document on stdout at the end (schema: cli/dev.schema.json).
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod spelled;

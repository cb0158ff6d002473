//! Arguments of the daily commands: workers, sectors, jobs, params.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use rpc::SectorName;

use super::{
    AbortArgs, AddPieceArgs, CapsArgs, DataCidArgs, DrainArgs, ModeArgs, PledgeArgs, PriorityArgs,
    ReadPieceArgs, RebuildArgs, ReleaseUnsealedArgs, SchedDiagArgs, SectorStateArgs, SectorsListArgs,
    UnsealArgs, UpdateStateArgs, WhyArgs,
};

/// Flags that every listing has.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct ListArgs {
    /// Print JSON on stdout.
    #[arg(long)]
    pub json: bool,
}

/// `sealyard workers`.
#[derive(Debug, Subcommand)]
pub enum WorkersCommand {
    /// Every worker with its tasks and its load.
    #[command(after_help = "Example:\n  sealyard workers list")]
    List(ListArgs),
    /// Print the line to paste on the next machine.
    #[command(after_help = "Example:\n  sealyard workers join-command --tasks precommit1,precommit2")]
    JoinCommand {
        /// Task flags to put into it, for example precommit1,commit.
        #[arg(long, value_delimiter = ',', value_name = "TASK,…")]
        tasks: Vec<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Give a worker no new sectors; it goes on with those that have files there.
    Cordon(ModeArgs),
    /// Have what lives on a worker finished, and nothing else started there.
    Drain(DrainArgs),
    /// Give a worker work again, after cordon, drain or disable.
    Enable(ModeArgs),
    /// Start nothing more on a worker.
    Disable(ModeArgs),
    /// Limit how many tasks run at once on a worker, or on all workers of a machine.
    Caps(CapsArgs),
}

/// `sealyard sealing`.
#[derive(Debug, Subcommand)]
pub enum SealingCommand {
    /// Same as `workers list`.
    #[command(after_help = "Example:\n  sealyard sealing workers")]
    Workers(ListArgs),
    /// Tasks that wait, run or ended lately.
    #[command(after_help = "Example:\n  sealyard sealing jobs --all")]
    Jobs {
        /// Also those that ended.
        #[arg(long, visible_alias = "show-ret-done")]
        all: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Why a sector or a piece of its work does not go on, or nothing is pledged; and what would change it.
    Why(WhyArgs),
    /// What the scheduler holds: the queue in its order, and what each worker has.
    SchedDiag(SchedDiagArgs),
    /// How long tasks took on each worker, and how fast it fetches.
    #[command(after_help = "Example:\n  sealyard sealing durations")]
    Durations(ListArgs),
    /// End an attempt, on its worker too; its sector then waits for `sectors retry`.
    Abort(AbortArgs),
    /// Have a sector's tasks, or one task, go before or after others.
    Priority(PriorityArgs),
    /// The commitment (CID) of a piece of data.
    DataCid(DataCidArgs),
}

/// `sealyard sectors`.
#[derive(Debug, Subcommand)]
pub enum SectorsCommand {
    /// Start a committed-capacity sector.
    Pledge(PledgeArgs),
    /// Give a file to a sector.
    AddPiece(AddPieceArgs),
    /// Seal a sector with the data that it has, without waiting for more.
    #[command(after_help = "Example:\n  sealyard sectors start-seal 7", visible_alias = "seal")]
    StartSeal {
        /// The sector: 7, or with its miner f02000/7.
        number: SectorName,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Put a sector into a state by hand.
    UpdateState(UpdateStateArgs),
    /// All sectors and their states.
    List(SectorsListArgs),
    /// What is known of one sector, by its miner and number.
    State(SectorStateArgs),
    /// One sector.
    #[command(after_help = "Example:\n  sealyard sectors status --log 1")]
    Status {
        /// The sector: 7, or with its miner f02000/7.
        number: SectorName,
        /// Also what happened to it.
        #[arg(long, short)]
        log: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Seal sectors again whose files are lost or bad.
    Rebuild(RebuildArgs),
    /// Try a failed sector again now, or have one go on that has stopped where `stop_at` or `--until` wanted it to.
    #[command(after_help = "Example:\n  sealyard sectors retry 1")]
    Retry {
        /// The sector: 7, or with its miner f02000/7.
        number: SectorName,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Take a sector out for good: its record stays, and its files until `storage cleanup` deletes them.
    #[command(after_help = "Example:\n  sealyard sectors remove --really-do-it 1")]
    Remove {
        /// The sector: 7, or with its miner f02000/7.
        number: SectorName,
        /// Do it: nothing brings the sector back.
        #[arg(long)]
        really_do_it: bool,
        /// Also if the sector is pre-committed or proven on chain, or a message of it on its way there: its deposit is lost, or it
        /// is faulty until it is terminated.
        #[arg(long)]
        although_on_chain: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Have a sector's data unsealed, so that it can be read.
    Unseal(UnsealArgs),
    /// Read data out of a sector, unsealing it first where it has to be.
    ReadPiece(ReadPieceArgs),
    /// Give the disk space of unsealed data back.
    ReleaseUnsealed(ReleaseUnsealedArgs),
}

/// `sealyard params`.
#[derive(Debug, Subcommand)]
pub enum ParamsCommand {
    /// What each sector size needs, what is there, and where.
    #[command(after_help = "Example:\n  sealyard params status 2KiB")]
    Status {
        /// Only this size.
        size: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Fetch the published parameters by HTTP.
    #[command(
        after_help = "Example:\n  sealyard params fetch 32GiB --gateway https://proofs.filecoin.io/ipfs/"
    )]
    Fetch {
        /// The sector size.
        size: String,
        /// Base URL that takes a CID at its end.
        #[arg(long, env = "IPFS_GATEWAY", value_name = "URL")]
        gateway: Option<String>,
        /// How many files at once.
        #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=32))]
        parallel: u16,
        /// Where to; default FIL_PROOFS_PARAMETER_CACHE or /var/tmp/filecoin-proof-parameters.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Generate insecure parameters for a test size: for tests and private networks only.
    #[command(after_help = "Example:\n  sealyard params generate 2KiB")]
    Generate {
        /// 2KiB, 8MiB or 512MiB.
        size: String,
        /// End when standard input ends: for programs that start this one and must not leave it behind.
        #[arg(long, hide = true)]
        until_stdin_closes: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

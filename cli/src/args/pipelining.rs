//! Arguments of the commands that fill and steer the pipeline.

use std::path::PathBuf;

use clap::Args;
use rpc::SectorName;
use sealtasks::ActorId;

/// `sealyard sectors pledge`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sealyard sectors pledge --count 2\n  sealyard sectors pledge --pause\n\
    --pause and --resume are about the sectors that the manager pledges by itself: [sealing] keep_in_pipeline in its\n\
    config.toml. `sealyard sealing why pledge` tells what the next one waits for.")]
pub struct PledgeArgs {
    /// How many.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub count: u32,
    /// Whose they are; default: the first miner's.
    #[arg(long, value_name = "ADDRESS")]
    pub miner: Option<ActorId>,
    /// Rest after Commit1.
    #[arg(long, value_name = "TASK", value_parser = ["c1"])]
    pub until: Option<String>,
    /// A sector of this size, where it is not the miner's: for tests without a chain.
    #[arg(long, value_name = "SIZE")]
    pub sector_size: Option<String>,
    /// The manager pledges no more by itself; also over restarts.
    #[arg(long, conflicts_with_all = ["count", "until", "sector_size", "miner", "resume"])]
    pub pause: bool,
    /// It does again.
    #[arg(long, conflicts_with_all = ["count", "until", "sector_size", "miner"])]
    pub resume: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `sealyard sectors add-piece`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sealyard sectors add-piece deal.car\n  sealyard sectors add-piece --sector 7 deal.car --json\n\
    The piece is as large as the next power of two holds; its rest is zeros. Without --sector it goes\n\
    to a sector that waits for data and has room, or to a new one. A full sector starts by itself,\n\
    `sealyard sectors start-seal` starts one that is not full."
)]
pub struct AddPieceArgs {
    /// The file.
    pub file: PathBuf,
    /// The sector that it goes to.
    #[arg(long, value_name = "NUMBER")]
    pub sector: Option<SectorName>,
    /// Whose sector it goes to, without --sector; default: the first miner's.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "sector")]
    pub miner: Option<ActorId>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `sealyard sectors update-state`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sealyard sectors update-state --really-do-it 7 PreCommit1\n\
    A sector is put back, never forward: it does again what comes behind. What would lose a proof that is on chain, or needs\n\
    what is not there any more, is refused.")]
pub struct UpdateStateArgs {
    /// The sector: 7, or with its miner f02000/7.
    pub number: SectorName,
    /// The state, as `sealyard sectors list` names it.
    pub state: String,
    /// Without it nothing is done.
    #[arg(long)]
    pub really_do_it: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `sealyard sectors rebuild`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sealyard sectors rebuild --parallel 4 1-100\n  sealyard sectors rebuild f02000 7 9\n\
    From the manager's own record: the old ticket, and the old CommR or nothing. A sector with data is sealed from its unsealed\n\
    file where one is left, else from its pieces: --piece CID=FILE or CID=URL, once for each. What is missing is named.\n\
    What seems whole is proven first: where it is good, or its host is away, nothing is done; bad files are set aside.\n\
    The manager's chain is asked first: one that was snapped (CHN11), has another CommR there (CHN12) or is over (CHN13) is\n\
    refused by name. Exit code 1 if one of the sectors is not back; the others are sealed all the same.\n\
    `sealyard repair run` does it from a file."
)]
pub struct RebuildArgs {
    /// Sector numbers and ranges, behind the miner (f02000 1-100) where it is not the manager's first, or f02000/7.
    #[arg(required = true, value_name = "NUMBERS")]
    pub numbers: Vec<String>,
    /// Sectors under way at once.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub parallel: u32,
    /// Where the data of a piece is, by the piece's CID.
    #[arg(long = "piece", value_name = "CID=FILE|URL")]
    pub pieces: Vec<String>,
    /// Print what came of each sector as one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// `sealyard sectors list`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sealyard sectors list\n  sealyard sectors list --rebuild --sealing=false\n\
    Without flags every sector is listed. With one of them those under way: those that are sealed, and with --rebuild those\n\
    that are sealed again. --offline lists those that are through instead."
)]
pub struct SectorsListArgs {
    /// Those that are sealed again.
    #[arg(long)]
    pub rebuild: bool,
    /// Those that are sealed for the first time.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value_t = true, default_missing_value = "true",
          action = clap::ArgAction::Set)]
    pub sealing: bool,
    /// Those that are through, instead of those under way.
    #[arg(long)]
    pub offline: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `sealyard sectors state`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sealyard sectors state f01000 7")]
pub struct SectorStateArgs {
    /// The miner.
    #[arg(value_name = "ADDRESS")]
    pub miner: String,
    /// The sector's number.
    pub number: u64,
    /// Only if it is through; one under way is refused.
    #[arg(long)]
    pub offline: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

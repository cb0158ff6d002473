//! `repair …`: sectors whose files are lost.

use std::path::PathBuf;

use clap::Subcommand;
use sealtasks::ActorId;

/// `sealyard repair`.
#[derive(Debug, Subcommand)]
pub enum RepairCommand {
    /// Read from the chain what lost sectors are sealed from again.
    Export(ExportArgs),
    /// Seal lost sectors again: on this machine alone, or spread over the workers of the running manager.
    #[command(visible_alias = "recover")]
    Run(RepairRunArgs),
}

/// `sealyard repair run` and `sealyard recover`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    sealyard repair run --metadata sectors-recovery-f01000.json --sealing-temp /nvme/temp --sealing-result /hdd/sector 7\n  \
    sealyard repair run --manager --metadata sectors-recovery-f01000.json --parallel 4 1-100\n  \
    sealyard repair run --miner f01000 --precommit-json body.json\n\n\
    Without --manager it needs no manager and no chain: it seals in --sealing-temp and stores in --sealing-result. If\n\
    FULLNODE_API_INFO is set, that node is asked first, as a manager asks its own: a sector that was snapped (CHN11), has\n\
    another CommR on chain (CHN12) or is over (CHN13) is refused by name, and the others go on. Each\n\
    sector is sealed again from its old ticket and believed only with the old CommR; then it is finalized and stored like\n\
    any other. Started again after a crash it goes on. A sector with pieces needs --piece for each. Exit code 1 if one of\n\
    the sectors is not back, refused ones included; each is named with the reason.\n\n\
    --precommit-json takes the body of a PreCommit message, as explorers and `lotus` print it, or a list of them, and asks the\n\
    full node of FULLNODE_API_INFO, which need not be an archival one, for the rest.")]
pub struct RepairRunArgs {
    /// What `repair export` or filecoin-sealer-recover wrote.
    #[arg(long, visible_aliases = ["metadata", "recovery"], value_name = "FILE",
          required_unless_present = "precommit_json")]
    pub sectors_recovery_metadata: Option<PathBuf>,
    /// Instead of that the printed body of the PreCommit message.
    #[arg(long, value_name = "FILE", requires = "miner", conflicts_with = "sectors_recovery_metadata")]
    pub precommit_json: Option<PathBuf>,
    /// Whose sectors these are, which a body does not say.
    #[arg(long, value_name = "ADDRESS", requires = "precommit_json")]
    pub miner: Option<ActorId>,
    /// Do not wait until the full node is where its network is, if one is asked.
    #[arg(long)]
    pub nosync: bool,
    /// Have the running manager do it, with its workers and its paths.
    #[arg(long)]
    pub manager: bool,
    /// Where the sectors go.
    #[arg(long, value_name = "DIR", default_value = "~/sector", conflicts_with = "manager")]
    pub sealing_result: String,
    /// Where they are sealed, and where another start finds what is under way.
    #[arg(long, value_name = "DIR", default_value = "~/temp", conflicts_with = "manager")]
    pub sealing_temp: String,
    /// Seconds between the beginnings of two sectors; default 600 for 32GiB and 64GiB, else 0.
    #[arg(long, value_name = "SECONDS")]
    pub stagger: Option<u64>,
    /// Sectors under way at once.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub parallel: u32,
    /// Where the data of a piece is, by the piece's CID.
    #[arg(long = "piece", value_name = "CID=FILE|URL")]
    pub pieces: Vec<String>,
    /// Sector numbers and ranges; default: all that the file has.
    #[arg(value_name = "NUMBERS")]
    pub numbers: Vec<String>,
    /// Print what came of each sector as one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// `sealyard repair export`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  export FULLNODE_API_INFO=eyJ…:/ip4/10.0.0.1/tcp/1234/http\n  \
    sealyard repair export --miner f01000 1 2 3\n  sealyard repair export --miner f01000 1-100,205\n\n\
    Writes sectors-recovery-f01000.json, in the form that filecoin-sealer-recover writes and reads, and for sectors with \
    deals their pieces. An older file of that name is replaced; if no sector can be read it stays. The node's state must \
    reach back to the sectors' activation: an archival node is best. Exit code 1 if a sector is not in the file; each is \
    named with the reason.")]
pub struct ExportArgs {
    /// Whose sectors.
    #[arg(long, value_name = "ADDRESS")]
    pub miner: String,
    /// Sector numbers and ranges.
    #[arg(required = true, value_name = "NUMBERS")]
    pub numbers: Vec<String>,
    /// Write here instead.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Do not wait until the full node is where its network is.
    #[arg(long)]
    pub nosync: bool,
    /// Print what was exported and what was not as one JSON document.
    #[arg(long)]
    pub json: bool,
}

//! Arguments of the commands about proving.

use clap::{Args, Subcommand};
use rpc::SectorName;
use sealtasks::CHALLENGES;

/// `sealyard proving`.
#[derive(Debug, Subcommand)]
pub enum ProvingCommand {
    /// Have the hosts that hold sectors prove them, at random challenges.
    Check(ProvingCheckArgs),
}

/// `sealyard proving check`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sealyard proving check\n  sealyard proving check --only-bad --json 7 8\n\
    Looked at are the lengths of the sealed file, p_aux and every file of tree-r-last, whether p_aux belongs to CommR, and a real\n\
    vanilla proof, made where the files lie, of challenges that nobody knew before. Sectors of 2 KiB and 8 MiB are challenged\n\
    everywhere, larger ones at --challenges leaves: `sealyard storage scrub` reads every byte. Nothing is fetched, changed or\n\
    sent to a chain. A sector that is being worked on is locked; where no host is reached, or its path is not mounted, the path\n\
    is away; where nobody could tell, or its files lie on different hosts, it is unknown. None of these is a fault.\n\
    Exit codes: 0 all that was checked is good, locked or not sealed yet; 13 a sector cannot be proven, or is on chain and in no\n\
    path; 14 no such sector, no such path, or nothing of a named sector in it; 1 paths are away, sectors unknown, or the full\n\
    node does not answer."
)]
pub struct ProvingCheckArgs {
    /// The sectors, each 7 or with its miner f02000/7; default: all that have a replica.
    pub sectors: Vec<SectorName>,
    /// Show only what cannot be proven.
    #[arg(long)]
    pub only_bad: bool,
    /// Only sectors with a sealed file or a cache in this storage path.
    #[arg(long, value_name = "ID")]
    pub storage_id: Option<sealtasks::StorageId>,
    /// Leaves that are challenged in each large sector, up to 4096.
    #[arg(long, default_value_t = CHALLENGES, value_name = "N")]
    pub challenges: usize,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

//! `repair …`: sectors whose files are lost.

use std::path::PathBuf;

use clap::Subcommand;

/// `sealyard repair`.
#[derive(Debug, Subcommand)]
pub enum RepairCommand {
    /// Read from the chain what lost sectors are sealed from again.
    Export(ExportArgs),
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

//! Arguments of the commands about unsealed data.

use std::path::PathBuf;

use clap::Args;
use rpc::SectorName;
use sealtasks::{UnpaddedOffset, UnsealedRange};

/// `sealyard sectors unseal`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sealyard sectors unseal 7\n  sealyard sectors unseal 7 --no-wait --json\n\
    The whole sector is unsealed: a part takes as long. Two who ask share one task.\n\
    Exit codes: 13 it cannot be or it failed, 14 no such sector."
)]
pub struct UnsealArgs {
    /// The sector: 7, or with its miner f02000/7.
    pub number: SectorName,
    /// Return as soon as the task is there.
    #[arg(long)]
    pub no_wait: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `sealyard sectors read-piece`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sealyard sectors read-piece 7 --offset 1016 --size 1016 --output piece.car\n  \
    sealyard sectors read-piece 7 --output - | sha256sum\n\
    Offsets and sizes are raw bytes and need not fall on a boundary. What is not unsealed is\n\
    unsealed first, on a worker that runs with --unseal.\n\
    Exit codes: 13 it is not unsealed, and was not to be or could not be; 14 no such sector."
)]
pub struct ReadPieceArgs {
    /// The sector: 7, or with its miner f02000/7.
    pub number: SectorName,
    /// First raw byte.
    #[arg(long, default_value_t = 0, value_name = "BYTES")]
    pub offset: u64,
    /// Raw bytes; up to the sector's end without it.
    #[arg(long, value_name = "BYTES")]
    pub size: Option<u64>,
    /// The file to write; - is standard output.
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// Fail instead of unsealing.
    #[arg(long)]
    pub no_unseal: bool,
    /// Print JSON about it; not with --output -.
    #[arg(long)]
    pub json: bool,
}

/// `sealyard sectors release-unsealed`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sealyard sectors release-unsealed 7 --keep 0:1016 --keep 8128:4064\n  \
    sealyard sectors release-unsealed 7 --all\n\
    Only data of sectors that are sealed and whose replica is known is released. Offsets and sizes\n\
    are multiples of 127.\n\
    Exit codes: 13 it is kept or the release failed, 14 no such sector.",
    group = clap::ArgGroup::new("what").required(true).args(["keep", "all"]))]
pub struct ReleaseUnsealedArgs {
    /// The sector: 7, or with its miner f02000/7.
    pub number: SectorName,
    /// Raw bytes to keep (may be repeated).
    #[arg(long, value_name = "OFFSET:SIZE", value_parser = range)]
    pub keep: Vec<UnsealedRange>,
    /// Keep nothing: every unsealed copy goes.
    #[arg(long)]
    pub all: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `sealyard sealing data-cid`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sealyard sealing data-cid deal.car\n  sealyard sealing data-cid deal.car 34359738368\n  \
    sealyard sealing data-cid https://host/deal.car 32GiB\n  \
    zstdcat deal.car.zst | sealyard sealing data-cid - 32GiB\n\
    Computed on this machine, with all its cores. What is shorter than the piece goes on with zeros;\n\
    what is shorter than --file-size, or than the server says, is an error."
)]
pub struct DataCidArgs {
    /// The file, or an http:// or https:// URL; - is standard input.
    pub file: PathBuf,
    /// The piece's padded size, such as 32GiB or a number of bytes, a power of two; without it, the smallest that holds
    /// the file.
    #[arg(value_name = "PADDED-SIZE")]
    pub padded_size: Option<String>,
    /// Take only this many bytes of the file; 0: all of it. For a stream, how long it is.
    #[arg(long, default_value_t = 0, value_name = "BYTES")]
    pub file_size: u64,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

fn range(text: &str) -> Result<UnsealedRange, String> {
    let (offset, size) = text.split_once(':').ok_or("expected OFFSET:SIZE in raw bytes, such as 0:1016")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
    let offset = UnpaddedOffset::try_from(number(offset)?).map_err(|error| error.to_string())?;
    Ok(UnsealedRange { offset, size: number(size)? })
}

//! Arguments of `storage …`.

use clap::{Args, Subcommand};
use rpc::SectorName;

use super::ListArgs;

/// `sealyard storage`.
#[derive(Debug, Subcommand)]
pub enum StorageCommand {
    /// Open a storage path on a manager or a worker, and with --init make it first.
    Attach(StorageAttachArgs),
    /// Close a storage path. Its files stay.
    Detach(DetachArgs),
    /// Scan storage paths and tell the index what lies there; the difference is shown first.
    Redeclare(RedeclareArgs),
    /// Every path with its space, its use and what it holds; `list sectors` shows every file.
    List(StorageListArgs),
    /// Where a sector's files are.
    Find(FindArgs),
    /// Who reads and writes which files.
    #[command(after_help = "Example:\n  sealyard storage locks")]
    Locks(ListArgs),
    /// Move a sector's files into a path.
    Move(MoveArgs),
    /// Even out how full the paths for storing are: shows a plan, and acts on it with --really-do-it.
    Balance(BalanceArgs),
    /// What is being downloaded where, how fast and how much longer; and how much it may use.
    Transfers(TransfersArgs),
    /// Compute sectors' commitments again from their files on this host and compare them with the records.
    Scrub(ScrubArgs),
    /// What lies in the paths and should not: shows it, and deletes what is offered with --really-do-it.
    Cleanup(CleanupArgs),
}

/// `sealyard storage attach`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sealyard storage attach --init --store /mnt/long-term\n  \
    sealyard storage attach --init --seal --worker-repo ~/.sealyardworker /mnt/nvme\n  \
    sealyard storage attach --init --seal --worker big-box /mnt/nvme")]
pub struct StorageAttachArgs {
    /// The directory; with --worker on that worker's host.
    pub path: String,
    /// Make it a storage path first (writes sectorstore.json).
    #[arg(long)]
    pub init: bool,
    /// Preference among paths; 0 = read-only.
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub weight: u64,
    /// Sealing may use it.
    #[arg(long)]
    pub seal: bool,
    /// Finished sectors may live here.
    #[arg(long)]
    pub store: bool,
    /// The most it may hold, for example 10TiB.
    #[arg(long, value_name = "SIZE")]
    pub max_storage: Option<String>,
    /// What new files leave free on its file system, for example 50GiB (kept in sealyard.json beside sectorstore.json).
    #[arg(long, value_name = "SIZE")]
    pub keep_free: Option<String>,
    /// A group it belongs to (may be repeated).
    #[arg(long, value_name = "GROUP")]
    pub groups: Vec<String>,
    /// A group its files may be fetched into (may be repeated).
    #[arg(long, value_name = "GROUP")]
    pub allow_to: Vec<String>,
    /// Open it on the worker with this repo instead of on the manager.
    #[arg(long, visible_alias = "workerrepo", value_name = "DIR", conflicts_with = "worker")]
    pub worker_repo: Option<String>,
    /// Open it on the connected Sealyard worker with this name, session or URL.
    #[arg(long, value_name = "WORKER")]
    pub worker: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `sealyard storage detach`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sealyard storage detach --really-do-it /mnt/long-term\n  \
    sealyard storage detach --really-do-it --id 7c1f…")]
pub struct DetachArgs {
    /// The directory; with --worker on that worker's host.
    #[arg(required_unless_present = "id")]
    pub path: Option<String>,
    /// The id of a path that nobody serves any more: the manager forgets it, and what it remembers to lie there.
    #[arg(long, value_name = "ID", conflicts_with_all = ["path", "worker"])]
    pub id: Option<String>,
    /// Do it, not only say what it means.
    #[arg(long)]
    pub really_do_it: bool,
    /// On the connected Sealyard worker with this name, session or URL.
    #[arg(long, value_name = "WORKER")]
    pub worker: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `sealyard storage redeclare`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sealyard storage redeclare --id 7c1f… --dry-run\n  \
    sealyard storage redeclare --all --drop-missing=false")]
pub struct RedeclareArgs {
    /// The directory, one of the manager's.
    pub path: Option<String>,
    /// The path's id, the manager's or a Sealyard worker's.
    #[arg(long, value_name = "ID", conflicts_with = "path")]
    pub id: Option<String>,
    /// All paths of the manager, or of the worker named.
    #[arg(long, conflicts_with_all = ["path", "id"])]
    pub all: bool,
    /// Take out of the index what does not lie there any more.
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub drop_missing: bool,
    /// Only show the difference.
    #[arg(long)]
    pub dry_run: bool,
    /// With --all: the paths of the connected Sealyard worker with this name, session or URL.
    #[arg(long, value_name = "WORKER", requires = "all")]
    pub worker: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `sealyard storage list`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sealyard storage list\n  sealyard storage list sectors",
    args_conflicts_with_subcommands = true
)]
pub struct StorageListArgs {
    /// What of them.
    #[command(subcommand)]
    pub what: Option<ListWhat>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `sealyard storage list …`.
#[derive(Debug, Subcommand)]
pub enum ListWhat {
    /// Every file of every sector in every path.
    #[command(after_help = "Example:\n  sealyard storage list sectors")]
    Sectors(ListArgs),
}

/// `sealyard storage find`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sealyard storage find 1")]
pub struct FindArgs {
    /// The sector: 7, or with its miner f02000/7.
    pub number: SectorName,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `sealyard storage move`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sealyard storage move 1 7c1f…\n  sealyard storage move --types unsealed 1 /mnt/archive"
)]
pub struct MoveArgs {
    /// The sector: 7, or with its miner f02000/7.
    pub number: SectorName,
    /// The path: its id, or its directory if it is one of the manager's.
    pub to: String,
    /// Only these files; default: all there are.
    #[arg(long, value_delimiter = ',', value_name = "TYPE,…")]
    pub types: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `sealyard storage balance`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sealyard storage balance\n  sealyard storage balance --moves 10 --really-do-it"
)]
pub struct BalanceArgs {
    /// At most so many moves.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub moves: u32,
    /// Paths that differ by less than this many percent are even enough.
    #[arg(long, default_value_t = 5, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=50))]
    pub tolerance: u8,
    /// Do it, not only show the plan.
    #[arg(long)]
    pub really_do_it: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `sealyard storage cleanup`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sealyard storage cleanup\n  sealyard storage cleanup --worker big-box --really-do-it"
)]
pub struct CleanupArgs {
    /// The paths of the connected Sealyard worker with this name, session or URL; default: the manager's.
    #[arg(long, value_name = "WORKER")]
    pub worker: Option<String>,
    /// Delete what is offered, not only show it.
    #[arg(long)]
    pub really_do_it: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `sealyard storage transfers`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sealyard storage transfers\n  sealyard storage transfers --limit 500MiB\n  \
    sealyard storage transfers --worker big-box --limit none --parallel 4\n\
    Files are downloaded by the process that gets them. What is set holds at once, running downloads included, and \
    after restarts of that process, whatever its own settings say. Lotus workers tell nothing."
)]
pub struct TransfersArgs {
    /// Only the connected Sealyard worker with this name, session or URL, or `manager`; default: all.
    #[arg(long, value_name = "WORKER")]
    pub worker: Option<String>,
    /// The most bytes per second that one process downloads, for example 500MiB, at least 1MiB; `none` = no limit.
    #[arg(long, value_name = "SIZE")]
    pub limit: Option<String>,
    /// The most files that one process downloads at once.
    #[arg(long, value_name = "N")]
    pub parallel: Option<usize>,
    /// Connections per file, from the next one on, between Sealyards.
    #[arg(long, value_name = "N")]
    pub streams: Option<usize>,
    /// Whether every block's hash is compared.
    #[arg(long, value_name = "BOOL", num_args = 1)]
    pub verify: Option<bool>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `sealyard storage scrub`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sealyard storage scrub 1 2\n  sealyard storage scrub --results\n  sealyard storage scrub --dir \
    /mnt/long-term\n\
    CommD is computed from unsealed files, CommR from sealed ones: tree-r-last is built anew from the replica and \
    combined with CommC of the cache. The workers that hold the files do it, at low priority and one sector after another; \
    what they find is kept. Files of sectors that are being worked on are left out."
)]
pub struct ScrubArgs {
    /// The sectors, each 7 or with its miner f02000/7; default: all.
    pub sectors: Vec<SectorName>,
    /// Only show what was last found of each file, and when.
    #[arg(long, conflicts_with_all = ["dir", "work"])]
    pub results: bool,
    /// Have this process look at the files in a directory of this host; nothing is kept of what it finds.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<String>,
    /// Where trees are built for the comparison, with --dir; default: the temporary directory.
    #[arg(long, value_name = "DIR", requires = "dir")]
    pub work: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

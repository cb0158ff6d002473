//! Arguments of `init`, `run` and `auth`.

use clap::{Args, Subcommand, ValueEnum};

use sealtasks::ActorId;

use super::{ExecutorArgs, ListArgs};

/// `sealyard init`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  sealyard init --actor t01000 --sector-size 2KiB\n  \
    sealyard init --actor t01000 --sector-size 32GiB --rehearsal")]
pub struct InitArgs {
    /// The miner actor, for example f01000.
    #[arg(long, short, value_name = "ADDRESS")]
    pub actor: String,
    /// Default: what the chain says, without one 2KiB. Without a chain 2KiB, 8MiB or 512MiB; 32GiB and 64GiB need one.
    #[arg(long, value_name = "SIZE")]
    pub sector_size: Option<String>,
    #[command(flatten)]
    pub node: NodeArgs,
    /// Make no storage path in the repo.
    #[arg(long)]
    pub no_local_storage: bool,
    /// All sectors of this manager will be a REHEARSAL, for ever: of any size, with empty files, for no chain. Its workers
    /// are started with --executor all=rehearsal.
    #[arg(long)]
    pub rehearsal: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Lotus: the owner's key. An actor is made on chain, which Sealyard does not do.
    #[arg(long, hide = true)]
    pub owner: Option<String>,
    /// Lotus: the worker's key.
    #[arg(long, hide = true)]
    pub worker: Option<String>,
    /// Lotus: first miner of a new network.
    #[arg(long, hide = true)]
    pub genesis_miner: bool,
    /// Lotus: sectors sealed before the network started.
    #[arg(long, hide = true)]
    pub pre_sealed_sectors: Vec<String>,
}

/// `sealyard miners`.
#[derive(Debug, Subcommand)]
pub enum MinersCommand {
    /// Serve another miner, from the manager's next start on.
    Add(MinerAddArgs),
    /// Serve an added miner no longer, while there is no sector of it, from the manager's next start on.
    Remove(MinerRemoveArgs),
    /// The miners that the manager serves, the one that it was made for first.
    #[command(after_help = "Example:\n  sealyard miners list")]
    List(ListArgs),
}

/// `sealyard miners add`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sealyard miners add f02000\n\
    The manager must not run meanwhile. The miner is of the repo's chain and has sectors of the same size. All its sectors are\n\
    named with it, f02000/7, and so are then the first miner's where a number alone could mean either.")]
pub struct MinerAddArgs {
    /// The miner actor.
    #[arg(value_name = "ADDRESS")]
    pub miner: ActorId,
    #[command(flatten)]
    pub node: NodeArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `sealyard miners remove`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  sealyard miners remove f02000\n\
    The manager must not run meanwhile. A miner with sectors, removed ones too, or messages stays: its numbers are used up.")]
pub struct MinerRemoveArgs {
    /// The miner actor.
    #[arg(value_name = "ADDRESS")]
    pub miner: ActorId,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// The chain of `init`, `run` and `miners add`.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// The full node of the chain, as `lotus auth api-info --perm sign` prints it. `init` binds the repo to its network, for
    /// ever; without one the repo is for no chain.
    #[arg(long, value_name = "TOKEN:ADDRESS", env = "FULLNODE_API_INFO", hide_env_values = true)]
    pub full_node: Option<String>,
    /// No chain, whatever FULLNODE_API_INFO says.
    #[arg(long)]
    pub offline: bool,
    /// Do not wait until the full node is synced.
    #[arg(long)]
    pub nosync: bool,
}

/// `sealyard run`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sealyard run\n  sealyard run --listen 0.0.0.0:2345 --advertise 10.0.0.5:2345\n  \
                  sealyard run --from-backup /mnt/backup"
)]
pub struct RunArgs {
    /// Listen on this port of the default address (Lotus's form of --listen).
    #[arg(long, visible_alias = "miner-api", value_name = "PORT")]
    pub api: Option<u16>,
    /// The address to listen on. Default 127.0.0.1:2345; workers on other machines need 0.0.0.0:2345.
    #[arg(long, value_name = "HOST:PORT", env = "SEALYARD_LISTEN")]
    pub listen: Option<String>,
    /// The address that workers on other machines reach.
    #[arg(long, value_name = "HOST:PORT", env = "SEALYARD_ADVERTISE")]
    pub advertise: Option<String>,
    #[command(flatten)]
    pub tls: TlsArgs,
    /// Let executors use a GPU where one is compiled in.
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true,
          value_name = "BOOL", action = clap::ArgAction::Set)]
    pub enable_gpu_proving: bool,
    /// Take over from a manager that is lost: make the repo from the newest whole backup in this directory, then run.
    /// The lost manager must not be started again.
    #[arg(long, value_name = "DIR")]
    pub from_backup: Option<std::path::PathBuf>,
    #[command(flatten)]
    pub executors: ExecutorArgs,
    #[command(flatten)]
    pub node: NodeArgs,
    /// Send messages to the chain; without it what would be sent is shown. Messages move real money.
    #[arg(long)]
    pub send_messages: bool,
    /// End when standard input ends: for programs that start this one and must not leave it behind.
    #[arg(long, hide = true)]
    pub until_stdin_closes: bool,
}

/// `sealyard backup`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sealyard backup /mnt/backup --follow\n  sealyard backup /mnt/backup --list\n  \
    MINER_API_INFO=eyJ…:/ip4/10.0.0.5/tcp/2345/http sealyard backup --from env /srv/backup --follow\n\n\
    A backup holds the durable state, the token secret, the configuration and data that waits for sectors; never sector \
    files. It is made while the manager runs. Take over from it with `sealyard run --from-backup /mnt/backup`."
)]
pub struct BackupArgs {
    /// Where backups are kept: another disk, or a directory of another host that is mounted here.
    #[arg(value_name = "DIR")]
    pub target: std::path::PathBuf,
    /// Fetch it from a manager on another host: what `sealyard auth api-info --perm admin` prints there, or `env` for what
    /// MINER_API_INFO says.
    #[arg(long, value_name = "API-INFO", conflicts_with = "list")]
    pub from: Option<String>,
    /// Go on: make a backup whenever something has changed.
    #[arg(long)]
    pub follow: bool,
    /// With --follow: how long to wait between two looks.
    #[arg(long, value_name = "DURATION", default_value = "5s", requires = "follow")]
    pub every: String,
    /// Make none: check and show those that are there.
    #[arg(long, conflicts_with = "follow")]
    pub list: bool,
    /// Print JSON; with --follow one line for each backup.
    #[arg(long)]
    pub json: bool,
}

/// Certificate files of `run` and `worker run`.
#[derive(Debug, Args)]
pub struct TlsArgs {
    /// Serve https, and nothing else, with this certificate (PEM, its chain behind it); read again when it changes.
    #[arg(long, value_name = "FILE", env = "SEALYARD_TLS_CERT")]
    pub tls_cert: Option<String>,
    /// The private key of --tls-cert.
    #[arg(long, value_name = "FILE", env = "SEALYARD_TLS_KEY")]
    pub tls_key: Option<String>,
    /// Certificate authorities (PEM) believed besides the machine's; read at the start.
    #[arg(long, value_name = "FILE", env = "SEALYARD_CA_FILE")]
    pub ca_file: Option<String>,
}

/// `sealyard auth`.
#[derive(Debug, Subcommand)]
pub enum AuthCommand {
    /// Mint a token.
    #[command(after_help = "Example:\n  sealyard auth create-token --perm worker")]
    CreateToken {
        /// What it allows; each level includes the ones before it.
        #[arg(long, value_enum)]
        perm: Perm,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the MINER_API_INFO line for another machine.
    #[command(after_help = "Example:\n  sealyard auth api-info --perm worker")]
    ApiInfo {
        /// What its token allows.
        #[arg(long, value_enum)]
        perm: Perm,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// A permission level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Perm {
    /// Look.
    Read,
    /// Look and start.
    Write,
    /// And sign.
    Sign,
    /// Everything; what a Lotus worker needs.
    Admin,
    /// Joining, returning results and storage calls: for one Sealyard worker, and nothing else.
    Worker,
}

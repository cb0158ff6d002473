//! The manager's repo on disk: made whole or not at all, opened by one process at a time. Never: anything that happens
//! while the manager runs, but for its lock.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use rpc::keystore::{self, KeystoreError};
use rpc::repo_files::{self, RepoFileError};
use rpc::repo_lock::{RepoLock, RepoLockError};
use rpc::token::TokenError;
use rpc::{Permission, Secret};
use sealtasks::{ActorId, SectorSize, StorageId, StorageStanza};
use stores::{StorageConfig, StorageMeta, StoreError, init_path};
use uuid::Uuid;

use crate::config::{self, Config, ConfigError};
use crate::state::{self, ChainIdentity, MinerIdentity, State, StateError};

/// What the index remembers between two runs.
pub(crate) const INDEX_SNAPSHOT: &str = "index.snapshot";

/// What operators let the manager's downloads use.
const LIMITS: &str = "transfers.json";

/// Messages to the chain, one file each.
pub(crate) const MESSAGES: &str = "messages";

/// Data that waits to be written into sectors.
pub(crate) const STAGING: &str = "staging";

/// The list of storage paths, as Lotus names it.
pub(crate) const STORAGE_CONFIG: &str = "storage.json";

/// Weight of the repo's own storage path, as Lotus gives it.
const LOCAL_WEIGHT: u64 = 10;

/// How a repo is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitOptions {
    /// The miner actor.
    pub actor: ActorId,
    /// Its sector size.
    pub sector_size: SectorSize,
    /// Whether the repo itself is a storage path, for sealing and for storing.
    pub local_storage: LocalStorage,
    /// Whether its sectors are only rehearsed, for ever.
    pub rehearsal: bool,
    /// The chain that its sectors are for, for ever; `None`: no chain.
    pub chain: Option<ChainIdentity>,
}

impl InitOptions {
    /// For real sectors of no chain, without storage of its own.
    pub const fn new(actor: ActorId, sector_size: SectorSize) -> Self {
        Self { actor, sector_size, local_storage: LocalStorage::None, rehearsal: false, chain: None }
    }
}

/// Whether the repo itself is a storage path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalStorage {
    /// It is: weight 10, for sealing and storing.
    InRepo,
    /// It is not; paths are attached later.
    None,
}

/// An open repo; its lock lasts as long as this lives.
#[derive(Debug)]
pub struct Repo {
    dir: PathBuf,
    config: Config,
    secret: Secret,
    _lock: RepoLock,
}

/// Why a repo cannot be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum RepoError {
    /// There is something already.
    #[error("MGR040: {} exists already; use it with `sealyard run`, or choose another with SEALYARD_PATH", .path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// There is nothing.
    #[error("MGR041: {} is no manager's repo; run `sealyard init --actor f0… --sector-size …` first", .path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// Another process has it.
    #[error("MGR042: {} is in use by process {pid}; stop that one first", .path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process id in the lock file, or `unknown`.
        pid: String,
    },
    /// The file system refused.
    #[error("MGR043: cannot {action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The token secret.
    #[error("MGR044: the token secret cannot be used")]
    Keystore(#[from] KeystoreError),
    /// The `token` file.
    #[error("MGR045: the token file cannot be used")]
    TokenFile(#[from] RepoFileError),
    /// The token itself.
    #[error("MGR046: no token can be made")]
    Token(#[from] TokenError),
    /// The storage path in the repo.
    #[error("MGR047: the repo's storage path cannot be made")]
    Storage(#[from] StoreError),
    /// The durable state.
    #[error("the durable state cannot be used")]
    State(#[from] StateError),
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> RepoError + 'a {
    move |source| RepoError::Io { action, path: path.to_owned(), source }
}

impl Repo {
    /// Makes a repo: in a directory beside, which is then renamed, so that a crash leaves nothing half-made.
    ///
    /// # Errors
    /// There is one already, or the disk refuses; nothing new is left then.
    pub fn init(dir: &Path, options: InitOptions) -> Result<(), RepoError> {
        let dir = std::path::absolute(dir).map_err(io_error("resolve", dir))?;
        refuse_existing(&dir)?;
        let parent = dir.parent().ok_or_else(|| RepoError::Exists { path: dir.clone() })?;
        stores::make_dir(parent).map_err(io_error("create", parent))?;
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let fresh = parent.join(format!(".{name}.init-{}", std::process::id()));
        // A leftover of a crashed `init` that happened to have our process id.
        remove_tree(&fresh)?;
        let made = fill(&fresh, &dir, options).and_then(|()| {
            // An empty directory may be replaced; rename does that by itself, and refuses a full one.
            fs::rename(&fresh, &dir).map_err(io_error("move the new repo to", &dir))?;
            sync_dir(parent)
        });
        if made.is_err() {
            remove_tree(&fresh)?;
        }
        made
    }

    /// Opens a repo and locks it against every other process.
    ///
    /// # Errors
    /// No repo, another process has it, or one of its files is unusable. Nothing on disk has changed then.
    pub fn open(dir: &Path) -> Result<Self, RepoError> {
        let dir = std::path::absolute(dir).map_err(io_error("resolve", dir))?;
        if !dir.join(state::FILE_NAME).is_file() {
            return Err(RepoError::Missing { path: dir });
        }
        let lock = lock(&dir)?;
        let config = Config::read(&dir)?;
        let (secret, is_new) = keystore::load_or_create(&dir)?;
        if is_new {
            repo_files::write_token(&dir, &secret.mint(&Permission::ALL)?)?;
        }
        Ok(Self { dir, config, secret, _lock: lock })
    }

    /// Its directory, absolute.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What its `config.toml` says.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The key that signs this manager's tokens.
    pub const fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Its `storage.json`.
    pub fn storage_config(&self) -> PathBuf {
        self.dir.join(STORAGE_CONFIG)
    }

    /// What operators let its downloads use.
    pub(crate) fn limits_file(&self) -> PathBuf {
        self.dir.join(LIMITS)
    }

    /// What the index remembers between two runs.
    pub fn index_snapshot(&self) -> PathBuf {
        self.dir.join(INDEX_SNAPSHOT)
    }

    /// Where data waits to be written into sectors.
    pub fn staging(&self) -> PathBuf {
        self.dir.join(STAGING)
    }

    /// Where messages to the chain are kept.
    pub fn messages(&self) -> PathBuf {
        self.dir.join(MESSAGES)
    }

    /// Its durable state's file.
    pub fn state_file(&self) -> PathBuf {
        self.dir.join(state::FILE_NAME)
    }
}

/// Refuses a place where something is.
pub(crate) fn refuse_existing(dir: &Path) -> Result<(), RepoError> {
    let is_free = match fs::read_dir(dir) {
        Ok(entries) => entries.count() == 0,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    if is_free { Ok(()) } else { Err(RepoError::Exists { path: dir.to_owned() }) }
}

/// Everything a repo has, made in `fresh`; `dir` is where it will be.
fn fill(fresh: &Path, dir: &Path, options: InitOptions) -> Result<(), RepoError> {
    fs::create_dir(fresh).map_err(io_error("create", fresh))?;
    write_synced(&fresh.join(config::FILE_NAME), config::DEFAULTS)?;
    let (secret, _) = keystore::load_or_create(fresh)?;
    repo_files::write_token(fresh, &secret.mint(&Permission::ALL)?)?;
    let mut storage = StorageConfig::default();
    match options.local_storage {
        LocalStorage::None => {}
        LocalStorage::InRepo => {
            let id = StorageId::from(random_uuid()?);
            let stanza = StorageStanza {
                weight: LOCAL_WEIGHT,
                can_seal: true,
                can_store: true,
                ..StorageStanza::default()
            };
            init_path(fresh, &StorageMeta::new(&id, &stanza))?;
            storage.add(dir);
        }
    }
    storage.write(&fresh.join(STORAGE_CONFIG))?;
    // Durable like nothing else: who is the miner, and whether all of it is a rehearsal, is written once.
    let beacon = if options.rehearsal { sealtasks::rehearsal::beacon() } else { random_bytes()? };
    let InitOptions { actor, sector_size, chain, .. } = options;
    let miner = MinerIdentity { actor, sector_size, beacon, chain };
    State::create(&fresh.join(state::FILE_NAME), &miner)?;
    sync_dir(fresh)
}

fn lock(dir: &Path) -> Result<RepoLock, RepoError> {
    RepoLock::take(dir).map_err(|error| match error {
        RepoLockError::InUse { holder } => RepoError::Locked { path: dir.to_owned(), pid: holder },
        RepoLockError::Io { path, source } => RepoError::Io { action: "lock", path, source },
    })
}

fn write_synced(path: &Path, text: &str) -> Result<(), RepoError> {
    let write = || {
        let mut file = File::create_new(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(io_error("write", path))
}

fn sync_dir(dir: &Path) -> Result<(), RepoError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync", dir))
}

fn remove_tree(dir: &Path) -> Result<(), RepoError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", dir)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Bytes that nobody can guess, from the operating system.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N], RepoError> {
    let source = Path::new("/dev/urandom");
    let mut bytes = [0; N];
    let read = File::open(source).and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(io_error("read", source))?;
    Ok(bytes)
}

/// A random UUID (version 4).
pub(crate) fn random_uuid() -> Result<Uuid, RepoError> {
    Ok(uuid::Builder::from_random_bytes(random_bytes()?).into_uuid())
}

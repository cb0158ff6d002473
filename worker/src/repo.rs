//! The worker's repo: one directory that one process holds at a time.
//!
//! It holds `repo.lock`, `config.toml`, `journal.db`, `calls/`, `storage.json`, `transfers.json` once its downloads were
//! limited by an order, the files `api` and `token` while the worker runs, and, unless the operator wants none, the worker's
//! first storage path (the repo itself, as Lotus does).
//! Never: anything about calls, which is the journal's.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use rpc::repo_lock::{RepoLock, RepoLockError};
use sealtasks::{StorageId, StorageStanza};
use stores::{StorageConfig, StorageMeta};
use uuid::Uuid;

use crate::config::{Config, ConfigError};

/// Weight of the storage path that a first start creates. Source: Lotus `lotus-worker run`.
const SEALING_WEIGHT: u64 = 10;

/// A repo that this process holds. Dropping it lets go of the lock.
#[derive(Debug)]
pub struct Repo {
    dir: PathBuf,
    config: Config,
    /// Held as long as this lives.
    _lock: RepoLock,
}

/// What a first start puts into the repo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstPath {
    /// A storage path for sealing in the repo itself.
    Sealing,
    /// None (`--no-local-storage`, and the manager's own worker, which uses the manager's paths).
    None,
}

impl Repo {
    /// Opens a repo that is there; `None` if there is none. Nothing is changed, so that a worker can find out that its
    /// repo is in use before it talks to the manager.
    ///
    /// # Errors
    /// It is in use, or cannot be read.
    pub fn open(dir: &Path) -> Result<Option<Self>, RepoError> {
        match dir.join("config.toml").try_exists() {
            Ok(true) => Self::lock(dir).map(Some),
            Ok(false) => Ok(None),
            Err(source) => Err(RepoError::Io { path: dir.to_owned(), source }),
        }
    }

    /// Opens a repo, creating it first when there is none. Call it only once the manager has accepted token, version
    /// and sector size: a mistake in those must leave the disk as it was.
    ///
    /// # Errors
    /// It is in use, cannot be written, or its `config.toml` has a mistake.
    pub fn open_or_create(dir: &Path, first: FirstPath) -> Result<Self, RepoError> {
        if let Some(repo) = Self::open(dir)? {
            return Ok(repo);
        }
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| RepoError::Io { path, source }
        };
        stores::make_dir(dir).map_err(io(dir))?;
        let storage = dir.join("storage.json");
        // `config.toml` comes last: it is what makes the directory a repo, so that a crash in between starts over.
        if first == FirstPath::Sealing && !storage.exists() {
            if !dir.join("sectorstore.json").exists() {
                let stanza =
                    StorageStanza { weight: SEALING_WEIGHT, can_seal: true, ..StorageStanza::default() };
                let meta = StorageMeta::new(&StorageId::from(Uuid::new_v4()), &stanza);
                stores::init_path(dir, &meta).map_err(RepoError::Storage)?;
            }
            let mut paths = StorageConfig::default();
            paths.add(&std::path::absolute(dir).map_err(io(dir))?);
            paths.write(&storage).map_err(RepoError::Storage)?;
        }
        let config = dir.join("config.toml");
        write_new(&config, Config::DEFAULTS.as_bytes()).map_err(io(&config))?;
        Self::lock(dir)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What its `config.toml` says.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The list of its storage paths.
    pub fn storage_json(&self) -> PathBuf {
        self.dir.join("storage.json")
    }

    /// What operators let its downloads use.
    pub(crate) fn limits_file(&self) -> PathBuf {
        self.dir.join("transfers.json")
    }

    fn lock(dir: &Path) -> Result<Self, RepoError> {
        let lock = RepoLock::take(dir).map_err(|error| match error {
            RepoLockError::InUse { holder } => RepoError::InUse { dir: dir.to_owned(), holder },
            RepoLockError::Io { path, source } => RepoError::Io { path, source },
        })?;
        let config = Config::read(&dir.join("config.toml"))?;
        Ok(Self { dir: dir.to_owned(), config, _lock: lock })
    }
}

/// Writes a file that is whole or not there.
fn write_new(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// Why a repo cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RepoError {
    /// Another process holds it.
    #[error("the worker repo {} is in use by process {holder}; stop it, or give this worker a repo of its own with SEALYARD_WORKER_PATH", .dir.display())]
    InUse {
        /// The repo.
        dir: PathBuf,
        /// The other process's id as it wrote it.
        holder: String,
    },
    /// The disk refused.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// `config.toml` has a mistake.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The first storage path could not be made.
    #[error("the storage path of the new repo could not be made")]
    Storage(#[source] stores::StoreError),
}

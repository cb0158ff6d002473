//! The worker's repo: one directory that one process holds at a time.
//!
//! It holds `repo.lock`, `config.toml`, `journal.db`, `calls/`, `storage.json`, the files `api` and `token` while the
//! worker runs, and, unless the operator wants none, the worker's first storage path (the repo itself, as Lotus does).
//! Never: anything about calls, which is the journal's.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use fs2::FileExt as _;
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
    /// Held open: the lock lasts as long as the file.
    lock: File,
}

impl Drop for Repo {
    /// A process that is forked has the file open, too, until it becomes its program: that must not hold the repo longer.
    fn drop(&mut self) {
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(dir = %self.dir.display(), %error, "the repo's lock ends with this process");
        }
    }
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

    fn lock(dir: &Path) -> Result<Self, RepoError> {
        let path = dir.join("repo.lock");
        let io = |source| RepoError::Io { path: path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(&path)
            .map_err(io)?;
        if let Err(source) = file.try_lock_exclusive() {
            if source.kind() != fs2::lock_contended_error().kind() {
                return Err(io(source));
            }
            let mut holder = String::new();
            // The holder's process id is a courtesy; the lock says all that matters.
            let _ = (&file).take(32).read_to_string(&mut holder);
            return Err(RepoError::InUse { dir: dir.to_owned(), holder: holder.trim().to_owned() });
        }
        file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        let config = Config::read(&dir.join("config.toml"))?;
        Ok(Self { dir: dir.to_owned(), config, lock: file })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repo_that_is_let_go_is_free_although_a_forked_process_has_its_lock_file() {
        let dir = tempfile::tempdir().unwrap();
        let repo = Repo::open_or_create(dir.path(), FirstPath::None).unwrap();
        // What a process has between fork and exec.
        let _forked = repo.lock.try_clone().unwrap();
        assert!(matches!(Repo::open(dir.path()), Err(RepoError::InUse { .. })));
        drop(repo);
        assert!(Repo::open(dir.path()).unwrap().is_some());
    }
}

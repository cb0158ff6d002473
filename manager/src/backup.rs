//! Backups of a manager's repo: made while it runs, kept as a few whole generations, and turned into the repo of a
//! manager that takes over. A backup holds what a manager cannot find out again: the durable state, the token secret,
//! the configuration, data that waits for sectors. Never: sector files, or anything of the repo that it copies from.

mod fetching;
mod generation;
pub(crate) mod serving;
mod staged;

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

pub use fetching::Fetch;
pub use generation::{Generation, SavedFile};

use staged::Pieces;

use crate::config::{self, Config, ConfigError};
use crate::repo::{self, RepoError};
use crate::state::copy::{self, CopyFacts, Source};
use crate::state::{self, StateError};

/// Generations that are kept: when the newest is damaged by the disk, an older one is better than none.
pub const KEPT: usize = 3;

/// Held by whoever makes backups in a directory.
const LOCK_NAME: &str = "backup.lock";

/// The newest generation is put together here.
const MAKING: &str = ".making";

/// Why a backup cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file system refused.
    #[error("MGR090: cannot {action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody else makes backups there.
    #[error("MGR091: another backup is being made in {}; wait for it, or choose another directory", .path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// There is nothing that could be used.
    #[error("MGR092: {} holds no whole backup{why}; name a directory that `sealyard backup` wrote", .path.display())]
    None {
        /// The directory.
        path: PathBuf,
        /// What is wrong with each generation, beginning with a colon; empty when there is none.
        why: String,
    },
    /// A file of a generation is not what its manifest says.
    #[error("MGR093: {} is damaged: {detail}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The backup would lie in what it is a backup of.
    #[error("MGR094: {} lies in the repo itself; a backup belongs on another disk", .path.display())]
    Inside {
        /// The directory.
        path: PathBuf,
    },
    /// The manager on another host whose backup is fetched.
    #[error("MGR172: the manager's backup cannot be fetched")]
    Remote {
        /// Why.
        #[source]
        source: rpc::ApiError,
    },
    /// The repo that is copied, or the one that is made.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// Its configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The state database.
    #[error("the durable state cannot be copied")]
    State(#[from] StateError),
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> BackupError + 'a {
    move |source| BackupError::Io { action, path: path.to_owned(), source }
}

/// A repo and the directory that takes its backups.
#[derive(Debug)]
pub struct Backup {
    repo: PathBuf,
    target: PathBuf,
    source: Source,
    /// Which file `source` has open: a repo that was moved away is noticed.
    identity: (u64, u64),
    seen: Option<i64>,
    pieces: Pieces,
    kept: usize,
    _lock: File,
}

impl Backup {
    /// Opens both; `target` is made if need be. The repo's manager may run.
    ///
    /// # Errors
    /// No repo, a target inside it, somebody else at work there, or what the disk says.
    pub fn open(repo: &Path, target: &Path) -> Result<Self, BackupError> {
        let repo = std::path::absolute(repo).map_err(io_error("resolve", repo))?;
        let target = std::path::absolute(target).map_err(io_error("resolve", target))?;
        let database = repo.join(state::FILE_NAME);
        if !database.is_file() {
            return Err(RepoError::Missing { path: repo }.into());
        }
        let (source, identity) = (Source::open(&database)?, identity(&database)?);
        make_dir(&target)?;
        let real = |path: &Path| path.canonicalize().map_err(io_error("resolve", path));
        if real(&target)?.starts_with(real(&repo)?) {
            return Err(BackupError::Inside { path: target });
        }
        let lock = lock(&target)?;
        let (pieces, kept) = (Pieces::Copied, KEPT);
        Ok(Self { repo, target, source, identity, seen: None, pieces, kept, _lock: lock })
    }

    /// Opens both for generations that are handed out from the repo's own disk; so many of them are kept.
    fn outgoing(repo: &Path, target: &Path, kept: usize) -> Result<Self, BackupError> {
        let (repo, target) = (repo.to_owned(), target.to_owned());
        let database = repo.join(state::FILE_NAME);
        let (source, identity) = (Source::open(&database)?, identity(&database)?);
        make_dir(&target)?;
        let lock = lock(&target)?;
        Ok(Self { repo, target, source, identity, seen: None, pieces: Pieces::Linked, kept, _lock: lock })
    }

    /// The last event that is committed in the repo.
    fn last_event(&self) -> Result<u64, BackupError> {
        Ok(self.source.last_event()?)
    }

    /// Whether repo and backups lie on one file system, which one broken disk would take both from.
    ///
    /// # Errors
    /// What the disk says.
    pub fn shares_a_disk(&self) -> Result<bool, BackupError> {
        Ok(identity(&self.repo)?.0 == identity(&self.target)?.0)
    }

    /// Makes a generation if anything was committed since the last one that this made.
    ///
    /// # Errors
    /// What the disk says; the earlier generations are as they were.
    pub fn follow(&mut self) -> Result<Option<Generation>, BackupError> {
        let database = self.repo.join(state::FILE_NAME);
        let now = identity(&database)?;
        if now != self.identity {
            self.source = Source::open(&database)?;
            (self.identity, self.seen) = (now, None);
        }
        // Before the copy: what is committed meanwhile is a change for the next turn.
        let version = self.source.data_version()?;
        if self.seen == Some(version) {
            return Ok(None);
        }
        let made = self.make()?;
        self.seen = Some(version);
        Ok(Some(made))
    }

    /// Makes a generation, whole or not at all, then removes those beyond [`KEPT`].
    ///
    /// # Errors
    /// What the disk says; the earlier generations are as they were.
    pub fn make(&self) -> Result<Generation, BackupError> {
        let making = self.target.join(MAKING);
        // Of one that was cut off.
        remove_tree(&making)?;
        let made = self.fill(&making).and_then(|facts| {
            let known = staged::save(&self.repo, &self.target, &making, self.pieces)?;
            let generation = Generation::seal(&making, &self.repo, facts, &known)?;
            let place = self.target.join(generation.directory_name());
            fs::rename(&making, &place).map_err(io_error("move the new backup to", &place))?;
            sync_dir(&self.target)?;
            Ok(generation)
        });
        if made.is_err() {
            remove_tree(&making)?;
        }
        let made = made?;
        for old in Generation::names(&self.target)?.into_iter().skip(self.kept) {
            remove_tree(&self.target.join(old))?;
        }
        Ok(made)
    }

    fn fill(&self, making: &Path) -> Result<CopyFacts, BackupError> {
        make_dir(making)?;
        for name in small_files(&self.repo)? {
            generation::copy(&self.repo.join(&name), &making.join(&name))?;
        }
        let copied = making.join(state::FILE_NAME);
        let facts = self.source.copy_to(&copied).map_err(|error| match error {
            // Its own words speak of the manager's disk.
            StateError::DiskFull { .. } => io_error("write", &copied)(io::ErrorKind::StorageFull.into()),
            other => other.into(),
        })?;
        generation::make_private(&copied)?;
        Ok(facts)
    }
}

/// A generation that was looked at.
#[derive(Debug)]
pub struct Looked {
    /// Its directory's name.
    pub name: String,
    /// What it holds, or what is wrong with it.
    pub found: Result<Generation, BackupError>,
}

/// The generations in a directory, newest first, every file read.
///
/// # Errors
/// What the disk says of the directory itself.
pub fn list(target: &Path) -> Result<Vec<Looked>, BackupError> {
    let look = |name: String| Looked { found: Generation::check(&target.join(&name)), name };
    Ok(Generation::names(target)?.into_iter().map(look).collect())
}

/// Makes the newest whole backup the repo of a manager that takes over. Numbers that the lost manager may have given
/// out since are passed over, so nothing of it is taken for the new one's; it must not be started again.
///
/// # Errors
/// Something is at `repo` already, no whole backup, or what the disk says; nothing new is left then.
pub fn restore(target: &Path, repo: &Path) -> Result<Generation, BackupError> {
    let repo = std::path::absolute(repo).map_err(io_error("resolve", repo))?;
    repo::refuse_existing(&repo)?;
    let (from, generation) = newest(target)?;
    let parent = repo.parent().ok_or_else(|| RepoError::Exists { path: repo.clone() })?;
    stores::make_dir(parent).map_err(io_error("create", parent))?;
    let name = repo.file_name().unwrap_or_default().to_string_lossy();
    let fresh = parent.join(format!(".{name}.restore-{}", std::process::id()));
    remove_tree(&fresh)?;
    let made = put_back(&from, &generation, &fresh).and_then(|()| {
        fs::rename(&fresh, &repo).map_err(io_error("move the new repo to", &repo))?;
        sync_dir(parent)
    });
    if made.is_err() {
        remove_tree(&fresh)?;
    }
    made.map(|()| generation)
}

fn newest(target: &Path) -> Result<(PathBuf, Generation), BackupError> {
    let mut why = String::new();
    for Looked { name, found } in list(target)? {
        match found {
            Ok(generation) => return Ok((target.join(name), generation)),
            Err(error) => {
                let words = sealtasks::chain(&error);
                tracing::warn!(generation = name, error = words, "a backup cannot be used");
                why.push_str(if why.is_empty() { ": " } else { "; " });
                why.push_str(&words);
            }
        }
    }
    Err(BackupError::None { path: target.to_owned(), why })
}

fn put_back(from: &Path, generation: &Generation, fresh: &Path) -> Result<(), BackupError> {
    make_dir(fresh)?;
    for file in generation.files() {
        generation::copy(&from.join(&file.name), &fresh.join(&file.name))?;
    }
    let id = repo::random_uuid()?;
    copy::take_over(&fresh.join(state::FILE_NAME), id)?;
    sync_dir(fresh)
}

/// Relative names of what is copied besides the database, those that there are.
fn small_files(repo: &Path) -> Result<Vec<PathBuf>, BackupError> {
    let config = Config::read(repo)?;
    let mut names = vec![PathBuf::from(config::FILE_NAME), PathBuf::from("token")];
    names.push(PathBuf::from(repo::STORAGE_CONFIG));
    names.push(PathBuf::from(repo::INDEX_SNAPSHOT));
    let secret = rpc::keystore::path(repo);
    names.extend(secret.strip_prefix(repo).ok().map(Path::to_owned));
    // Certificates elsewhere are the operator's to have on the other machine.
    let certificates = [config.certificate, config.private_key, config.ca_file];
    names.extend(certificates.into_iter().flatten().filter(|path| generation::is_plain(path)));
    names.retain(|name| repo.join(name).is_file());
    names.sort();
    names.dedup();
    Ok(names)
}

fn lock(target: &Path) -> Result<File, BackupError> {
    let path = target.join(LOCK_NAME);
    let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = opened.map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(BackupError::Busy { path: target.to_owned() }),
        Err(TryLockError::Error(source)) => Err(io_error("lock", &path)(source)),
    }
}

/// Device and inode.
fn identity(path: &Path) -> Result<(u64, u64), BackupError> {
    let found = fs::metadata(path).map_err(io_error("look at", path))?;
    Ok((found.dev(), found.ino()))
}

/// For nobody else's eyes: the token secret goes in there.
fn make_dir(dir: &Path) -> Result<(), BackupError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error("create", dir))
}

fn sync_dir(dir: &Path) -> Result<(), BackupError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync", dir))
}

fn remove_tree(dir: &Path) -> Result<(), BackupError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", dir)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

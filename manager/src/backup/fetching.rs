//! Backups of a manager on another host, fetched over the network: into a place of their own, file by file, held against the
//! manifest, and moved to the other generations when nothing is missing. What was fetched of one that broke off is not fetched
//! again. Never: changes anything at the manager.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rpc::{ApiError, ManagerClient};

use super::generation::{self, Generation, SavedFile};
use super::{BackupError, KEPT, io_error, lock, make_dir, remove_tree, sync_dir};

/// What is fetched lies here until it is whole: the manifest, and each file under the name of its digest.
const FETCHING: &str = ".fetching";

/// Takes the backups of one manager on another host.
#[derive(Debug)]
pub struct Fetch {
    target: PathBuf,
    _lock: File,
}

impl Fetch {
    /// Into this directory, which is made if need be.
    ///
    /// # Errors
    /// Somebody else is at work there, or what the disk says.
    pub fn open(target: &Path) -> Result<Self, BackupError> {
        let target = std::path::absolute(target).map_err(io_error("resolve", target))?;
        make_dir(&target)?;
        let lock = lock(&target)?;
        Ok(Self { target, _lock: lock })
    }

    /// Fetches a generation if the manager has committed anything since the newest that is here. One that broke off is
    /// fetched to its end, if the manager has it still.
    ///
    /// # Errors
    /// The manager, the network or the disk; what was fetched stays for the next time, and no half generation is there.
    pub async fn follow(&self, manager: &ManagerClient) -> Result<Option<Generation>, BackupError> {
        let fetching = self.target.join(FETCHING);
        let begun = self.begun(manager, &fetching).await?;
        let manifest = match begun {
            Some(manifest) => manifest,
            None => {
                let seen = self.newest().map(|(_, newest)| newest.last_event);
                let Some(manifest) = manager.backup_manifest(None, seen).await.map_err(remote)? else {
                    return Ok(None);
                };
                manifest
            }
        };
        let wanted = Generation::parse(&manifest, &fetching.join(generation::MANIFEST))?;
        self.begin(&fetching, &manifest, &wanted)?;
        for file in wanted.files() {
            self.fetch(manager, &wanted, file, &fetching).await?;
        }
        self.put_together(&fetching, wanted).map(Some)
    }

    /// The manifest of the generation that was being fetched, as long as the manager has it.
    async fn begun(&self, manager: &ManagerClient, fetching: &Path) -> Result<Option<Vec<u8>>, BackupError> {
        let Ok(begun) = Generation::read(fetching) else { return Ok(None) };
        match manager.backup_manifest(Some(&begun.directory_name()), None).await {
            Ok(manifest) => Ok(manifest),
            Err(ApiError::Refused { .. }) => Ok(None),
            Err(error) => Err(remote(error)),
        }
    }

    /// The newest generation here whose manifest can be read.
    fn newest(&self) -> Option<(PathBuf, Generation)> {
        let names = Generation::names(&self.target).unwrap_or_default().into_iter();
        names
            .map(|name| self.target.join(name))
            .find_map(|dir| Some((dir.clone(), Generation::read(&dir).ok()?)))
    }

    /// Writes down what is fetched from now on, and removes what belongs to nothing of it.
    fn begin(&self, fetching: &Path, manifest: &[u8], wanted: &Generation) -> Result<(), BackupError> {
        make_dir(fetching)?;
        for entry in fs::read_dir(fetching).map_err(io_error("list", fetching))? {
            let path = entry.map_err(io_error("list", fetching))?.path();
            let name = path.file_name().unwrap_or_default();
            if !wanted.files().iter().any(|file| *name == *file.blake3) {
                fs::remove_file(&path).map_err(io_error("remove", &path))?;
            }
        }
        let path = fetching.join(generation::MANIFEST);
        let written = private(&path).and_then(|mut file| {
            file.write_all(manifest)?;
            file.sync_all()
        });
        written.map_err(io_error("write", &path))?;
        sync_dir(fetching)
    }

    /// One file, from where it broke off; one that the newest generation has is linked from there.
    async fn fetch(
        &self,
        manager: &ManagerClient,
        wanted: &Generation,
        file: &SavedFile,
        fetching: &Path,
    ) -> Result<(), BackupError> {
        let path = fetching.join(&file.blake3);
        if let Some((dir, newest)) = self.newest()
            && let Some(here) = newest.files().iter().find(|here| here.blake3 == file.blake3)
            && !path.exists()
            && fs::hard_link(dir.join(&here.name), &path).is_ok()
        {
            return Ok(());
        }
        let opened =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut to = opened.map_err(io_error("open", &path))?;
        let (mut hasher, mut bytes) = (blake3::Hasher::new(), 0);
        let read = io::copy(&mut (&mut to).take(file.bytes), &mut hasher).map_err(io_error("read", &path))?;
        bytes += read;
        to.set_len(bytes).and_then(|()| to.seek(SeekFrom::Start(bytes))).map_err(io_error("write", &path))?;
        if bytes < file.bytes {
            let name = file.name.to_string_lossy();
            let parts = manager.backup_file(&wanted.directory_name(), &name, bytes).await;
            let mut parts = parts.map_err(remote)?;
            while let Some(part) = parts.next().await.map_err(remote)? {
                bytes += part.len() as u64;
                if bytes > file.bytes {
                    break;
                }
                hasher.update(&part);
                to.write_all(&part).map_err(io_error("write", &path))?;
            }
            stores::crash_point("backup.fetched");
        }
        let digest = hasher.finalize().to_hex().to_string();
        if bytes == file.bytes && digest == file.blake3 {
            return to.sync_all().map_err(io_error("sync", &path));
        }
        let detail = format!("{bytes} of {} bytes came, with BLAKE3 {digest}", file.bytes);
        if bytes >= file.bytes {
            // What it begins with is not what it should be; it is fetched anew.
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
        Err(BackupError::Damaged { path: file.name.clone(), detail })
    }

    /// Makes a generation of what was fetched, whole or not at all, and removes those beyond [`KEPT`].
    fn put_together(&self, fetching: &Path, mut wanted: Generation) -> Result<Generation, BackupError> {
        let making = self.target.join(super::MAKING);
        remove_tree(&making)?;
        make_dir(&making)?;
        for file in wanted.files() {
            let (from, to) = (fetching.join(&file.blake3), making.join(&file.name));
            let dir = to.parent().unwrap_or(&making);
            make_dir(dir)?;
            // Two names can have the same bytes.
            fs::hard_link(&from, &to).map_err(io_error("link", &to))?;
            sync_dir(dir)?;
        }
        wanted.follow_on(&self.target)?;
        wanted.write(&making)?;
        let place = self.target.join(wanted.directory_name());
        fs::rename(&making, &place).map_err(io_error("move the new backup to", &place))?;
        sync_dir(&self.target)?;
        remove_tree(fetching)?;
        for old in Generation::names(&self.target)?.into_iter().skip(KEPT) {
            remove_tree(&self.target.join(old))?;
        }
        Ok(wanted)
    }
}

fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn remote(source: ApiError) -> BackupError {
    BackupError::Remote { source }
}

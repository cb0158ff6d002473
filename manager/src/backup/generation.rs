//! One generation of a backup: a directory with files and a manifest that says what each is. Never: decides which
//! generation is used or kept.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{BackupError, io_error, sync_dir};
use crate::state::copy::CopyFacts;

/// The manifest's name in a generation.
pub(super) const MANIFEST: &str = "backup.json";

/// The manifest's format.
const VERSION: u32 = 1;

/// Directory names: this, then the time in milliseconds, so that names sort as they were made.
const PREFIX: &str = "generation-";

/// A manifest is about 1 KiB.
const MANIFEST_MAX: u64 = rpc::backup::MANIFEST_MAX as u64;

/// Generations that are looked at; [`super::KEPT`] are there.
const NAMES_MAX: usize = 1_000;

/// What a whole generation holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generation {
    version: u32,
    /// When it was made, in Unix milliseconds.
    pub made_ms: u64,
    /// The repo that it is of.
    pub repo: PathBuf,
    /// The miner's actor id.
    pub actor: u64,
    /// The epoch of the newest manager in it.
    pub epoch: u64,
    /// Its last event; everything committed up to that one is in it.
    pub last_event: u64,
    files: Vec<SavedFile>,
}

/// A file of a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedFile {
    /// Its name in the repo, relative.
    pub name: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// BLAKE3 of its bytes, hexadecimal.
    pub blake3: String,
}

impl Generation {
    /// Its files.
    pub fn files(&self) -> &[SavedFile] {
        &self.files
    }

    /// Bytes of all its files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// The name of its directory.
    pub fn directory_name(&self) -> String {
        format!("{PREFIX}{:015}", self.made_ms)
    }

    /// Names of the generations in a directory, newest first, whole or not.
    pub(super) fn names(target: &Path) -> Result<Vec<String>, BackupError> {
        let entries = fs::read_dir(target).map_err(io_error("list", target))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let is_ours =
            |name: &String| name.strip_prefix(PREFIX).is_some_and(|time| time.parse::<u64>().is_ok());
        let mut names: Vec<_> = names.filter(is_ours).take(NAMES_MAX).collect();
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(names)
    }

    /// Writes the manifest of what lies in `making`; everything is on stable storage then. What is `known` is not read
    /// once more.
    pub(super) fn seal(
        making: &Path,
        repo: &Path,
        facts: CopyFacts,
        known: &[SavedFile],
    ) -> Result<Self, BackupError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let mut files = Vec::new();
        gather(making, Path::new(""), known, &mut files)?;
        let mut generation = Self {
            version: VERSION,
            made_ms: now_ms,
            repo: repo.to_owned(),
            actor: facts.actor,
            epoch: facts.epoch,
            last_event: facts.last_event,
            files,
        };
        generation.follow_on(making.parent().unwrap_or(making))?;
        generation.write(making)?;
        Ok(generation)
    }

    /// Makes it newer than those in `target`: a clock that went back must not make the newest look old.
    pub(super) fn follow_on(&mut self, target: &Path) -> Result<(), BackupError> {
        let newest: Option<u64> =
            Self::names(target)?.first().and_then(|name| name.strip_prefix(PREFIX)?.parse().ok());
        self.made_ms = newest.map_or(self.made_ms, |newest| self.made_ms.max(newest.saturating_add(1)));
        Ok(())
    }

    /// Writes the manifest into `making`, on stable storage with its directory.
    pub(super) fn write(&self, making: &Path) -> Result<(), BackupError> {
        let path = making.join(MANIFEST);
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        let written = create(&path).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        written.map_err(io_error("write", &path))?;
        sync_dir(making)
    }

    /// Reads a manifest and holds every file against it.
    pub(super) fn check(dir: &Path) -> Result<Self, BackupError> {
        let generation = Self::read(dir)?;
        for file in &generation.files {
            let at = dir.join(&file.name);
            let (bytes, blake3) = digest(&at)?;
            if (bytes, &blake3) != (file.bytes, &file.blake3) {
                return Err(damaged(&at, format!("{bytes} bytes with BLAKE3 {blake3}, not {}", file.blake3)));
            }
        }
        Ok(generation)
    }

    /// Reads a manifest; its files are not looked at.
    pub(super) fn read(dir: &Path) -> Result<Self, BackupError> {
        let path = dir.join(MANIFEST);
        let mut text = String::new();
        let read = File::open(&path).and_then(|file| file.take(MANIFEST_MAX).read_to_string(&mut text));
        read.map_err(io_error("read", &path))?;
        Self::parse(text.as_bytes(), &path)
    }

    /// The manifest that `path` holds.
    pub(super) fn parse(text: &[u8], path: &Path) -> Result<Self, BackupError> {
        let generation: Self =
            serde_json::from_slice(text).map_err(|error| damaged(path, error.to_string()))?;
        if generation.version != VERSION {
            let detail = format!("it has format {}, this program reads {VERSION}", generation.version);
            return Err(damaged(path, detail));
        }
        let is_digest = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if let Some(file) = generation.files.iter().find(|file| !is_digest(&file.blake3)) {
            return Err(damaged(path, format!("{:?} is no digest", file.blake3)));
        }
        if let Some(file) = generation.files.iter().find(|file| !is_plain(&file.name)) {
            return Err(damaged(path, format!("{} is no name below a repo", file.name.display())));
        }
        Ok(generation)
    }
}

fn damaged(path: &Path, detail: String) -> BackupError {
    BackupError::Damaged { path: path.to_owned(), detail }
}

/// Whether a path stays below the directory that it is joined to.
pub(super) fn is_plain(path: &Path) -> bool {
    let mut parts = path.components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// Copies a file onto stable storage, readable by its owner alone. Directories on the way are made.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), BackupError> {
    let dir = to.parent().unwrap_or(to);
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error("create", dir))?;
    let mut source = File::open(from).map_err(io_error("read", from))?;
    let copied = create(to).and_then(|mut file| {
        io::copy(&mut source, &mut file)?;
        file.sync_all()
    });
    copied.map_err(io_error("write", to))?;
    sync_dir(dir)
}

/// Takes a file from the eyes of everybody but its owner.
pub(super) fn make_private(path: &Path) -> Result<(), BackupError> {
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(io_error("protect", path))
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// All files below `root`/`below`, by name.
fn gather(
    root: &Path,
    below: &Path,
    known: &[SavedFile],
    files: &mut Vec<SavedFile>,
) -> Result<(), BackupError> {
    let dir = root.join(below);
    let entries = fs::read_dir(&dir).map_err(io_error("list", &dir))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io_error("list", &dir))?;
        names.push((entry.file_name(), entry.path().is_dir()));
    }
    names.sort();
    for (name, is_dir) in names {
        let name = below.join(name);
        if is_dir {
            gather(root, &name, known, files)?;
        } else if let Some(known) = known.iter().find(|known| known.name == name) {
            files.push(known.clone());
        } else {
            let (bytes, blake3) = digest(&root.join(&name))?;
            files.push(SavedFile { name, bytes, blake3 });
        }
    }
    Ok(())
}

/// Length and BLAKE3.
fn digest(path: &Path) -> Result<(u64, String), BackupError> {
    let mut hasher = blake3::Hasher::new();
    let mut file = File::open(path).map_err(io_error("read", path))?;
    let bytes = io::copy(&mut file, &mut hasher).map_err(io_error("read", path))?;
    Ok((bytes, hasher.finalize().to_hex().to_string()))
}

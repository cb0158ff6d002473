//! Where things lie in a storage path: `<path>/<type>/s-t0<miner>-<number>`, and `fetching/` beside them for whatever
//! is not whole yet. The only place that joins such paths, and only from parsed names.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sealtasks::{FileType, FileTypes, SectorDecl, SectorId};
use uuid::Uuid;

use crate::disk;
use crate::error::StoreError;

/// The directory in each type's directory that scans skip.
pub(crate) const FETCHING: &str = "fetching";

/// A sector's file or directory.
pub(crate) fn file(path: &Path, sector: SectorId, kind: FileType) -> PathBuf {
    path.join(kind.name()).join(sector.to_string())
}

/// The directory where it lies while it arrives, with notes beside it.
pub(crate) fn arriving(path: &Path, sector: SectorId, kind: FileType) -> PathBuf {
    path.join(kind.name()).join(FETCHING).join(format!("{sector}{PART}"))
}

/// Where the labels of a sector lie while it is unsealed into this path.
pub(crate) fn labels(path: &Path, sector: SectorId) -> PathBuf {
    path.join(FileType::Unsealed.name()).join(FETCHING).join(format!("{sector}.labels"))
}

/// Where Lotus lets it arrive.
pub(crate) fn arriving_at_lotus(path: &Path, sector: SectorId, kind: FileType) -> PathBuf {
    path.join(kind.name()).join(FETCHING).join(sector.to_string())
}

/// Whether an entry of `fetching/` is not one of ours.
pub(crate) fn is_lotus_arriving(entry: &Path) -> bool {
    entry.file_name().and_then(|name| name.to_str()).is_none_or(|name| !name.ends_with(PART))
}

/// What [`arriving`] puts behind the sector.
const PART: &str = ".part";

/// A fresh name for what is on its way out: renamed there first, so that a half-deleted directory is never seen as
/// a sector's.
pub(crate) fn leaving(path: &Path, sector: SectorId, kind: FileType) -> PathBuf {
    path.join(kind.name()).join(FETCHING).join(format!("{sector}{REMOVED}{}", Uuid::new_v4()))
}

/// The places in a storage path where files arrive or had arrived, with what arrives there.
pub(crate) fn arrivals(path: &Path) -> Vec<(PathBuf, SectorId, FileType)> {
    let mut found = Vec::new();
    for kind in FileType::ALL {
        let entries = fs::read_dir(path.join(kind.name()).join(FETCHING)).into_iter().flatten().flatten();
        for entry in entries.map(|entry| entry.path()) {
            let name =
                entry.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(PART));
            if let Some(sector) = name.and_then(|name| name.parse().ok()) {
                found.push((entry, sector, kind));
            }
        }
    }
    found
}

/// What [`leaving`] puts between the sector and the fresh part of a name.
const REMOVED: &str = ".removed-";

/// A fresh name for what another file takes the place of. Nothing deletes it but a clean-up that was asked for, or
/// whoever put it there and has seen that not a byte of it is lost.
pub(crate) fn replaced(path: &Path, sector: SectorId, kind: FileType) -> PathBuf {
    path.join(kind.name()).join(FETCHING).join(format!("{sector}{REPLACED}{}", Uuid::new_v4()))
}

/// What [`replaced`] puts between the sector and the fresh part of a name.
const REPLACED: &str = ".replaced-";

/// A fresh name for a file that is looked at once more before it is deleted. Nothing deletes it unasked, and whoever opens the
/// path next puts it back.
pub(crate) fn doubted(path: &Path, sector: SectorId, kind: FileType) -> PathBuf {
    path.join(kind.name()).join(FETCHING).join(format!("{sector}{DOUBTED}{}", Uuid::new_v4()))
}

/// What [`doubted`] puts between the sector and the fresh part of a name.
const DOUBTED: &str = ".doubted-";

/// The files in a storage path that have a name which [`doubted`] makes, with their places.
pub(crate) fn all_doubted(path: &Path) -> Vec<(PathBuf, PathBuf)> {
    FileType::ALL.into_iter().flat_map(|kind| doubted_of(path, kind)).collect()
}

/// Those of one type.
fn doubted_of(path: &Path, kind: FileType) -> Vec<(PathBuf, PathBuf)> {
    let dir = path.join(kind.name());
    // On a full disk there may have been no room for `fetching/`.
    let dirs = [dir.join(FETCHING), dir].into_iter().filter_map(|dir| fs::read_dir(dir).ok());
    let entries = dirs.flatten().flatten().map(|entry| entry.path()).filter(|at| is_fresh(at, DOUBTED));
    entries.filter_map(|entry| named(&entry).map(|(sector, _)| (entry, file(path, sector, kind)))).collect()
}

/// Whether such a one of this file is there.
pub(crate) fn is_doubted(path: &Path, sector: SectorId, kind: FileType) -> bool {
    let place = file(path, sector, kind);
    doubted_of(path, kind).iter().any(|(_, of)| *of == place)
}

/// Whether a name is one that [`leaving`], [`doubted`] or [`replaced`] makes, with this between its parts.
fn is_fresh(path: &Path, between: &str) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once(between));
    name.is_some_and(|(sector, fresh)| sector.parse::<SectorId>().is_ok() && Uuid::try_parse(fresh).is_ok())
}

/// One that is looked at once more is shown like one whose place another took, should its place be another's by now.
fn is_replaced(path: &Path) -> bool {
    is_fresh(path, REPLACED) || is_fresh(path, DOUBTED)
}

fn is_leaving(path: &Path) -> bool {
    is_fresh(path, REMOVED)
}

/// The sector and type that the name of an entry in `fetching/` tells, or of one that had no room there.
pub(crate) fn named(entry: &Path) -> Option<(SectorId, FileType)> {
    let name = entry.file_name()?.to_str()?;
    let sector = name.split('.').next()?.parse().ok()?;
    let dir = entry.parent()?;
    let dir = if dir.file_name()? == FETCHING { dir.parent()? } else { dir };
    Some((sector, dir.file_name()?.to_str()?.parse().ok()?))
}

/// The same for an entry with a name that [`replaced`] makes.
pub(crate) fn replaced_file(entry: &Path) -> Option<(SectorId, FileType)> {
    if is_replaced(entry) { named(entry) } else { None }
}

/// The sector and type of a file in its place, by its name.
pub(crate) fn sector_file(entry: &Path) -> Option<(SectorId, FileType)> {
    let sector = entry.file_name()?.to_str()?.parse().ok()?;
    let kind = entry.parent()?.file_name()?.to_str()?.parse().ok()?;
    Some((sector, kind))
}

/// Temporary files of a path's own settings: writes that did not end.
pub(crate) fn temporaries(path: &Path) -> Vec<PathBuf> {
    let ours = [crate::meta::META_FILE, crate::keep::KEEP_FILE];
    unfinished(path).filter(|(file, _)| ours.contains(&&**file)).map(|(_, entry)| entry).collect()
}

/// Removes what writes that a kill interrupted have left in a repo. Only for who has its lock: nobody else writes there.
pub fn discard_unfinished(repo: &Path) {
    for (_, entry) in unfinished(repo) {
        crate::disk::discard(&entry);
    }
}

/// The files of a directory that were to replace another (`disk::beside`), and the names of those.
fn unfinished(dir: &Path) -> impl Iterator<Item = (String, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file())).filter_map(|entry| {
        let name = entry.file_name();
        let (file, fresh) = name.to_str()?.strip_suffix(".tmp")?.rsplit_once('.')?;
        Uuid::try_parse(fresh).is_ok().then(|| (file.to_owned(), entry.path()))
    })
}

/// What a scan of a storage path found.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Sector files, by sector.
    pub(crate) files: Vec<SectorDecl>,
    /// Entries that are no sector files; they are left alone.
    pub(crate) foreign: Vec<PathBuf>,
    /// Leftovers of fetches.
    pub(crate) partial: Vec<PathBuf>,
    /// Leftovers of removals: nobody wants them.
    pub(crate) removed: Vec<PathBuf>,
    /// Files whose places others took.
    pub(crate) replaced: Vec<PathBuf>,
    /// Files that had just been fetched when an earlier life of this process ended, as far as is noted. This and what follows is
    /// of the notes of fetches, which [`scan`] does not read.
    pub(crate) untold: Vec<(SectorId, FileType)>,
    /// Files that were moved here and whose sources may still lie where they were, by sector.
    pub(crate) moved: BTreeMap<SectorId, FileTypes>,
}

/// Creates the type directories (0755) where missing and lists what is in them.
///
/// On a read-only file system a missing directory is an empty one.
pub(crate) fn scan(path: &Path) -> Result<Scan, StoreError> {
    let mut sectors: BTreeMap<SectorId, FileTypes> = BTreeMap::new();
    let mut scan = Scan::default();
    for kind in FileType::ALL {
        let dir = path.join(kind.name());
        if !dir.is_dir() {
            match disk::create_dir(&dir) {
                Err(StoreError::Io { source, .. }) if is_read_only(&source) => continue,
                done => done?,
            }
        }
        for entry in fs::read_dir(&dir).map_err(StoreError::io("list", &dir))? {
            let found = entry.map_err(StoreError::io("list", &dir))?.path();
            match classify(&found, kind) {
                Entry::Fetching => {
                    for left in leftovers(&found)? {
                        if is_leaving(&left) {
                            scan.removed.push(left);
                        } else if is_replaced(&left) {
                            scan.replaced.push(left);
                        } else {
                            scan.partial.push(left);
                        }
                    }
                }
                // On a full disk there may have been no room for `fetching/`.
                Entry::Foreign if is_leaving(&found) => scan.removed.push(found),
                Entry::Foreign if is_replaced(&found) => scan.replaced.push(found),
                Entry::Foreign => scan.foreign.push(found),
                Entry::Sector(sector) => {
                    let types = sectors.entry(sector).or_default();
                    *types = *types | kind.into();
                }
            }
        }
    }
    scan.files = sectors.into_iter().map(|(sector, types)| SectorDecl { sector, types }).collect();
    scan.foreign.sort();
    scan.partial.sort();
    Ok(scan)
}

enum Entry {
    Sector(SectorId),
    Fetching,
    Foreign,
}

fn classify(found: &Path, kind: FileType) -> Entry {
    let name = found.file_name().and_then(|name| name.to_str());
    // Links are followed: operators link sectors to other disks.
    let Some(meta) = fs::metadata(found).ok() else { return Entry::Foreign };
    if name == Some(FETCHING) && meta.is_dir() {
        return Entry::Fetching;
    }
    let right_kind = if kind.is_directory() { meta.is_dir() } else { meta.is_file() };
    match name.and_then(|name| name.parse().ok()) {
        Some(sector) if right_kind => Entry::Sector(sector),
        _ => Entry::Foreign,
    }
}

fn leftovers(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = fs::read_dir(dir).map_err(StoreError::io("list", dir))?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(StoreError::io("list", dir))).collect()
}

fn is_read_only(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

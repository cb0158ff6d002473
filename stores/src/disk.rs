//! File operations that leave either the old state or the new one: atomic writes, durable renames, whole copies.
//!
//! Everything here blocks; callers run it on a thread of its own. Never follows a name that came from a network.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::error::StoreError;

/// Bytes of a disk block in `st_blocks`, whatever the file system's own block size.
const STAT_BLOCK: u64 = 512;

/// Bytes of two copies that are compared at a time.
const COMPARED: usize = 1 << 20;

/// Directories deeper than this below a storage path are not ours; measuring stops there.
const DEPTH_MAX: usize = 16;

/// Replaces `path` with `bytes` (0644): temporary file beside it, fsync, rename, fsync of the directory.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let temporary = beside(path);
    let result = write_synced(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, path).map_err(StoreError::io("rename into", path)))
        .and_then(|()| sync_parent(path));
    if result.is_err() {
        discard(&temporary);
    }
    result
}

/// Creates `path` with `bytes` (0644), complete or not at all. An existing file is an error of kind `AlreadyExists`.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let temporary = beside(path);
    // A link fails when the name is taken; a rename would replace what is there.
    let result = write_synced(&temporary, bytes)
        .and_then(|()| fs::hard_link(&temporary, path).map_err(StoreError::io("create", path)))
        .and_then(|()| sync_parent(path));
    discard(&temporary);
    result
}

/// The whole of `path`, at most `bytes_max` bytes.
pub(crate) fn read_bounded(path: &Path, bytes_max: u64) -> Result<Vec<u8>, StoreError> {
    let file = File::open(path).map_err(StoreError::io("open", path))?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(StoreError::io("read", path))?;
    if bytes.len() as u64 > bytes_max {
        let source = io::Error::new(io::ErrorKind::InvalidData, format!("larger than {bytes_max} bytes"));
        return Err(StoreError::Io { action: "read", path: path.to_owned(), source });
    }
    Ok(bytes)
}

/// A list that this process wrote for its next life; empty where there is none. One that is damaged is logged and counts as
/// empty.
pub(crate) fn read_list<T: DeserializeOwned>(path: &Path, bytes_max: u64) -> Vec<T> {
    let read = match read_bounded(path, bytes_max) {
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => Err(error),
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|source| StoreError::Json { path: path.to_owned(), source }),
    };
    read.unwrap_or_else(|error| {
        tracing::error!(error = crate::local::chain(&error), "a list of an earlier life cannot be read");
        Vec::new()
    })
}

/// Writes a list for [`read_list`], atomically and durably.
pub(crate) fn write_list<T: Serialize>(path: &Path, list: &[T]) -> Result<(), StoreError> {
    let json = |source| StoreError::Json { path: path.to_owned(), source };
    replace(path, &serde_json::to_vec(list).map_err(json)?)
}

/// As [`make_dir`].
pub(crate) fn create_dir(dir: &Path) -> Result<(), StoreError> {
    make_dir(dir).map_err(StoreError::io("create directory", dir))
}

/// Creates `dir` and its parents (0755) unless it is there. What was created survives a power cut: whatever is synced in it
/// would be lost with its name.
///
/// # Errors
/// The disk's refusal.
pub fn make_dir(dir: &Path) -> io::Result<()> {
    let missing: Vec<_> =
        dir.ancestors().take_while(|above| !above.as_os_str().is_empty() && !above.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    for parent in missing.into_iter().rev().filter_map(Path::parent) {
        let named = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        File::open(named)?.sync_all()?;
    }
    Ok(())
}

/// Makes a rename or creation in the directory of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> Result<(), StoreError> {
    path.parent().map_or(Ok(()), sync_dir)
}

/// Makes the names in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|handle| handle.sync_all()).map_err(StoreError::io("sync", dir))
}

/// Renames `from` to `to`, where nothing may lie, durably.
pub(crate) fn rename_to_free(from: &Path, to: &Path) -> Result<(), StoreError> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // So says NFS, which has no such rename.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => link_to_free(from, to),
        Err(error) => Err(io::Error::from(error)),
    }
    .map_err(StoreError::io("put back", to))?;
    sync_parent(to)?;
    sync_parent(from)
}

/// The same for file systems that have no rename which replaces nothing.
fn link_to_free(from: &Path, to: &Path) -> io::Result<()> {
    let (here, there) = (fs::symlink_metadata(from)?, fs::symlink_metadata(to));
    if here.is_dir() {
        // What comes to lie there meanwhile is safe: a directory takes the place of no file, and of none but an empty directory.
        return match there {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::rename(from, to),
            Err(error) => Err(error),
        };
    }
    // A process that ended between the two steps has left one file with both names.
    let half_done = there.is_ok_and(|there| (there.dev(), there.ino()) == (here.dev(), here.ino()));
    if !half_done {
        match fs::hard_link(from, to) {
            // Nor has it links: what came there in this very moment would be replaced.
            Err(error) if has_no_links(&error) && !to.try_exists()? => return fs::rename(from, to),
            linked => linked?,
        }
    }
    // Before its other name goes, or a power cut could take both.
    to.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())?;
    fs::remove_file(from)
}

fn has_no_links(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::PERM, Errno::OPNOTSUPP, Errno::NOSYS]
        .iter()
        .any(|no| error.raw_os_error() == Some(no.raw_os_error()))
}

/// Renames `from` to `to`, durably. What lay there is set aside first and stays there; whether there was anything.
pub(crate) fn put_in_place(from: &Path, to: &Path, aside: &Path) -> Result<bool, StoreError> {
    if let Some(dir) = aside.parent() {
        create_dir(dir)?;
    }
    let replaced = match fs::rename(to, aside) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(StoreError::io("set aside", to)(error)),
    };
    // Its new name before its old one is another's: it may be the only copy of what it is.
    let noted = if replaced { sync_parent(aside) } else { Ok(()) };
    let placed = noted.and_then(|()| fs::rename(from, to).map_err(StoreError::io("put in place", to)));
    if let Err(error) = placed {
        if replaced && let Err(stays) = fs::rename(aside, to) {
            tracing::error!(path = ?to, ?aside, error = %stays, "a file that was set aside could not be put back");
        }
        return Err(error);
    }
    sync_parent(to)?;
    Ok(replaced)
}

/// Whether both names lead to one file or directory, or to directories of which a file is the same: by links, mounts or
/// hard links. What is deleted under one name is then gone, or changed, under the other.
pub(crate) fn shares_files(one: &Path, other: &Path) -> Result<bool, StoreError> {
    let (one, other) = (inodes(one)?, inodes(other)?);
    Ok(one.iter().any(|inode| other.contains(inode)))
}

/// What tells a file from others on whatever machine it is mounted: its inode's number and when it last changed.
pub(crate) fn identity(found: &fs::Metadata) -> String {
    format!("{}-{}-{}", found.ino(), found.mtime(), found.mtime_nsec())
}

fn inodes(path: &Path) -> Result<Vec<(u64, u64)>, StoreError> {
    let look = |path: &Path| fs::metadata(path).map_err(StoreError::io("look at", path));
    let found = look(path)?;
    let mut inodes = vec![(found.dev(), found.ino())];
    if found.is_dir() {
        for entry in fs::read_dir(path).map_err(StoreError::io("list", path))? {
            let inside = look(&entry.map_err(StoreError::io("list", path))?.path())?;
            inodes.push((inside.dev(), inside.ino()));
        }
    }
    Ok(inodes)
}

/// Whether two copies of a sector's file have the same names and bytes. Reads both, up to the first difference.
pub(crate) fn same_bytes(one: &Path, other: &Path) -> Result<bool, StoreError> {
    let names = shape(one)?;
    if names != shape(other)? {
        return Ok(false);
    }
    let inside = |path: &Path, name: &str| if name.is_empty() { path.to_owned() } else { path.join(name) };
    for (name, _) in names {
        if !same_file_bytes(&inside(one, &name), &inside(other, &name))? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn same_file_bytes(one: &Path, other: &Path) -> Result<bool, StoreError> {
    let open = |path: &Path| File::open(path).map_err(StoreError::io("open", path));
    let (mut left, mut right) = (open(one)?, open(other)?);
    let (mut here, mut there) = (vec![0; COMPARED], vec![0; COMPARED]);
    loop {
        let got = left.read(&mut here).map_err(StoreError::io("read", one))?;
        if got == 0 {
            return Ok(right.read(&mut there[..1]).map_err(StoreError::io("read", other))? == 0);
        }
        match right.read_exact(&mut there[..got]) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            read => read.map_err(StoreError::io("read", other))?,
        }
        if here[..got] != there[..got] {
            return Ok(false);
        }
    }
}

/// Removes a file or a directory tree; nothing there is success.
pub(crate) fn remove(path: &Path) -> Result<(), StoreError> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StoreError::io("look at", path)(error)),
    };
    let result = if found.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Whether it is room that is missing: on the disk, or of what this user may have of it.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Removes what is half-written; a failure is only logged, since another error is on its way up.
pub(crate) fn discard(path: &Path) {
    if let Err(error) = remove(path) {
        tracing::warn!(?path, %error, "a half-written file could not be removed");
    }
}

/// Bytes that `path` takes on disk, all below it included; 0 when it is not there. Holes do not count.
pub(crate) fn usage(path: &Path) -> Result<u64, StoreError> {
    let mut total = 0_u64;
    let mut open = vec![(path.to_owned(), 0)];
    while let Some((next, depth)) = open.pop() {
        let found = match fs::symlink_metadata(&next) {
            Ok(found) => found,
            // Files come and go while a path is measured.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(StoreError::io("measure", &next)(error)),
        };
        total = total.saturating_add(found.blocks().saturating_mul(STAT_BLOCK));
        if found.is_dir() && depth < DEPTH_MAX {
            match fs::read_dir(&next) {
                Ok(entries) => open.extend(entries.flatten().map(|entry| (entry.path(), depth + 1))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(StoreError::io("measure", &next)(error)),
            }
        }
    }
    Ok(total)
}

/// Names and lengths of the regular files in the flat directory `dir`, in name order.
///
/// A name that is not UTF-8 and anything but a regular file is an error: a sector directory holds neither.
pub(crate) fn flat_listing(dir: &Path) -> Result<Vec<(String, u64)>, StoreError> {
    let foreign =
        |path: &Path| StoreError::Archive { reason: format!("{path:?} is not a plain file of a sector") };
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(StoreError::io("list", dir))? {
        let path = entry.map_err(StoreError::io("list", dir))?.path();
        let found = fs::metadata(&path).map_err(StoreError::io("look at", &path))?;
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| foreign(&path))?;
        if !found.is_file() {
            return Err(foreign(&path));
        }
        files.push((name.to_owned(), found.len()));
    }
    files.sort();
    Ok(files)
}

/// Whether two copies of a sector's file have the same names and lengths.
pub(crate) fn same_shape(one: &Path, other: &Path) -> Result<bool, StoreError> {
    Ok(shape(one)? == shape(other)?)
}

/// Names and lengths: of a directory's files, or of the one file under the empty name.
pub(crate) fn shape(path: &Path) -> Result<Vec<(String, u64)>, StoreError> {
    let found = fs::metadata(path).map_err(StoreError::io("look at", path))?;
    if found.is_dir() { flat_listing(path) } else { Ok(vec![(String::new(), found.len())]) }
}

/// Creates `path` for writing (0644); it must not exist.
pub(crate) fn create_new(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)
        .map_err(StoreError::io("create", path))
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut file = create_new(path)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(StoreError::io("write", path))
}

/// A fresh name in the same directory.
pub(crate) fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", Uuid::new_v4()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_rename_that_replaces_nothing_nothing_is_replaced_either() {
        for is_dir in [false, true] {
            let dir = tempfile::tempdir().expect("a directory");
            let (from, to) = (dir.path().join("aside"), dir.path().join("file"));
            let make = |at: &Path, text: &str| {
                let file = if is_dir { at.join("member") } else { at.to_owned() };
                fs::create_dir_all(file.parent().expect("a place")).expect("made");
                fs::write(file, text).expect("written");
            };
            let read = |at: &Path| fs::read_to_string(if is_dir { at.join("member") } else { at.to_owned() });
            make(&from, "the only one");
            link_to_free(&from, &to).expect("its place is free");
            assert_eq!(read(&to).expect("put back"), "the only one");
            assert!(!from.exists());

            make(&from, "an older one");
            let error = link_to_free(&from, &to).expect_err("its place is taken");
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(
                (read(&to).expect("untouched"), read(&from).expect("kept")),
                ("the only one".into(), "an older one".into())
            );
        }
    }

    #[test]
    fn one_file_with_both_names_since_a_process_ended_between_them_keeps_the_right_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let (from, to) = (dir.path().join("aside"), dir.path().join("file"));
        fs::write(&from, "the only one").expect("written");
        fs::hard_link(&from, &to).expect("killed after this");
        link_to_free(&from, &to).expect("taken up");
        assert!(!from.exists());
        assert_eq!(fs::read_to_string(&to).expect("there"), "the only one");
    }
}

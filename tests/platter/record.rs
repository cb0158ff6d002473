//! What a disk has for certain: the bytes of each file as of its last fsync, the names of each directory as of its own.
//! Shared by the library that is put under the processes (`shim.rs`) and by the test that cuts their power (`mod.rs`).
//! Never: changes what it records.
//!
//! A file or directory is known by its inode and the time of its birth, since inodes are used again.

use std::fs::{self, File, Metadata};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Whose names and bytes are kept: everything below this directory.
pub const ROOT: &str = "PLATTER_ROOT";
/// Where they are kept.
pub const KEPT: &str = "PLATTER_KEPT";

/// What something on the disk is known by, whatever it is called.
pub fn identity(found: &Metadata) -> String {
    let born = found.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    format!("{}-{}", found.ino(), born.as_nanos())
}

/// Where the bytes of a file are kept.
pub fn bytes_of(kept: &Path, identity: &str) -> PathBuf {
    kept.join(format!("f-{identity}"))
}

/// Where the names in a directory are kept.
pub fn names_of(kept: &Path, identity: &str) -> PathBuf {
    kept.join(format!("d-{identity}"))
}

/// One at a time: of two records of one file the later one must win.
pub fn turn(kept: &Path) -> io::Result<File> {
    let lock = File::options().create(true).append(true).open(kept.join("lock"))?;
    lock.lock()?;
    Ok(lock)
}

/// Keeps what lies behind an open descriptor, given as `/proc/self/fd/<number>` or as a path. Files that are no more and things
/// that are neither file nor directory have nothing to keep.
pub fn keep(open: &Path, kept: &Path) -> io::Result<()> {
    let found = fs::metadata(open)?;
    let identity = identity(&found);
    if found.is_dir() {
        replace(&names_of(kept, &identity), &names(open)?)
    } else if found.is_file() && found.nlink() > 0 {
        let target = bytes_of(kept, &identity);
        let beside = target.with_extension("new");
        fs::copy(open, &beside)?;
        File::options().write(true).open(&beside)?.set_modified(found.modified()?)?;
        fs::rename(beside, target)
    } else {
        Ok(())
    }
}

/// The names in a directory, one after the other as `kind identity name` and a zero byte.
fn names(dir: &Path) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // It may go meanwhile.
        let Ok(found) = fs::symlink_metadata(dir.join(entry.file_name())) else { continue };
        let kind = if found.is_dir() { 'd' } else { 'f' };
        write!(all, "{kind} {} ", identity(&found))?;
        all.extend_from_slice(entry.file_name().as_bytes());
        all.push(0);
    }
    Ok(all)
}

fn replace(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = target.with_extension("new");
    fs::write(&beside, bytes)?;
    fs::rename(beside, target)
}

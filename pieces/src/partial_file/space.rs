//! Disk space of ranges of a file: reserved, given back, made zero. The only place that knows `fallocate`.
//!
//! Not every file system can do each of these; what cannot be done is told apart from what failed. Never changes a
//! file's length.

use std::fs::File;
use std::io;
use std::ops::Range;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

const KEEP: FallocateFlags = FallocateFlags::FALLOC_FL_KEEP_SIZE;

/// Reserves space, so that writing there cannot fail for want of it. Does nothing where the file system cannot.
pub(super) fn reserve(file: &File, range: Range<u64>) -> io::Result<()> {
    allocate(file, KEEP, range)?;
    Ok(())
}

/// Gives space back. An error where the file system cannot.
pub(super) fn punch(file: &File, range: Range<u64>) -> io::Result<()> {
    if allocate(file, KEEP | FallocateFlags::FALLOC_FL_PUNCH_HOLE, range)? {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::Unsupported, "the file system cannot free a part of a file"))
    }
}

/// Makes a range read as zeros without writing it, its space staying reserved. False where the file system cannot.
pub(super) fn clear(file: &File, range: Range<u64>) -> io::Result<bool> {
    if allocate(file, KEEP | FallocateFlags::FALLOC_FL_ZERO_RANGE, range.clone())? {
        return Ok(true);
    }
    // tmpfs and others know holes only.
    if !allocate(file, KEEP | FallocateFlags::FALLOC_FL_PUNCH_HOLE, range.clone())? {
        return Ok(false);
    }
    reserve(file, range)?;
    Ok(true)
}

/// One `fallocate`; false where the file system does not know the mode.
fn allocate(file: &File, mode: FallocateFlags, range: Range<u64>) -> io::Result<bool> {
    if range.is_empty() {
        return Ok(true);
    }
    let too_far = |_| io::Error::from(io::ErrorKind::FileTooLarge);
    let start = i64::try_from(range.start).map_err(too_far)?;
    let len = i64::try_from(range.end - range.start).map_err(too_far)?;
    loop {
        match fallocate(file, mode, start, len) {
            Ok(()) => return Ok(true),
            Err(Errno::EINTR) => {}
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
    }
}

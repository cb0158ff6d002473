//! Writing a partial file's data around the page cache: a piece of gigabytes would only push out what others need, and
//! copying it there costs the time in which another piece could be hashed.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::OFlag;

use super::{PartialFile, PartialFileError};

/// Writes padded bytes to a partial file, directly where the file system lets it.
#[derive(Debug)]
pub(crate) struct DirectWriter<'a> {
    file: &'a PartialFile,
    /// The same file, opened for direct writing.
    direct: Option<File>,
    /// Whether direct writing was refused.
    refused: AtomicBool,
}

impl<'a> DirectWriter<'a> {
    /// A writer to an open file.
    pub(crate) fn new(file: &'a PartialFile) -> Self {
        // By descriptor, so that it is this very file, whatever its name means by now.
        let name = format!("/proc/self/fd/{}", file.file.as_raw_fd());
        let direct = OpenOptions::new().write(true).custom_flags(OFlag::O_DIRECT.bits()).open(name).ok();
        Self { file, direct, refused: AtomicBool::new(false) }
    }

    /// Writes all of `padded` or fails. Works for any length, offset and buffer; fast are those that the disk's blocks
    /// divide.
    pub(crate) fn write_at(&self, padded: &[u8], offset: u64) -> Result<(), PartialFileError> {
        let range = self.file.range(offset, padded.len() as u64)?;
        if let Some(direct) = self.direct.as_ref().filter(|_| !self.refused.load(Ordering::Relaxed)) {
            match direct.write_all_at(padded, range.start) {
                Ok(()) => return Ok(()),
                // Not possible here, or not with this alignment: through the page cache then, from now on.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    self.refused.store(true, Ordering::Relaxed);
                }
                Err(error) => return Err(self.file.failed("write", error)),
            }
        }
        self.file.write_at(padded, offset)
    }
}

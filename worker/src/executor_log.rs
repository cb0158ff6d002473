//! What an executor writes to its standard output and error: a file in its call's directory, so that it can go on writing
//! when its worker dies. Only its end is of use, so its beginning is given up while it grows.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

/// Disk space from which on a log is cut (bytes). Between two cuts it may take more.
pub(crate) const DISK_MAX: u64 = 8 << 20;
/// What a cut keeps of the log's end (bytes).
const KEPT: u64 = 1 << 20;
/// How many lines of the log an error repeats, and how far back they are looked for.
const LINES: usize = 50;
const TAIL: u64 = 16 << 10;

/// Makes an empty log.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    // Every write goes to the end, also after a cut to nothing.
    let log = OpenOptions::new().create(true).append(true).open(path)?;
    log.set_len(0)?;
    Ok(log)
}

/// Gives the disk space of a large log back, all but its end. What is written meanwhile is not touched: the bytes keep
/// their places, and those given up read as zeros. A file system that cannot do that loses the end too.
pub(crate) fn cut(path: &Path) {
    let cut = || -> io::Result<()> {
        let log = OpenOptions::new().write(true).open(path)?;
        let found = log.metadata()?;
        if found.blocks() * 512 <= DISK_MAX {
            return Ok(());
        }
        let given_up = i64::try_from(found.len().saturating_sub(KEPT)).unwrap_or(i64::MAX);
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match fallocate(&log, hole, 0, given_up) {
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => log.set_len(0),
            done => Ok(done?),
        }
    };
    if let Err(error) = cut() {
        tracing::warn!(path = %path.display(), %error, "an executor's log could not be cut");
    }
}

/// The last lines of a log.
pub(crate) fn tail(path: &Path) -> String {
    let tail = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = tail().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    match lines.len() {
        0 => "(none)".into(),
        count => lines[count.saturating_sub(LINES)..].join("\n"),
    }
}

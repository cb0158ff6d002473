//! The lock by which one process alone has a manager's or a worker's repo: the file `repo.lock`, with the holder's process id
//! in it as a courtesy. Knows nothing of what the repo holds besides.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The lock file's name.
const NAME: &str = "repo.lock";
/// A holder that was killed may have just forked: that child has the lock, too, until it becomes its program.
const FORKED_MAX: Duration = Duration::from_secs(5);
/// Between two looks at such a lock.
const LOOK: Duration = Duration::from_millis(5);

/// The lock, held until this is dropped.
#[derive(Debug)]
pub struct RepoLock {
    file: File,
    path: PathBuf,
}

impl RepoLock {
    /// Takes it. Where the process that is named in the file has ended, what it has forked gets a few seconds to let go;
    /// this thread waits meanwhile.
    ///
    /// # Errors
    /// A process that runs holds it, or the file system refuses.
    pub fn take(repo: &Path) -> Result<Self, RepoLockError> {
        let path = repo.join(NAME);
        let io = |source| RepoLockError::Io { path: path.clone(), source };
        let mut open = OpenOptions::new();
        let mut file =
            open.read(true).write(true).create(true).truncate(false).mode(0o644).open(&path).map_err(io)?;
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(source)) => return Err(io(source)),
                Err(TryLockError::WouldBlock) => {
                    let holder = holder(&mut file);
                    if begun.elapsed() > FORKED_MAX || holder.parse().is_ok_and(is_running) {
                        return Err(RepoLockError::InUse { holder });
                    }
                    std::thread::sleep(LOOK);
                }
            }
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(io)?;
        write!(file, "{}", std::process::id()).map_err(io)?;
        Ok(Self { file, path })
    }
}

impl Drop for RepoLock {
    /// A process that is forked has the file open, too, until it becomes its program: that must not hold the repo longer.
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            tracing::warn!(path = %self.path.display(), %error, "the repo's lock ends with this process");
        }
    }
}

/// The process id in the file, or `unknown`.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(32).read_to_string(&mut text));
    match text.trim() {
        "" => "unknown".to_owned(),
        _ if read.is_err() => "unknown".to_owned(),
        holder => holder.to_owned(),
    }
}

fn is_running(process: u32) -> bool {
    Path::new("/proc").join(process.to_string()).exists()
}

/// Why a repo is not ours.
#[derive(Debug)]
pub enum RepoLockError {
    /// Somebody else's.
    InUse {
        /// The process id in the lock file, or `unknown`.
        holder: String,
    },
    /// The file system refused.
    Io {
        /// The lock file.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_holder_has_forked_is_waited_for_and_who_runs_is_named() {
        let repo = tempfile::tempdir().unwrap();
        let held = RepoLock::take(repo.path()).unwrap();
        let named = RepoLock::take(repo.path()).unwrap_err();
        let ours = std::process::id().to_string();
        assert!(matches!(&named, RepoLockError::InUse { holder } if *holder == ours), "{named:?}");

        // No process has this number.
        std::fs::write(repo.path().join(NAME), u32::MAX.to_string()).unwrap();
        let (begun, begins) = std::sync::mpsc::channel();
        let dir = repo.path().to_owned();
        let next = std::thread::spawn(move || {
            begun.send(()).unwrap();
            RepoLock::take(&dir).map(drop)
        });
        begins.recv().unwrap();
        drop(held);
        next.join().unwrap().unwrap();
    }

    #[test]
    fn a_lock_that_is_let_go_is_free_although_a_forked_process_has_the_file() {
        let repo = tempfile::tempdir().unwrap();
        let lock = RepoLock::take(repo.path()).unwrap();
        // What a process has between fork and exec.
        let _forked = lock.file.try_clone().unwrap();
        drop(lock);
        RepoLock::take(repo.path()).unwrap();
    }
}

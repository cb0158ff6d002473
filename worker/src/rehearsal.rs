//! The executor of a rehearsal: plays one task with files of the true names and lengths and nothing in them, in the time
//! that the task would take, divided by a factor. What it reports is marked, see [`sealtasks::rehearsal`].
//!
//! It keeps to the seam of every executor (`proofs/EXECUTORS.md`), so that transfers, locks, space, aborts and crashes are
//! those of real sealing. Never: a byte of a real sector. A file that it is to work on must be as long as a rehearsal
//! makes it.

mod lengths;
mod play;

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sealtasks::{ExecutorFailure, ExecutorReport, ExecutorRequest, FailureClass, TaskInput, TaskOutput};

pub use lengths::cache_files;

/// Longest request read, in bytes; that of the seam.
const REQUEST_MAX: u64 = 256 << 20;

/// Plays the task of the request file and writes the report file: whole or not at all. `length` says how long a task takes;
/// `stream` has the piece's bytes, which are read to their end and counted. Whether it reports success.
///
/// # Errors
/// The request cannot be read, or the report cannot be written.
pub fn exec_files(
    input: &Path,
    output: &Path,
    stream: impl FnOnce() -> io::Result<File>,
    length: impl Fn(&ExecutorRequest) -> Duration,
) -> Result<bool, RehearsalError> {
    let request = read(input)?;
    let length = length(&request);
    let done = match stream_of(&request, stream) {
        Ok(()) => play::perform(&request, length),
        Err(failure) => Err(failure),
    };
    let is_done = done.is_ok();
    let report = match done {
        Ok(output) => ExecutorReport::Done(output),
        Err(failure) => ExecutorReport::Failed(failure),
    };
    write(output, &report).map_err(|source| RehearsalError { path: output.to_owned(), source })?;
    Ok(is_done)
}

fn read(input: &Path) -> Result<ExecutorRequest, RehearsalError> {
    let failed = |source| RehearsalError { path: input.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(input).and_then(|file| file.take(REQUEST_MAX).read_to_end(&mut bytes)).map_err(failed)?;
    let request: ExecutorRequest =
        serde_json::from_slice(&bytes).map_err(|error| failed(io::Error::other(error)))?;
    if request.version != ExecutorRequest::VERSION {
        return Err(failed(io::Error::other("a request of another version")));
    }
    Ok(request)
}

/// Takes the piece's bytes, as a real executor does: whoever sends them must not be left waiting.
fn stream_of(
    request: &ExecutorRequest,
    stream: impl FnOnce() -> io::Result<File>,
) -> Result<(), ExecutorFailure> {
    let TaskInput::AddPiece(piece) = &request.work else { return Ok(()) };
    if piece.source != sealtasks::PieceSource::Stream {
        return Ok(());
    }
    let taken = stream().and_then(|mut bytes| io::copy(&mut bytes, &mut io::sink()));
    match taken {
        Ok(taken) if taken == piece.size.get() => Ok(()),
        Ok(taken) => Err(ExecutorFailure {
            class: FailureClass::Network,
            message: format!("the piece has {taken} bytes; expected {}", piece.size),
        }),
        Err(error) => Err(ExecutorFailure {
            class: FailureClass::Network,
            message: format!("the piece's bytes cannot be read: {error}"),
        }),
    }
}

fn write(output: &Path, report: &ExecutorReport) -> io::Result<()> {
    let temporary = output.with_extension("json.tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(report)?)?;
    file.sync_all()?;
    fs::rename(&temporary, output)?;
    File::open(output.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// A request that cannot be read or a report that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", .path.display())]
pub struct RehearsalError {
    /// The file.
    path: PathBuf,
    /// Why.
    source: io::Error,
}

type Played = Result<TaskOutput, ExecutorFailure>;

#[cfg(test)]
mod tests;

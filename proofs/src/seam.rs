//! The executor seam: a request file in, a report file out. See `EXECUTORS.md`.
//!
//! The report appears whole or not at all: it is written to a temporary name, synced, renamed, and the directory is
//! synced. A crash loses at most the temporary file.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::FromRawFd;
use std::path::{Path, PathBuf};

use sealtasks::{ExecutorFailure, ExecutorReport, ExecutorRequest, FailureClass, PieceSource, TaskInput};
use serde::Deserialize;
use serde_json::Value;

use crate::failure::chain;

/// The largest request that is read, in bytes. A Commit2 request, the largest, carries about 40 MB for 64 GiB.
pub const REQUEST_BYTES_MAX: u64 = 256 << 20;

/// The file descriptor that piece bytes come on.
pub const PIECE_DESCRIPTOR: i32 = 3;

/// How an executor run ended. The number is the process's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 0: the report says done.
    Done,
    /// 1: the report says failed.
    Failed,
    /// 2: the request could not be understood; the report says so.
    Refused,
}

impl Outcome {
    /// The exit code.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Refused => 2,
        }
    }
}

/// There is no report; exit code 3.
#[derive(Debug, thiserror::Error)]
pub enum SeamError {
    /// The output's path cannot hold a file.
    #[error("{} names no file in a directory; give the path the report is to be written to", path.display())]
    OutputPath {
        /// The path as given.
        path: PathBuf,
    },
    /// The report could not be written.
    #[error("writing the report {}", path.display())]
    Report {
        /// Where it was to go.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The report could not be put into JSON.
    #[error("encoding the report")]
    Encode(#[source] serde_json::Error),
}

impl SeamError {
    /// The exit code: 3.
    pub const fn exit_code(&self) -> u8 {
        3
    }
}

/// Reads the request at `input`, does it, writes the report to `output`. Piece bytes come on descriptor 3 when the
/// input's source is a stream.
///
/// Must run before the process opens descriptors of its own, so that descriptor 3 is the one it was started with.
pub fn exec_files(input: &Path, output: &Path) -> Result<Outcome, SeamError> {
    exec_files_and(input, output, || {})
}

/// The same, with `worked` called when the work is done and its report not written yet.
///
/// # Errors
/// As there.
pub fn exec_files_and(input: &Path, output: &Path, worked: impl FnOnce()) -> Result<Outcome, SeamError> {
    let offered = stream_offered();
    let (report, outcome) = match read_request(input) {
        Err(error) => (
            ExecutorReport::Failed(ExecutorFailure {
                class: FailureClass::Environment,
                message: chain(&error),
            }),
            Outcome::Refused,
        ),
        Ok(request) => {
            let stream = (offered && wants_stream(&request.work)).then(take_stream);
            match crate::execute(request, stream) {
                Ok(done) => (ExecutorReport::Done(done), Outcome::Done),
                Err(failure) => (ExecutorReport::Failed(failure), Outcome::Failed),
            }
        }
    };
    worked();
    write_report(output, &report)?;
    Ok(outcome)
}

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("reading the request {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the request {} is longer than {REQUEST_BYTES_MAX} bytes", path.display())]
    TooLong { path: PathBuf },
    #[error("the request is no JSON")]
    Json(#[source] serde_json::Error),
    #[error("the request's `version` is {found}; this executor speaks version {}", ExecutorRequest::VERSION)]
    Version { found: String },
    #[error("the request does not have the form that EXECUTORS.md gives")]
    Form(#[source] serde_json::Error),
}

fn read_request(path: &Path) -> Result<ExecutorRequest, RequestError> {
    let error = |source| RequestError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(error)?;
    let mut bytes = Vec::new();
    file.take(REQUEST_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(error)?;
    if bytes.len() as u64 > REQUEST_BYTES_MAX {
        return Err(RequestError::TooLong { path: path.to_owned() });
    }
    parse_request(&bytes)
}

/// Parses a request and refuses what it does not know.
pub(crate) fn parse_request(bytes: &[u8]) -> Result<ExecutorRequest, RequestError> {
    let given: Value = serde_json::from_slice(bytes).map_err(RequestError::Json)?;
    let version = given.get("version");
    if version.and_then(Value::as_u64) != Some(ExecutorRequest::VERSION.into()) {
        let found = version.map_or_else(|| "missing".to_owned(), Value::to_string);
        return Err(RequestError::Version { found });
    }
    // The types refuse unknown keys, at every depth.
    ExecutorRequest::deserialize(given).map_err(RequestError::Form)
}

fn wants_stream(work: &TaskInput) -> bool {
    match work {
        TaskInput::DataCid(input) => input.source == PieceSource::Stream,
        TaskInput::AddPiece(input) => input.source == PieceSource::Stream,
        TaskInput::PreCommit1(_)
        | TaskInput::PreCommit2(_)
        | TaskInput::Commit1(_)
        | TaskInput::Commit2(_)
        | TaskInput::Finalize(_)
        | TaskInput::ReleaseUnsealed(_)
        | TaskInput::Fetch(_)
        | TaskInput::Move(_)
        | TaskInput::Unseal(_)
        | TaskInput::Verify(_)
        | TaskInput::Scrub(_)
        | TaskInput::Vanilla(_) => false,
    }
}

/// Whether the process has a pipe, a socket or a file on descriptor 3. Anything else there (an epoll instance, say) was
/// opened by the process itself.
fn stream_offered() -> bool {
    let target = std::fs::read_link(format!("/proc/self/fd/{PIECE_DESCRIPTOR}")).unwrap_or_default();
    let name = target.to_string_lossy();
    ["/", "pipe:", "socket:"].iter().any(|kind| name.starts_with(kind))
}

fn take_stream() -> File {
    #[expect(unsafe_code, reason = "the seam fixes the descriptor's number; std has no safe way to take it")]
    // SAFETY: it was open when the executor began, before anything here opened a file, and the seam says that it then
    // belongs to the executor, which takes it in this one place, once.
    unsafe {
        File::from_raw_fd(PIECE_DESCRIPTOR)
    }
}

fn write_report(path: &Path, report: &ExecutorReport) -> Result<(), SeamError> {
    let bytes = serde_json::to_vec(report).map_err(SeamError::Encode)?;
    let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
        return Err(SeamError::OutputPath { path: path.to_owned() });
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let mut temporary_name = name.to_owned();
    temporary_name.push(".tmp");
    let temporary = parent.join(temporary_name);
    let write = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        File::open(parent)?.sync_all()
    };
    write().map_err(|source| SeamError::Report { path: path.to_owned(), source })
}

//! What an executor reports, or what is made of its silence. Never: waits for one.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;

use nix::sys::signal::Signal;
use nix::sys::statvfs::statvfs;
use sealtasks::{ExecutorFailure, ExecutorReport, ExecutorRequest, FailureClass, SectorFiles, TaskOutput};

use crate::executor_log;

/// Longest report read, in bytes: C1's output of a 64 GiB sector is below 100 MiB, in base64 below 134 MiB.
const REPORT_MAX: u64 = 256 << 20;
/// Stands for the exit status of an executor that was not this process's child.
const UNTOLD: &str = "how is not known: an earlier life of the worker started it";

/// `silent` makes the failure of an executor that ended without a report, given what is known of it.
pub(crate) fn read_report(
    dir: &Path,
    status: Option<ExitStatus>,
    silent: impl FnOnce(String) -> ExecutorFailure,
) -> Result<ExecutorReport, ExecutorFailure> {
    let path = dir.join("report.json");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let log = executor_log::tail(&dir.join("log"));
            let how = status.map_or_else(|| UNTOLD.to_owned(), |status| status.to_string());
            return Err(silent(format!(
                "the executor ended without a report ({how}); its last words:\n{log}"
            )));
        }
        Err(error) => return Err(compute(format!("the executor's report cannot be read: {error}"))),
    };
    let mut bytes = Vec::new();
    file.take(REPORT_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| compute(format!("the executor's report cannot be read: {error}")))?;
    if bytes.len() as u64 > REPORT_MAX {
        return Err(compute("the executor's report is longer than 256 MiB".into()));
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| compute(format!("the executor's report is no ExecutorReport: {error}")))
}

/// The proofs libraries write through mappings, where a full disk is no error but the signal SIGBUS; so is a broken one. Of an
/// executor that was not this process's child the signal is not known: where the disk is full that is the reason.
pub(crate) fn killed(
    status: Option<ExitStatus>,
    message: String,
    files: &SectorFiles,
    sector_bytes: u64,
) -> ExecutorFailure {
    if status.is_some_and(|status| status.signal() != Some(Signal::SIGBUS as i32)) {
        return compute(message);
    }
    // Everything large in sealing comes in units of the sector's size.
    let full = files.0.values().filter_map(|file| file.parent()).find(|dir| {
        let room = statvfs(*dir).map(|disk| disk.blocks_available().saturating_mul(disk.fragment_size()));
        room.is_ok_and(|room| room < sector_bytes)
    });
    let (class, why) = match full {
        Some(dir) => {
            (FailureClass::Space, format!("the disk of {} is full; free space there", dir.display()))
        }
        None if status.is_none() => return compute(message),
        None => {
            (FailureClass::Environment, "a disk failed under a mapped file; see the kernel's log".to_owned())
        }
    };
    ExecutorFailure { class, message: format!("{why}: {message}") }
}

/// Whether an output is of the kind the request asks for.
pub(crate) fn answers(request: &ExecutorRequest, output: &TaskOutput) -> bool {
    use sealtasks::TaskInput as In;
    use sealtasks::TaskOutput as Out;
    matches!(
        (&request.work, output),
        (In::DataCid(_), Out::DataCid(_))
            | (In::AddPiece(_), Out::AddPiece(_))
            | (In::PreCommit1(_), Out::PreCommit1(_))
            | (In::PreCommit2(_), Out::PreCommit2 { .. })
            | (In::Commit1(_), Out::Commit1(_))
            | (In::Commit2(_), Out::Commit2(_))
            | (In::Finalize(_), Out::Finalize)
            | (In::ReleaseUnsealed(_), Out::ReleaseUnsealed)
            | (In::Unseal(_), Out::Unseal)
            | (In::Verify(_), Out::Verify(_))
            | (In::Scrub(_), Out::Scrub(_))
            | (In::Vanilla(_), Out::Vanilla(_))
    )
}

/// A failure of the work itself.
pub(crate) fn compute(message: String) -> ExecutorFailure {
    ExecutorFailure { class: FailureClass::Compute, message }
}

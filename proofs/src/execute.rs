//! One task, from a typed request to a typed result.

use std::any::Any;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};

use sealtasks::{ExecutorFailure, ExecutorRequest, TaskInput, TaskOutput};

use crate::files::Files;
use crate::{TaskError, data, pre_commit2, scrub, seal, settings, unseal, vanilla, verify};

/// Does what `request` says. `piece_stream` carries the piece bytes when the input's source is a stream.
///
/// The proofs libraries read their settings from the environment and from `rust-fil-proofs.config.toml` in the working
/// directory once per process, so whoever calls this sets both up before the first call.
///
/// A panic inside the library becomes a failure of class `compute`.
pub fn execute(request: ExecutorRequest, piece_stream: Option<File>) -> Result<TaskOutput, ExecutorFailure> {
    let task = short_code(&request.work);
    settings::check_process().map_err(TaskError::from)?;
    let sector = request.sector;
    tracing::info!(task, sector = %sector.id, proof = sector.proof.number(), "executor starts");
    // Nothing outlives the closure but the files on disk, which a failed task leaves to be redone.
    let outcome = catch_unwind(AssertUnwindSafe(|| run(task, request, piece_stream)));
    let result = outcome
        .unwrap_or_else(|panic| Err(TaskError::Panic { doing: task, message: panic_text(panic.as_ref()) }));
    match &result {
        Ok(_) => tracing::info!(task, sector = %sector.id, "executor is done"),
        Err(error) => tracing::warn!(task, sector = %sector.id, %error, "executor failed"),
    }
    result.map_err(ExecutorFailure::from)
}

/// The code that names an input in messages: the task type's, or that of those that have none.
pub(crate) fn short_code(work: &TaskInput) -> &'static str {
    match work {
        TaskInput::Move(_) => "MOVE",
        TaskInput::Verify(_) => "VERIFY",
        TaskInput::Scrub(_) => "SCRUB",
        TaskInput::Vanilla(_) => "VANILLA",
        scheduled => scheduled.task_type().map_or("VERIFY", |task| task.short()),
    }
}

fn run(task: &'static str, request: ExecutorRequest, stream: Option<File>) -> Result<TaskOutput, TaskError> {
    let ExecutorRequest { sector, work, files: named, .. } = request;
    let files = Files { task, named: &named };
    match work {
        TaskInput::DataCid(input) => data::data_cid(&input, stream),
        TaskInput::AddPiece(input) => data::add_piece(&sector, &files, &input, stream),
        TaskInput::PreCommit1(input) => seal::pre_commit1(&sector, &files, &input),
        TaskInput::PreCommit2(input) => pre_commit2::pre_commit2(&sector, &files, &input),
        TaskInput::Commit1(input) => seal::commit1(&sector, &files, &input),
        TaskInput::Commit2(input) => verify::commit2(&sector, &input),
        TaskInput::Finalize(_) => seal::finalize(&sector, &files),
        TaskInput::ReleaseUnsealed(input) => unseal::release(&sector, &files, &input),
        TaskInput::Unseal(input) => unseal::unseal(&sector, &files, &input),
        TaskInput::Verify(input) => verify::verify(&sector, &input),
        TaskInput::Scrub(input) => scrub::scrub(&sector, &files, &input),
        TaskInput::Vanilla(input) => vanilla::vanilla(&sector, &files, &input),
        TaskInput::Fetch(_) | TaskInput::Move(_) => Err(TaskError::NoExecutor { task }),
    }
}

pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

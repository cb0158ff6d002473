//! `exec`: this process is an executor. It reads a request file and writes a report file; see `proofs/EXECUTORS.md`.

use std::fs::File;
use std::io::{BufReader, Read};
use std::process::ExitCode;
use std::time::Duration;

use sched::builtin_duration;
use sealtasks::{ExecutorReport, ExecutorRequest, SealTaskType};
use serde::Deserialize;
use worker::waiting;

use crate::args::ExecArgs;
use crate::executors::Profile;
use crate::exit::{Code, Failure, report};

/// Only what says which task a request is for.
#[derive(Deserialize)]
struct Request {
    work: Work,
}

#[derive(Deserialize)]
struct Work {
    task: String,
}

/// Runs the task. The exit codes are the seam's own: 0 done, 1 failed, 2 request refused, 3 no report. A process that a worker
/// has started ahead waits for its task first.
pub fn run(args: &ExecArgs) -> ExitCode {
    if args.task != waiting::WORD {
        return perform(args);
    }
    match waiting::wait(proofs::warm) {
        Ok(Some(waiting::Work { task, input, output })) => {
            perform(&ExecArgs { task, input, output, ..args.clone() })
        }
        Ok(None) => ExitCode::SUCCESS,
        Err(error) => report(Err(Failure::from_error(Code::Failed, &error))),
    }
}

fn perform(args: &ExecArgs) -> ExitCode {
    if args.task.eq_ignore_ascii_case("scrub") {
        super::storage_scrub::at_low_priority();
    }
    if let Some(failure) = wrong_task(args) {
        return report(Err(failure));
    }
    stores::crash_point("executor.begun");
    if let Some(speed) = args.rehearsal_speed {
        return rehearse(args, speed);
    }
    let executed =
        proofs::exec_files_and(&args.input, &args.output, || stores::crash_point("executor.worked"));
    stores::crash_point("executor.reported");
    match executed {
        Ok(outcome) => {
            if outcome != proofs::Outcome::Done {
                say_failure(args);
            }
            ExitCode::from(outcome.exit_code())
        }
        Err(error) => {
            let _ = report(Err(Failure::from_error(Code::Failed, &error)));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Plays the task. The exit codes are the seam's.
fn rehearse(args: &ExecArgs, speed: f64) -> ExitCode {
    let profile = match args.rehearsal_profile.as_deref().map(Profile::read).transpose() {
        Ok(profile) => profile.unwrap_or_default(),
        Err(failure) => return report(Err(failure)),
    };
    let length = |request: &ExecutorRequest| {
        let proof = request.sector.proof;
        let told = request.work.task_type().map(|task| {
            let built_in = || Duration::from_millis(builtin_duration(SealTaskType { task, proof }).get());
            profile.of(proof.sector_size(), task).unwrap_or_else(built_in)
        });
        told.unwrap_or_default().div_f64(speed)
    };
    let executed = worker::rehearsal::exec_files(&args.input, &args.output, piece_stream, length);
    stores::crash_point("executor.reported");
    match executed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            say_failure(args);
            ExitCode::from(1)
        }
        Err(error) => {
            let _ = report(Err(Failure::from_error(Code::Failed, &error)));
            ExitCode::from(3)
        }
    }
}

/// What was handed over as the piece's bytes.
fn piece_stream() -> std::io::Result<File> {
    File::open(format!("/proc/self/fd/{}", proofs::PIECE_DESCRIPTOR))
}

/// The report says why; so does stderr, for a person or a log.
fn say_failure(args: &ExecArgs) {
    let report_file = File::open(&args.output).ok().map(BufReader::new);
    let failed = report_file.and_then(|file| serde_json::from_reader::<_, ExecutorReport>(file).ok());
    if let Some(ExecutorReport::Failed(failure)) = failed {
        let _ = report(Err(Failure::new(Code::Failed, failure.message)));
    }
}

/// A request for another task than the command names. One that cannot be read is left to the executor, which says
/// why in its report.
fn wrong_task(args: &ExecArgs) -> Option<Failure> {
    let file = File::open(&args.input).ok()?.take(proofs::REQUEST_BYTES_MAX);
    let request: Request = serde_json::from_reader(BufReader::new(file)).ok()?;
    let asked = request.work.task;
    (!asked.eq_ignore_ascii_case(&args.task)).then(|| {
        Failure::new(Code::Usage, format!("the request is for task {asked}, the command for {}", args.task))
            .advise(format!("run `sealyard exec {}`", asked.to_ascii_lowercase()))
    })
}

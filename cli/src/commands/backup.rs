//! `backup`, and what `run --from-backup` begins with.

use std::path::Path;
use std::time::Duration;

use manager::backup::{self, Backup, BackupError, Generation, Looked};
use serde_json::{Value, json};

use super::daemon;
use crate::args::BackupArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::show::{bytes, clock, line, print_json, talk};

/// The shortest time between two looks with `--follow`.
const EVERY_MIN: Duration = Duration::from_secs(1);

/// Makes backups, or shows them.
pub async fn backup(repo: &Path, args: &BackupArgs) -> Outcome {
    if args.list {
        return list(args);
    }
    let mut backup = Backup::open(repo, &args.target).map_err(failed)?;
    if backup.shares_a_disk().map_err(failed)? {
        talk!(
            "note: {} is on the disk that the repo is on; one broken disk takes both",
            args.target.display()
        );
    }
    if !args.follow {
        let made = backup.make().map_err(failed)?;
        return if args.json { print_json(&document(&made)) } else { line(&words(&made, &args.target)) };
    }
    let every = daemon::parse_duration(&args.every)?.max(EVERY_MIN);
    let mut stop = std::pin::pin!(daemon::stop_requested(false));
    loop {
        // A disk that is away for a while is no reason to end: a backup that nobody makes any more is not missed until
        // it is needed.
        backup = match follow(backup, args).await? {
            (backup, Ok(())) => backup,
            (backup, Err(error)) => {
                let failure = Failure::from_error(Code::Failed, &error);
                talk!("no backup was made; trying again in {}s: {failure}", every.as_secs());
                backup
            }
        };
        tokio::select! {
            why = &mut stop => {
                talk!("stopping: {why}");
                return Ok(());
            }
            () = tokio::time::sleep(every) => {}
        }
    }
}

/// One look, off the async threads: Ctrl-C works meanwhile.
async fn follow(mut backup: Backup, args: &BackupArgs) -> Result<(Backup, Result<(), BackupError>), Failure> {
    let turn = move || {
        let made = backup.follow();
        (backup, made)
    };
    let ended = tokio::task::spawn_blocking(turn).await;
    let (backup, made) = ended.map_err(|error| Failure::from_error(Code::Failed, &error))?;
    match made {
        Ok(Some(made)) if args.json => line(&document(&made).to_string())?,
        Ok(Some(made)) => line(&words(&made, &args.target))?,
        Ok(None) => {}
        Err(error) => return Ok((backup, Err(error))),
    }
    Ok((backup, Ok(())))
}

/// Makes the repo of a manager that takes over.
pub fn take_over(from: &Path, repo: &Path) -> Outcome {
    let taken = backup::restore(from, repo).map_err(|error| match &error {
        BackupError::Repo(_) => failed(error).advise(
            "a manager that has taken over already is started without --from-backup; --repo names another place",
        ),
        _ => failed(error),
    })?;
    talk!(
        "took over from the manager of {} as of {} UTC; it must not be started again",
        taken.repo.display(),
        clock(taken.made_ms)
    );
    Ok(())
}

fn list(args: &BackupArgs) -> Outcome {
    let found = backup::list(&args.target).map_err(failed)?;
    if args.json {
        return print_json(&Value::Array(found.iter().map(looked).collect()));
    }
    for Looked { name, found } in &found {
        match found {
            Ok(generation) => line(&format!("{name}  {}", facts(generation)))?,
            Err(error) => line(&format!("{name}  unusable: {}", sealtasks::chain(error)))?,
        }
    }
    if found.is_empty() {
        talk!("there is no backup in {}", args.target.display());
    }
    Ok(())
}

fn looked(looked: &Looked) -> Value {
    match &looked.found {
        Ok(generation) => document(generation),
        Err(error) => json!({ "name": looked.name, "error": sealtasks::chain(error) }),
    }
}

fn document(generation: &Generation) -> Value {
    json!({
        "name": generation.directory_name(),
        "made_ms": generation.made_ms,
        "repo": generation.repo,
        "miner": format!("f0{}", generation.actor),
        "epoch": generation.epoch,
        "last_event": generation.last_event,
        "bytes": generation.bytes(),
        "files": generation.files().len(),
    })
}

fn words(generation: &Generation, target: &Path) -> String {
    format!("{}: {}", target.join(generation.directory_name()).display(), facts(generation))
}

fn facts(generation: &Generation) -> String {
    format!(
        "f0{} as of {} UTC, event {} of epoch {}, {} files with {}",
        generation.actor,
        clock(generation.made_ms),
        generation.last_event,
        generation.epoch,
        generation.files().len(),
        bytes(generation.bytes())
    )
}

fn failed(error: BackupError) -> Failure {
    let code = match error {
        BackupError::Repo(_) | BackupError::Config(_) | BackupError::State(_) | BackupError::None { .. } => {
            Code::Repo
        }
        BackupError::Io { .. }
        | BackupError::Busy { .. }
        | BackupError::Damaged { .. }
        | BackupError::Inside { .. } => Code::Failed,
    };
    Failure::from_error(code, &error)
}

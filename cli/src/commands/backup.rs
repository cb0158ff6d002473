//! `backup`, and what `run --from-backup` begins with.

use std::path::Path;
use std::time::Duration;

use manager::backup::{self, Backup, BackupError, Fetch, Generation, Looked};
use rpc::ManagerClient;
use rpc::api_info::Transport;
use serde_json::{Value, json};

use super::daemon;
use crate::args::BackupArgs;
use crate::connect;
use crate::exit::{Code, Failure, Outcome};
use crate::show::{bytes, clock, line, print_json, talk};
use crate::tls;

/// The value of --from that stands for the environment's.
const FROM_ENVIRONMENT: &str = "env";

/// The shortest time between two looks with `--follow`.
const EVERY_MIN: Duration = Duration::from_secs(1);

/// Makes backups, or shows them.
pub async fn backup(repo: &Path, args: &BackupArgs) -> Outcome {
    if args.list {
        return list(args);
    }
    if let Some(from) = &args.from {
        return fetch(repo, from, args).await;
    }
    let backup = Backup::open(repo, &args.target).map_err(failed)?;
    if backup.shares_a_disk().map_err(failed)? {
        talk!(
            "note: {} is on the disk that the repo is on; one broken disk takes both",
            args.target.display()
        );
    }
    if !args.follow {
        return said(&backup.make().map_err(failed)?, args);
    }
    again_and_again(args, backup, |mut backup| {
        let made = backup.follow();
        (backup, made)
    })
    .await
}

/// The same from a manager on another host, over the network.
async fn fetch(repo: &Path, from: &str, args: &BackupArgs) -> Outcome {
    let info = if from == FROM_ENVIRONMENT {
        connect::api_info(repo)?
    } else {
        from.parse().map_err(|error: rpc::api_info::ApiInfoError| {
            Failure::from_error(Code::Setting, &error).advise("correct --from")
        })?
    };
    let trust = tls::trust(|| None)?;
    let client = ManagerClient::trusting(&info, Transport::Http, &trust);
    let client = client.map_err(|error| Failure::from_error(Code::Setting, &error))?;
    let fetch = Fetch::open(&args.target).map_err(failed)?;
    let runtime = tokio::runtime::Handle::current();
    let turn = move |(fetch, client): (Fetch, ManagerClient)| {
        let made = runtime.block_on(fetch.follow(&client));
        ((fetch, client), made)
    };
    if args.follow {
        return again_and_again(args, (fetch, client), turn).await;
    }
    match off_the_runtime((fetch, client), turn).await?.1.map_err(failed)? {
        Some(made) => said(&made, args),
        None => {
            talk!("nothing was committed since the newest backup");
            list(args)
        }
    }
}

/// Makes a generation whenever there is something new, until the process is asked to stop.
async fn again_and_again<S: Send + 'static>(
    args: &BackupArgs,
    mut source: S,
    turn: impl Fn(S) -> (S, Result<Option<Generation>, BackupError>) + Clone + Send + 'static,
) -> Outcome {
    let every = daemon::parse_duration(&args.every)?.max(EVERY_MIN);
    let mut stop = std::pin::pin!(daemon::stop_requested(false));
    loop {
        let made;
        (source, made) = off_the_runtime(source, turn.clone()).await?;
        match made {
            Ok(Some(made)) if args.json => line(&document(&made).to_string())?,
            Ok(Some(made)) => line(&words(&made, &args.target))?,
            Ok(None) => {}
            // A disk or a host that is away for a while is no reason to end: a backup that nobody makes any more is not missed
            // until it is needed.
            Err(error) => {
                let failure = Failure::from_error(Code::Failed, &error);
                talk!("no backup was made; trying again in {}s: {failure}", every.as_secs());
            }
        }
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
async fn off_the_runtime<S: Send + 'static, T: Send + 'static>(
    source: S,
    turn: impl FnOnce(S) -> (S, T) + Send + 'static,
) -> Result<(S, T), Failure> {
    let ended = tokio::task::spawn_blocking(move || turn(source)).await;
    ended.map_err(|error| Failure::from_error(Code::Failed, &error))
}

fn said(made: &Generation, args: &BackupArgs) -> Outcome {
    if args.json { print_json(&document(made)) } else { line(&words(made, &args.target)) }
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
    let code = match &error {
        BackupError::Repo(_) | BackupError::Config(_) | BackupError::State(_) | BackupError::None { .. } => {
            Code::Repo
        }
        BackupError::Remote { source } => match source {
            rpc::ApiError::Unreachable { .. } => Code::Unreachable,
            rpc::ApiError::Unauthorized { .. } => Code::Token,
            rpc::ApiError::Remote { .. }
            | rpc::ApiError::Malformed { .. }
            | rpc::ApiError::Refused { .. } => Code::Failed,
        },
        BackupError::Io { .. }
        | BackupError::Busy { .. }
        | BackupError::Damaged { .. }
        | BackupError::Inside { .. } => Code::Failed,
    };
    Failure::from_error(code, &error)
}

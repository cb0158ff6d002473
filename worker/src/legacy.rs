//! What an earlier life of the worker left: its unfinished calls are sorted into those that go on and those that are given
//! up. Never: runs anything, or asks the manager about a call.
//!
//! | a crash of the worker | finds | and then |
//! |---|---|---|
//! | before the call was journalled | nothing; it was not answered either | the manager calls again |
//! | while files were acquired | `accepted` | given up: returned with code 101, the manager makes a new attempt |
//! | before the executor's process was journalled | `running` without a process | as the next two, by the call's directory |
//! | while the executor runs | `running`, the process is there | taken over: waited for, its result is returned |
//! | after the executor ended | `running`, a report in the call's directory | taken over: declared and returned as it ended |
//! | and the executor died too, or the machine | `running`, neither process nor report | given up, its files removed |
//! | while a piece was fed to the executor | `running`, and the feed broke with the worker | given up; the executor is killed first |
//! | after the result was journalled | `returning` | returned as it ended |
//! | after it was acknowledged | `acknowledged` | nothing; a repeated start is the same call |
//!
//! An executor of a call that is given up is dead before a file of it is removed and before the return is journalled, so
//! there are never two for one sector. One that does not end although killed, since it hangs in the kernel, keeps its call held
//! until it does (`call/lingering.rs`); the worker starts and serves its files meanwhile. The report decides after a crash of
//! the machine too: what it speaks of is on stable storage before it is written (see `proofs/EXECUTORS.md`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rpc::ApiError;
use rpc::api::AttemptAccount;
use sealtasks::{
    CallError, CallErrorCode, FileType, PieceSource, SectorId, SectorStorageInfo, TaskInput, WorkerId,
};
use stores::{BegunFile, Index as _, IndexError, StorageMeta, StoreError};
use tokio::time::Instant;
use uuid::Uuid;

use crate::confine::Confiner;
use crate::error::{WorkerError, chain};
use crate::files::room_of;
use crate::journal::{Accepted, Ended, Journal, Life, ProcessMark, Running, Unfinished};
use crate::manager_index::ManagerIndex;
use crate::process::{self, Orphan};

/// Between two questions to a manager that does not answer while the worker starts.
pub(crate) const MANAGER_RETRY: Duration = Duration::from_secs(1);

/// What is left of an earlier life and goes on in this one.
#[derive(Default)]
pub(crate) struct Left {
    pub(crate) survivors: Vec<Survivor>,
    /// Calls that are given up and whose executors have not ended yet.
    pub(crate) lingering: Vec<Unfinished>,
}

impl Left {
    /// The calls that this life holds.
    pub(crate) fn held(&self) -> BTreeSet<Uuid> {
        let go_on = self.survivors.iter().map(|survivor| &survivor.accepted);
        go_on
            .chain(self.lingering.iter().map(|lost| &lost.accepted))
            .map(|accepted| accepted.call.id)
            .collect()
    }

    /// What they had begun, with the room that it was promised.
    pub(crate) fn begun(&self) -> Vec<BegunFile> {
        let go_on = self.survivors.iter().flat_map(Survivor::begun);
        go_on.chain(self.lingering.iter().flat_map(Unfinished::begun)).collect()
    }

    /// Begins a life in the journal. It has the session of the one before while calls of that one go on and files are served at
    /// the same place: to any manager the worker then never went away, what it runs stays charged there, and no call is failed
    /// for a restart that it survived. With nothing taken over a new session is the better news, since a Lotus manager asks a
    /// worker for its name, memory and GPUs only once per session; and at another address it must be, since a Lotus manager
    /// takes a known session for a repetition and goes on dialling the old one.
    pub(crate) async fn begin_life(&self, journal: &Journal, urls: &[String]) -> Result<Life, WorkerError> {
        let url = urls.join(" ");
        let goes_on = !self.survivors.is_empty() || !self.lingering.is_empty();
        let last = journal.run(|journal| journal.last_life()).await?;
        let life = match last.filter(|last| goes_on && last.url == url) {
            Some(last) => last,
            None => Life { session: WorkerId(Uuid::new_v4()), url, joined: None },
        };
        let begun = life.clone();
        journal.run(move |journal| journal.begin_life(&begun)).await?;
        Ok(life)
    }
}

impl Unfinished {
    /// What it had begun, with the room that it was promised.
    pub(crate) fn begun(&self) -> Vec<BegunFile> {
        begun(&self.accepted, &self.input, self.created.clone())
    }
}

/// A call of an earlier life that goes on.
pub(crate) struct Survivor {
    pub(crate) accepted: Accepted,
    pub(crate) input: TaskInput,
    /// What its executor made or makes and was not there before.
    pub(crate) created: Vec<PathBuf>,
    pub(crate) running: Running,
    /// `None` = the executor has ended; its report is there.
    pub(crate) orphan: Option<Orphan>,
}

impl Survivor {
    /// What it makes, with the room that it was promised.
    pub(crate) fn begun(&self) -> Vec<BegunFile> {
        begun(&self.accepted, &self.input, self.created.clone())
    }
}

/// Sorts the calls that an earlier life left unfinished: those that go on, and those that are given up and whose executors do
/// not end by then. All others have ended in the journal when this returns, their executors are dead and their files gone.
pub(crate) async fn sort_out(
    journal: &Journal,
    name: &str,
    calls: &Path,
    index: &ManagerIndex,
    end: Instant,
) -> Result<Left, WorkerError> {
    let mut left = Left::default();
    for unfinished in journal.run(|journal| journal.unfinished()).await? {
        let call = unfinished.accepted.call.id;
        let dir = calls.join(call.to_string());
        let mark = match &unfinished.process {
            Some(mark) => Some(mark.clone()),
            None => process::leader(call, &dir).await.map_err(|_| WorkerError::Closed)?,
        };
        let lost = match surviving(unfinished, &dir, mark.as_ref()) {
            Ok(survivor) => {
                let pid = survivor.orphan.as_ref().map(|orphan| orphan.mark().pid);
                tracing::info!(call = %survivor.accepted.call, pid, "a call of an earlier life goes on");
                left.survivors.push(survivor);
                continue;
            }
            Err(lost) => Unfinished { process: mark, ..*lost },
        };
        match process::end_leftovers_by(end, lost.process.as_ref(), call, &dir).await {
            Ok(()) => give_up(lost, journal, name, index).await?,
            Err(error) => {
                tracing::error!(call = %lost.accepted.call, error, "its call stays held until it has ended");
                left.lingering.push(lost);
            }
        }
    }
    Ok(left)
}

/// Whether the call has a result, or can still get one from the executor with this mark.
fn surviving(
    unfinished: Unfinished,
    dir: &Path,
    mark: Option<&ProcessMark>,
) -> Result<Survivor, Box<Unfinished>> {
    let Some(running) = unfinished.running.clone().filter(|_| !is_fed(&unfinished.input)) else {
        return Err(Box::new(unfinished));
    };
    let orphan = mark.and_then(Orphan::find);
    // Looked for after the process: one that ends in between has written its report by then.
    if orphan.is_none() && !dir.join("report.json").exists() {
        return Err(Box::new(unfinished));
    }
    let Unfinished { accepted, input, created, .. } = unfinished;
    Ok(Survivor { accepted, input, created, running, orphan })
}

/// Whether the executor reads bytes from its worker. They end when the worker dies, which to DataCid looks like the end of
/// the piece.
const fn is_fed(input: &TaskInput) -> bool {
    let source = match input {
        TaskInput::AddPiece(piece) => piece.source,
        TaskInput::DataCid(piece) => piece.source,
        _ => return false,
    };
    matches!(source, PieceSource::Stream)
}

/// The executor of the call is dead.
async fn give_up(
    lost: Unfinished,
    journal: &Journal,
    name: &str,
    index: &ManagerIndex,
) -> Result<(), WorkerError> {
    let Unfinished { accepted, created, .. } = lost;
    let call = accepted.call;
    tracing::warn!(%call, "a call of an earlier life is given up");
    let ended = Ended { result: Err(restarted(name)), account: AttemptAccount::default() };
    let created = undeclared(index, accepted.sector.id, created).await?;
    let write = move |journal: &Journal| {
        remove_created(&created);
        journal.ended(call.id, &ended)
    };
    Ok(journal.run(write).await?)
}

/// What a call is returned with that this worker gives up: Lotus's words and code.
pub(crate) fn restarted(name: &str) -> CallError {
    let message = format!("worker [name: {name}] restarted");
    CallError { code: CallErrorCode::TempWorkerRestart, message }
}

/// Those of a call's files that the index does not list where they lie. One that it lists was finished: by this call, before
/// it could say so, or by a later attempt of another worker on a mount that both have. A manager
/// that does not answer is asked until it does.
pub(crate) async fn undeclared(
    index: &ManagerIndex,
    sector: SectorId,
    created: Vec<PathBuf>,
) -> Result<Vec<PathBuf>, WorkerError> {
    let mut begun = Vec::new();
    for file in created {
        let holders = match kind_of(&file) {
            Some(kind) => holders(index, sector, kind).await?,
            None => Vec::new(),
        };
        let path = file.ancestors().nth(2).map(Path::to_owned).unwrap_or_default();
        let id = tokio::task::spawn_blocking(move || StorageMeta::read(&path)?.validate(&path))
            .await
            .map_err(|_| WorkerError::Closed)?;
        match id {
            Ok((id, _)) if holders.iter().any(|holder| holder.id == id) => {
                tracing::warn!(?file, "a file of a call that is given up is declared, so it stays");
            }
            // Which path it lies in cannot be told, and in one the sector's file is declared.
            Err(error) if !holders.is_empty() => {
                let error = chain(&error);
                tracing::warn!(
                    ?file,
                    error,
                    "a file of a call that is given up may be declared, so it stays"
                );
            }
            _ => begun.push(file),
        }
    }
    Ok(begun)
}

async fn holders(
    index: &ManagerIndex,
    sector: SectorId,
    kind: FileType,
) -> Result<Vec<SectorStorageInfo>, WorkerError> {
    loop {
        let error = match index.find(sector, kind.into(), None).await {
            Ok(holders) => return Ok(holders),
            Err(error) => error,
        };
        if !is_unreachable(&error) {
            return Err(StoreError::from(error).into());
        }
        tracing::warn!(%sector, error = %chain(&error), "the manager does not answer; asking it again");
        tokio::time::sleep(MANAGER_RETRY).await;
    }
}

/// Whether nobody answered. Such a question is asked again.
pub(crate) fn is_unreachable(error: &IndexError) -> bool {
    let IndexError::Remote(source) = error else { return false };
    matches!(source.downcast_ref::<ApiError>(), Some(ApiError::Unreachable { .. }))
}

/// Removes files and directories that a failed call had created. One that cannot be removed is left for the operator:
/// it is not declared, and the next attempt writes over it.
pub(crate) fn remove_created(created: &[PathBuf]) {
    for path in created {
        let removed = match path.symlink_metadata() {
            Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
            Ok(_) => std::fs::remove_file(path),
            Err(error) => Err(error),
        };
        if let Err(error) = removed
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::error!(path = %path.display(), error = %chain(&error), "a half-written file could not be removed");
        }
    }
}

/// Makes the directory of call directories and removes those that are left of calls that have ended, and of scrubbing,
/// which nobody goes on with. One that somebody works in who does not end stays for the next start.
pub(crate) async fn sweep_call_dirs(
    calls: &Path,
    held: &BTreeSet<Uuid>,
    confiner: &Confiner,
    end: Instant,
) -> Result<(), WorkerError> {
    let io = |source| WorkerError::Io { path: calls.display().to_string(), source };
    stores::make_dir(calls).map_err(io)?;
    for entry in std::fs::read_dir(calls).map_err(io)? {
        let entry = entry.map_err(io)?;
        // Only what we made: a directory named by a uuid.
        let call = entry.file_name().to_str().and_then(|name| Uuid::try_parse(name).ok());
        let Some(call) = call.filter(|call| !held.contains(call)) else { continue };
        if !entry.file_type().map_err(io)?.is_dir() {
            continue;
        }
        if let Err(error) = process::end_leftovers_by(end, None, call, &entry.path()).await {
            tracing::error!(%call, error, "the directory of a call that is over stays until the next start");
            continue;
        }
        std::fs::remove_dir_all(entry.path()).map_err(io)?;
        confiner.forget(&call.to_string());
    }
    Ok(())
}

/// What a call makes, with the room that it was promised.
pub(crate) fn begun(accepted: &Accepted, input: &TaskInput, created: Vec<PathBuf>) -> Vec<BegunFile> {
    let size = accepted.sector.proof.sector_size();
    let of = |file: PathBuf| {
        let kind = kind_of(&file);
        BegunFile { bytes: kind.map_or(0, |kind| room_of(input, kind, size)), file }
    };
    created.into_iter().map(of).collect()
}

/// Which file of a sector lies at a path of the form `<type>/<sector>`.
fn kind_of(file: &Path) -> Option<FileType> {
    file.parent()?.file_name()?.to_str()?.parse().ok()
}

/// Files that calls of an earlier life on this repo had begun, as far as the journal tells: they may be half-written, and
/// somebody may be writing them. For a process that opens storage paths before it starts its worker.
///
/// # Errors
/// The journal cannot be used.
pub async fn begun_files(repo: &Path) -> Result<Vec<BegunFile>, WorkerError> {
    let file = repo.join(crate::journal::Journal::FILE_NAME);
    let read = move || {
        if !file.exists() {
            return Ok(Vec::new());
        }
        let unfinished = Journal::open(&file)?.unfinished()?;
        Ok(unfinished.iter().flat_map(Unfinished::begun).collect())
    };
    tokio::task::spawn_blocking(read).await.map_err(|_| WorkerError::Closed)?.map_err(WorkerError::Journal)
}

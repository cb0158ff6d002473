//! What a call needs before its executor starts: the piece's bytes, its files and the room for what it makes. Never: runs
//! or declares anything.

use std::path::PathBuf;

use rpc::piece_url::PieceUrlError;
use rpc::reader::{PieceData, PieceStream};
use sealtasks::{
    AcquireMode, ExecutorFailure, FailureClass, FileType, FileTypes, PathType, PieceSource, SectorRef,
    TaskInput, TaskType, chain,
};
use stores::{Acquired, DeletePermit, Index as _, Making, Reservation, StoreError};

use super::{Call, Held, Outcome, environment, store_failure};
use crate::files::{Needs, needs_of};
use crate::journal::Running;

impl Call<'_> {
    /// A later attempt at a task says that the manager has given up the earlier ones. What runs of them is ended first, and
    /// what they made is gone: they write where this one is going to. So is what runs for the sector of any other task that
    /// the manager has given up: a failed or aborted task is tried again as another one.
    pub(super) async fn succeed_earlier(&self) -> Outcome<()> {
        let Some(attempt) = self.accepted.attempt else { return Ok(()) };
        let sector = self.accepted.sector.id;
        let mut changes = self.shared.changes();
        if !self.shared.calls.beside(attempt, sector).is_empty() {
            // A start that comes late stops nothing.
            self.still_wanted().await?;
        }
        while self.shared.calls.stop_before(attempt) > 0 {
            let _ = self.stoppable(changes.changed()).await?;
        }
        for (other, call) in self.shared.calls.beside(attempt, sector) {
            if self.is_open(other).await? {
                continue;
            }
            tracing::warn!(%other, %call, "it runs for an attempt that is over and is stopped");
            self.shared.calls.stop(call);
            while self.shared.calls.beside(attempt, sector).iter().any(|(_, busy)| *busy == call) {
                let _ = self.stoppable(changes.changed()).await?;
            }
        }
        Ok(())
    }

    /// The bytes for the executor's descriptor 3.
    pub(super) async fn piece_stream(
        &self,
        work: &TaskInput,
        data: Option<PieceData>,
    ) -> Outcome<Option<PieceStream>> {
        let (source, size) = match work {
            TaskInput::AddPiece(piece) => (piece.source, piece.size),
            TaskInput::DataCid(piece) => (piece.source, piece.size),
            _ => return Ok(None),
        };
        if source != PieceSource::Stream {
            return Ok(None);
        }
        let data =
            data.ok_or_else(|| environment("the piece's bytes were to come as a stream, but none came"))?;
        let opened = self.stoppable(data.open(size.get(), &self.shared.trust)).await?;
        let network = |error: PieceUrlError| {
            let message = format!("{}: {}", error.code(), chain(&error));
            ExecutorFailure { class: FailureClass::Network, message }
        };
        match opened.map_err(network)? {
            Some(stream) => Ok(Some(stream)),
            None => Err(environment("the piece's bytes were to come as a stream, but zeros were named")),
        }
    }

    /// Brings the files to this worker and reserves space for what the executor makes.
    pub(super) async fn acquire(&self, work: &TaskInput) -> Outcome<Held> {
        let sector = self.accepted.sector;
        let shared = self.shared;
        if let TaskInput::PreCommit1(_) = work {
            self.discard_earlier_replica().await?;
        }
        let Needs { existing, allocate, path_type, mode } = match work {
            TaskInput::Unseal(_) => self.unseal_needs(sector).await?,
            other => needs_of(other),
        };
        let acquiring = shared.remote.acquire(sector, existing, allocate, path_type, mode, self.meter);
        let acquired = self.store(acquiring).await?;
        if let Some(kind) = existing.union(allocate).iter().find(|kind| !acquired.files.0.contains_key(kind))
        {
            return Err(store_failure(&StoreError::NotFound { sector: sector.id, kind }));
        }
        let created: Vec<PathBuf> = allocate
            .iter()
            .filter_map(|kind| acquired.files.0.get(&kind))
            .filter(|path| path.symlink_metadata().is_err())
            .cloned()
            .collect();
        let reservation = self.reserve(work, allocate, path_type, &acquired).await?;
        let new = |kind: &FileType| acquired.files.0.get(kind).is_some_and(|path| created.contains(path));
        let made =
            allocate.iter().filter(new).filter_map(|kind| Some((kind, acquired.ids.get(&kind)?.clone())));
        let made: Vec<_> = made.collect();
        let making = shared.local.making(sector.id, &made);
        Ok(Held { acquired, _reservation: reservation, allocated: allocate, created, making })
    }

    /// Room for what the executor makes; `None`: it makes nothing.
    async fn reserve(
        &self,
        work: &TaskInput,
        allocate: FileTypes,
        path_type: PathType,
        acquired: &Acquired,
    ) -> Outcome<Option<Reservation>> {
        let (sector, local) = (self.accepted.sector, &self.shared.local);
        if let TaskInput::Unseal(_) = work {
            let kind = FileType::Unsealed;
            let lost = || store_failure(&StoreError::NotFound { sector: sector.id, kind });
            let id = acquired.ids.get(&kind).ok_or_else(lost)?;
            let multicore = self.shared.executor.uses_multicore_sdr(TaskType::Unseal);
            return self.store(local.reserve_unsealing(sector, id, multicore)).await.map(Some);
        }
        if allocate.is_empty() {
            return Ok(None);
        }
        let table = path_type.space_table();
        self.store(local.reserve(sector, allocate, &acquired.ids, table)).await.map(Some)
    }

    /// The files of a call whose executor was started by an earlier life. Room that cannot be promised again is no reason
    /// to lose hours of work: the files are there for the most part.
    pub(super) async fn held_again(
        &self,
        running: Running,
        created: Vec<PathBuf>,
        making: Making,
        work: &TaskInput,
    ) -> Held {
        let Running { files, ids, allocated, .. } = running;
        let acquired = Acquired { files, ids, fetched: FileTypes::NONE };
        let reserved = self.reserve(work, allocated, needs_of(work).path_type, &acquired).await;
        if let Err(failure) = &reserved {
            let call = self.accepted.call;
            tracing::warn!(%call, error = failure.message, "no room is promised to a call that goes on");
        }
        self.shared.local.reserved_again(self.accepted.sector.id);
        let _reservation = reserved.ok().flatten();
        Held { acquired, _reservation, allocated, created, making }
    }

    /// Deletes, everywhere, what an earlier PreCommit1 of the sector made: it must neither be sealed into nor be found by
    /// PreCommit2 in place of the new files. It is worthless once PreCommit1 runs again, but not before: the data that the
    /// new files are made from is brought here first.
    async fn discard_earlier_replica(&self) -> Outcome<()> {
        let sector = self.accepted.sector;
        let remote = &self.shared.remote;
        let (unsealed, none) = (FileTypes::UNSEALED, FileTypes::NONE);
        let (path, mode) = (PathType::Sealing, AcquireMode::Copy);
        let acquired = self.store(remote.acquire(sector, unsealed, none, path, mode, self.meter)).await?;
        if let Some(data) = acquired.files.0.values().find(|data| !data.exists()) {
            return Err(environment(&format!(
                "the unsealed file of {} is not at {}; nothing was deleted",
                sector.id,
                data.display()
            )));
        }
        // Somewhere else the next attempt's may have been made meanwhile.
        self.still_wanted().await?;
        let permit =
            DeletePermit { reason: format!("PreCommit1 makes it anew, call {}", self.accepted.call) };
        for kind in [FileType::Sealed, FileType::Cache] {
            self.store(remote.discard_all(sector.id, kind, &permit)).await?;
        }
        Ok(())
    }

    /// Unsealing writes into the unsealed file where there is one, and else makes one.
    async fn unseal_needs(&self, sector: SectorRef) -> Outcome<Needs> {
        let finding = async {
            self.shared.index.find(sector.id, FileTypes::UNSEALED, None).await.map_err(StoreError::from)
        };
        let there = !self.store(finding).await?.is_empty();
        let replica = FileTypes::SEALED | FileTypes::CACHE;
        let (existing, allocate) = if there {
            (replica | FileTypes::UNSEALED, FileTypes::NONE)
        } else {
            (replica, FileTypes::UNSEALED)
        };
        Ok(Needs { existing, allocate, path_type: PathType::Sealing, mode: AcquireMode::Copy })
    }
}

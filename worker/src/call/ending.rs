//! The end of a call: what its executor made is declared, or what it began is removed. Never: takes away what another
//! attempt has declared.

use sealtasks::{AttemptId, ExecutorFailure, FailureClass, FileType, FileTypes, TaskOutput};
use stores::{CopyKind, Index as _};

use super::{Afterwards, Call, Held, Outcome};
use crate::error::chain;
use crate::legacy::{remove_created, undeclared};

impl Call<'_> {
    /// Declares what the executor made, or removes what it began.
    pub(super) async fn conclude(
        &self,
        ran: Outcome<TaskOutput>,
        held: &Held,
        after: Afterwards,
    ) -> Outcome<TaskOutput> {
        let sector = self.accepted.sector;
        self.crash_point("worker.ended");
        let (is_made, ended) = match ran.and_then(|output| made(held).map(|()| output)) {
            Ok(output) => (true, self.declare(held).await.map(|()| output)),
            Err(failure) => (false, Err(failure)),
        };
        if ended.is_ok() && after == Afterwards::KeepOneCopy {
            self.keep_one_copy(held).await?;
        }
        // What is made stays when the worker ends: its next life finds the report, and declares it. So does what an
        // executor makes that is left running.
        let goes_on = self.shared.closed.is_cancelled() && (is_made || self.shared.leaves());
        if ended.is_err() && !goes_on {
            self.remove_begun(held).await;
        }
        if after == Afterwards::DropCopies && !self.shared.closed.is_cancelled() {
            // Copies that were fetched for unsealing alone; they go when it failed, too.
            let replica = FileTypes::SEALED | FileTypes::CACHE;
            if let Err(error) = self.shared.remote.remove_copies(sector.id, replica).await {
                tracing::warn!(sector = %sector.id, error = %chain(&error), "copies could not be removed");
            }
        }
        ended
    }

    /// Removes what the executor began and nobody has declared since: on a mount that two workers have open, a later attempt
    /// of the other one may have finished in the same place.
    async fn remove_begun(&self, held: &Held) {
        let (index, sector) = (&self.shared.index, self.accepted.sector.id);
        let begun = tokio::select! {
            // The worker's next life asks, and removes them.
            () = self.shared.closed.cancelled() => return,
            begun = undeclared(index, sector, held.created.clone()) => begun,
        };
        match begun {
            // Nothing to add if this is interrupted: the worker is ending and removes them when it next starts.
            Ok(begun) => {
                let _ = tokio::task::spawn_blocking(move || remove_created(&begun)).await;
            }
            Err(error) => {
                let (call, error) = (self.accepted.call, chain(&error));
                tracing::warn!(%call, error, "whose the files of a failed call are cannot be told; they stay");
            }
        }
    }

    /// The ranges to keep are kept once: whatever other copies take up is to be freed as well.
    async fn keep_one_copy(&self, held: &Held) -> Outcome<()> {
        let (sector, kind) = (self.accepted.sector.id, FileType::Unsealed);
        let Some(kept) = held.acquired.ids.get(&kind) else { return Ok(()) };
        self.still_wanted().await?;
        self.store(self.shared.remote.keep_only(sector, kind, kept)).await
    }

    /// Declares what the executor made as the primary copies. Another manager that comes meanwhile knows nothing of what the
    /// last one was told, and what a worker declares to it at first leaves out files that are being made: all of it is
    /// declared again.
    async fn declare(&self, held: &Held) -> Outcome<()> {
        if !held.allocated.is_empty() {
            self.still_wanted().await?;
        }
        loop {
            let manager = self.shared.index.changes();
            for kind in held.allocated.iter() {
                self.declare_one(held, kind).await?;
            }
            held.making.done();
            if self.shared.index.changes() == manager {
                return Ok(());
            }
        }
    }

    /// Hours of work hang on it, so a manager that does not answer is asked until it does or the call is stopped.
    async fn declare_one(&self, held: &Held, kind: FileType) -> Outcome<()> {
        let sector = self.accepted.sector.id;
        let Some(id) = held.acquired.ids.get(&kind) else { return Ok(()) };
        while let Err(error) =
            self.shared.index.declare_made(id, sector, kind.into(), CopyKind::Primary).await
        {
            self.still_wanted().await?;
            tracing::warn!(%sector, %kind, error = %chain(&error), "a new file could not be declared; trying again");
            self.stoppable(tokio::time::sleep(self.shared.periods.return_retry)).await?;
        }
        Ok(())
    }

    /// Whether the manager awaits the attempt still: one that could not be heard of for long was given up, and what it made
    /// is in the way of the next one.
    pub(super) async fn still_wanted(&self) -> Outcome<()> {
        let Some(attempt) = self.accepted.attempt else { return Ok(()) };
        if self.is_open(attempt).await? {
            return Ok(());
        }
        let message = format!("attempt {attempt} was given up while nothing was heard of this worker");
        Err(ExecutorFailure { class: FailureClass::Aborted, message })
    }

    /// Whether the manager awaits an attempt still. One that does not answer is asked until it does.
    pub(super) async fn is_open(&self, attempt: AttemptId) -> Outcome<bool> {
        loop {
            match self.shared.manager.attempt_open(attempt).await {
                Ok(open) => return Ok(open),
                // A Sealyard of the version before.
                Err(error) if error.is_method_not_found() => return Ok(true),
                Err(error) => {
                    tracing::warn!(%attempt, error = %chain(&error), "whether an attempt is over cannot be told; asking again");
                    self.stoppable(tokio::time::sleep(self.shared.periods.return_retry)).await?;
                }
            }
        }
    }
}

/// Checks that an executor that reports success made its files: what is declared must be there.
fn made(held: &Held) -> Outcome<()> {
    for kind in held.allocated.iter() {
        if let Some(path) = held.acquired.files.0.get(&kind).filter(|path| path.symlink_metadata().is_err()) {
            let message = format!("the executor reports success but made no {kind} at {}", path.display());
            return Err(ExecutorFailure { class: FailureClass::Compute, message });
        }
    }
    Ok(())
}

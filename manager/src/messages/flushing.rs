//! What operators ask of batches: which sectors wait in them, and that these go now. Never: sends what the operator's settings
//! hold back for another reason than that too few wait.

use std::collections::BTreeMap;
use std::sync::Arc;

use chain::params::Method;
use rpc::pipelining::{Batch, Flushed};
use sealtasks::{ActorId, SectorId, SectorNumber};
use tokio::sync::oneshot;

use super::gathered::method_of;
use super::{Messages, Post};
use crate::shared::Shared;

/// What is said of sectors that are neither sent nor wait any more.
const SENT_BACK: &str = "it was not sent; `sealyard sectors status` says why";

/// A question to the clerk.
pub(crate) enum Question {
    /// Which sectors' messages of this kind wait.
    Waiting(Method, oneshot::Sender<Vec<SectorId>>),
    /// The same are to go now.
    Flush(Method, oneshot::Sender<Vec<Flushed>>),
}

const fn of_batch(batch: Batch) -> Method {
    match batch {
        Batch::PreCommit => Method::PreCommitSectorBatch2,
        Batch::Commit => Method::ProveCommitSectors3,
    }
}

impl Messages {
    /// Sectors whose message of this kind waits for its batch; `None` when the manager stops.
    pub(crate) async fn batched(&self, batch: Batch) -> Option<Vec<SectorId>> {
        let (reply, answer) = oneshot::channel();
        self.questions.send(Question::Waiting(of_batch(batch), reply)).await.ok()?;
        answer.await.ok()
    }

    /// Has them go now, and says what came of it; `None` when the manager stops.
    pub(crate) async fn flush(&self, batch: Batch) -> Option<Vec<Flushed>> {
        let (reply, answer) = oneshot::channel();
        self.questions.send(Question::Flush(of_batch(batch), reply)).await.ok()?;
        answer.await.ok()
    }
}

impl Post {
    /// Whoever asked may have gone.
    pub(super) async fn answer(&mut self, shared: &Arc<Shared>, question: Question) {
        match question {
            Question::Waiting(method, reply) => drop(reply.send(self.waiting(method))),
            Question::Flush(method, reply) => {
                let flushed = self.flush(shared, method).await;
                drop(reply.send(flushed));
            }
        }
    }

    fn waiting(&self, method: Method) -> Vec<SectorId> {
        let of_method = self.gathered.iter().filter(|one| method_of(&one.wanted) == method);
        let mut waiting: Vec<_> = of_method.map(|one| one.wanted.sector.id).collect();
        waiting.sort_unstable();
        waiting
    }

    /// One for each message that went, and one for each reason for which sectors of a miner did not.
    async fn flush(&mut self, shared: &Arc<Shared>, method: Method) -> Vec<Flushed> {
        let wanted = self.waiting(method);
        // What has waited for ever is due, however few there are.
        let of_method = self.gathered.iter_mut().filter(|one| method_of(&one.wanted) == method);
        of_method.for_each(|one| one.since_ms = 0);
        self.look(shared).await;
        let waits = self.waiting(method);
        let mut ends = BTreeMap::<(ActorId, Option<String>, String), Vec<SectorNumber>>::new();
        for sector in wanted {
            let sent =
                self.sent.get(&(method.number(), sector)).filter(|_| !waits.contains(&sector)).cloned();
            let error = match (&sent, self.notes.get(sector)) {
                (Some(_), _) => String::new(),
                (None, note) if note.is_empty() => SENT_BACK.to_owned(),
                (None, note) => note,
            };
            ends.entry((sector.miner, sent, error)).or_default().push(sector.number);
        }
        ends.into_iter().map(|((_, message, error), sectors)| Flushed { sectors, message, error }).collect()
    }
}

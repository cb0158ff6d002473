//! The clerk: one at a time looks at wishes, sends what is due, and tells sectors what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chain::Lotus;
use chain::params::Method;
use chain::sending::batch::{Now, halves};
use chain::sending::{Courier, ExitCode, Outcome, Record, SendError, Sending, Stage, Submitted};
use pipeline::SectorEvent;
use sealtasks::{ActorId, ChainEpoch, FailureClass, SectorId};
use tokio::sync::mpsc;

use super::doubts::Doubts;
use super::gathered::{Due, Gathered, draft, kind_of, method_of, policy, take_due};
use super::kept::Kept;
use super::{Notes, Question, Wanted, Wish};
use crate::binding::known;
use crate::driver::Input;
use crate::shared::Shared;
use crate::workers::chain_of;

/// What is said of a sector that waited too long for leave to send.
const EXPIRED_UNSENT: &str = "nothing was sent without --send-messages, and its ticket has expired meanwhile; with them it is \
    sealed anew with another ticket";
/// Ends of messages that wait to be told.
const ENDS_MAX: usize = 64;

const WAITS_FOR_BATCH: &str = "its message waits for its batch";

/// The end of a message.
type End = (String, Result<Outcome, SendError>);

/// The clerk and his desk.
pub(crate) struct Post {
    pub(super) lotus: Arc<Lotus>,
    pub(super) outbox: Arc<Kept>,
    pub(super) sending: Sending,
    pub(super) notes: Arc<Notes>,
    wishes: mpsc::Receiver<Wish>,
    questions: mpsc::Receiver<Question>,
    /// Sectors whose message has not been sent.
    pub(super) gathered: Vec<Gathered>,
    /// Messages that were sent and have not ended, by what they are for.
    pub(super) sent: BTreeMap<(u64, SectorId), String>,
    /// Sectors that want to hear how a message ends, by its CID.
    awaited: BTreeMap<String, BTreeSet<SectorId>>,
    ends: (mpsc::Sender<End>, mpsc::Receiver<End>),
    /// Messages that may have been sent or not.
    pub(super) doubts: Doubts,
}

impl Post {
    pub(super) fn new(
        lotus: Arc<Lotus>,
        outbox: Arc<Kept>,
        sending: Sending,
        notes: Arc<Notes>,
        (wishes, questions): (mpsc::Receiver<Wish>, mpsc::Receiver<Question>),
    ) -> Self {
        Self {
            lotus,
            outbox,
            sending,
            notes,
            wishes,
            questions,
            gathered: Vec::new(),
            sent: BTreeMap::new(),
            awaited: BTreeMap::new(),
            ends: mpsc::channel(ENDS_MAX),
            doubts: Doubts::default(),
        }
    }

    /// Works until the manager stops; what is not done then is found in the outbox and on chain at the next start.
    pub(crate) async fn run(mut self, shared: Arc<Shared>) {
        let cancelled = shared.standing.acting().clone();
        tokio::select! {
            () = cancelled.cancelled() => {}
            () = self.work(&shared) => {}
        }
    }

    async fn work(&mut self, shared: &Arc<Shared>) {
        let mut look = tokio::time::interval(self.lotus.pause());
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                wish = self.wishes.recv() => match wish {
                    None => return,
                    Some(Wish::Send(wanted)) => self.gather(*wanted, shared.state.now_ms()),
                    Some(Wish::Await { sector, method, message }) => {
                        self.wait_for(shared, sector, method, message).await;
                    }
                },
                Some(question) = self.questions.recv() => self.answer(shared, question).await,
                end = self.ends.1.recv() => if let Some((cid, end)) = end {
                    self.ended(shared, cid, end).await;
                },
                _ = look.tick() => self.look(shared).await,
            }
        }
    }

    fn gather(&mut self, wanted: Wanted, since_ms: u64) {
        self.notes.set(wanted.sector.id, WAITS_FOR_BATCH);
        // Asked for again, for example after `update-state`: the later wish counts.
        let method = method_of(&wanted);
        self.gathered.retain(|one| one.wanted.sector != wanted.sector || method_of(&one.wanted) != method);
        self.gathered.push(Gathered { wanted, since_ms, is_new: false });
    }

    /// Sends what is due. What the node does not say now is asked for at the next look.
    pub(super) async fn look(&mut self, shared: &Arc<Shared>) {
        self.ask_again(shared).await;
        if self.gathered.is_empty() {
            return;
        }
        if let Err(error) = self.try_look(shared).await {
            self.held_up(&error, |_| true);
        }
    }

    /// Asks about added miners of whom the node has not said what is needed.
    async fn ask_again(&self, shared: &Arc<Shared>) {
        for miner in shared.unsaid.all() {
            let size = shared.miner.sector_size;
            match known(&self.lotus, &shared.chain_settings, &shared.miners, miner, size).await {
                Ok(first) => {
                    tracing::info!(%miner, "the full node says who this miner is: its messages go");
                    shared.unsaid.said(miner, first);
                }
                Err(error) => {
                    if shared.unsaid.not_said(miner, chain_of(&error), shared.state.now_ms()) {
                        tracing::error!(%miner, error = chain_of(&error), "nothing is sent for this miner");
                    }
                }
            }
        }
    }

    /// Says why the messages of these sectors wait.
    pub(super) fn held_up(&self, error: &SendError, whose: impl Fn(&Gathered) -> bool) {
        let text = format!("its message waits: {}", chain_of(error));
        let mut news = false;
        for one in self.gathered.iter().filter(|one| whose(one)) {
            news |= self.notes.set(one.wanted.sector.id, &text);
        }
        if news {
            tracing::warn!(code = error.code(), error = chain_of(error), "a message is not sent now");
        }
    }

    async fn try_look(&mut self, shared: &Arc<Shared>) -> Result<(), SendError> {
        let (head, base_fee) = self.lotus.head().await?;
        let now = Now { ms: shared.state.now_ms(), head, base_fee };
        self.find_out(shared, now).await?;
        self.sort_out(shared, head).await?;
        self.let_expired_go(shared, head).await;
        // A sector that is to be proven has a deposit to lose; a new one only waits.
        for method in [Method::ProveCommitSectors3, Method::PreCommitSectorBatch2] {
            for miner in shared.miners.all() {
                if let Some(why) = shared.unsaid.of(miner) {
                    self.note((method, miner), &format!("its message waits: {why}"));
                    continue;
                }
                match self.send_due(shared, (method, miner), now).await {
                    // Nothing is sent that cannot be noted.
                    Err(SendError::Outbox(error)) => return Err(error.into()),
                    // The other method's messages may need less money, and another miner has addresses and money of its own.
                    Err(error) => self.held_up(&error, |one| {
                        one.wanted.sector.id.miner == miner && method_of(&one.wanted) == method
                    }),
                    Ok(()) => {}
                }
            }
        }
        Ok(())
    }

    async fn send_due(
        &mut self,
        shared: &Arc<Shared>,
        kind: (Method, ActorId),
        now: Now,
    ) -> Result<(), SendError> {
        loop {
            let mut policy = policy(&shared.chain_settings, kind.0);
            if self.sending == Sending::Off {
                // Nothing is gained by waiting: it is shown.
                policy.wait_ms = 0;
                policy.base_fee_max = None;
            }
            let batch = match take_due(&mut self.gathered, kind, &policy, now) {
                Due::Batch(batch) => batch,
                Due::Dear => {
                    let (fee, most) = (now.base_fee, policy.base_fee_max.unwrap_or_default());
                    let text = format!(
                        "its message waits for the base fee of {fee} to fall to {most} ([chain] base_fee_max); when its \
                         ticket or seed is about to expire it goes anyway"
                    );
                    self.note(kind, &text);
                    return Ok(());
                }
                Due::Nothing => {
                    self.note(kind, WAITS_FOR_BATCH);
                    return Ok(());
                }
            };
            let batch = self.judged_again(shared, batch, now.head).await?;
            self.send(shared, batch).await?;
        }
    }

    /// Says this of all whose message of this kind and this miner may go.
    fn note(&self, kind: (Method, ActorId), text: &str) {
        for one in self.gathered.iter().filter(|one| one.is_new && kind_of(&one.wanted) == kind) {
            self.notes.set(one.wanted.sector.id, text);
        }
    }

    pub(super) fn note_sent(&mut self, record: &Record) {
        let Stage::Pushed { cid, .. } = &record.stage else { return };
        let intent = &record.intent;
        for number in &intent.sectors {
            let sector = SectorId { miner: intent.miner, number: *number };
            self.sent.insert((intent.method.number(), sector), cid.clone());
        }
    }

    /// Nothing of those that are new is on its way; a pre-commitment whose ticket is too old by now would be refused. Without
    /// leave to send it stays: sealed anew it would only wait again.
    async fn let_expired_go(&mut self, shared: &Arc<Shared>, head: ChainEpoch) {
        let is_expired = |one: &Gathered| {
            one.is_new && method_of(&one.wanted) == Method::PreCommitSectorBatch2 && one.wanted.cutoff < head
        };
        for at in (0..self.gathered.len()).rev() {
            if !is_expired(&self.gathered[at]) {
                continue;
            }
            let id = self.gathered.swap_remove(at).wanted.sector.id;
            if self.sending == Sending::Off {
                self.notes.set(id, EXPIRED_UNSENT);
            } else {
                let event = SectorEvent::TicketExpired { head, now_ms: shared.state.now_ms() };
                self.tell(shared, id, event).await;
            }
        }
    }

    /// Sends a batch, in halves where the whole cannot go: in the end only the sector that is to blame is left behind, or
    /// those that the balance does not suffice for.
    async fn send(&mut self, shared: &Arc<Shared>, batch: Vec<Gathered>) -> Result<(), SendError> {
        let (mut parts, mut sent) = (vec![batch], 0);
        while let Some(part) = parts.pop() {
            let error = match self.send_part(shared, &part).await {
                Ok(()) => {
                    sent += part.len();
                    continue;
                }
                Err(error) => error,
            };
            let is_short = matches!(error, SendError::Funds { .. });
            if error.is_of_the_message() || is_short && part.len() > 1 {
                match (halves(&part), part.first()) {
                    (Some((first, second)), _) => {
                        tracing::debug!(
                            sectors = part.len(),
                            error = chain_of(&error),
                            "the batch is halved"
                        );
                        parts.push(second.to_vec());
                        parts.push(first.to_vec());
                    }
                    (None, Some(alone)) => {
                        let message = format!("{}: {}", error.code(), chain_of(&error));
                        let event = failed(shared, FailureClass::Environment, message);
                        self.tell(shared, alone.wanted.sector.id, event).await;
                    }
                    (None, None) => {}
                }
                continue;
            }
            // All that have not gone wait on; of those whose message may have gone, it is found out.
            let is_new = !matches!(error, SendError::Unknown { .. } | SendError::Outbox(_));
            self.doubts.is_stale |= !is_new;
            let rest: Vec<Gathered> = parts.into_iter().chain([part]).flatten().collect();
            if is_short && sent > 0 {
                tracing::warn!(
                    sent,
                    waiting = rest.len(),
                    "the balance suffices for a part of the batch alone"
                );
            }
            // What the balance does not suffice for was due and stays so, however few are left.
            let since = |one: &Gathered| if is_short { 0 } else { one.since_ms };
            self.gathered.extend(rest.into_iter().map(|one| Gathered {
                is_new,
                since_ms: since(&one),
                ..one
            }));
            return Err(error);
        }
        Ok(())
    }

    async fn send_part(&mut self, shared: &Arc<Shared>, part: &[Gathered]) -> Result<(), SendError> {
        // All of one miner: see `take_due`.
        let Some(miner) = part.first().map(|one| one.wanted.sector.id.miner) else { return Ok(()) };
        let draft = draft(&self.lotus, &shared.chain_settings, &shared.miners, miner, part).await?;
        let courier = Courier::new(&self.lotus, &*self.outbox, self.sending);
        match courier.submit(draft).await? {
            Submitted::Sent(record) => {
                self.note_sent(&record);
                let Stage::Pushed { cid, .. } = &record.stage else { return Ok(()) };
                for one in part {
                    let event = SectorEvent::MessageSent { message: cid.clone() };
                    self.tell(shared, one.wanted.sector.id, event).await;
                }
            }
            Submitted::Shown(draft) => {
                let text = format!("nothing is sent without --send-messages; this would be: {draft}");
                let unsent = Arc::new(draft.unsent());
                for one in part {
                    self.notes.show(one.wanted.sector.id, &text, Some(unsent.clone()));
                }
            }
        }
        Ok(())
    }

    /// Has a message followed to its end, once however many sectors are in it.
    async fn wait_for(&mut self, shared: &Arc<Shared>, sector: SectorId, method: Method, message: String) {
        self.notes.set(sector, &format!("message {message} is on its way"));
        let is_followed = self.awaited.contains_key(&message);
        self.awaited.entry(message.clone()).or_default().insert(sector);
        if is_followed {
            return;
        }
        let record = match self.outbox.about(method, sector, &message) {
            Ok(Some(record)) => record,
            Ok(None) => {
                let since = ChainEpoch::default();
                let lost = SendError::Lost { cid: message.clone(), since };
                return self.ended(shared, message, Err(lost)).await;
            }
            Err(error) => return self.ended(shared, message, Err(error.into())).await,
        };
        if let Some(outcome) = Outcome::of(&record.stage) {
            return self.ended(shared, message, Ok(outcome)).await;
        }
        let (lotus, outbox, tell) = (self.lotus.clone(), self.outbox.clone(), self.ends.0.clone());
        let (sending, cancelled) = (self.sending, shared.standing.acting().clone());
        shared.tasks.spawn(async move {
            let end = tokio::select! {
                () = cancelled.cancelled() => return,
                end = followed(&lotus, &outbox, sending, &record) => end,
            };
            drop(tell.send((message, end)).await);
        });
    }

    async fn ended(&mut self, shared: &Arc<Shared>, cid: String, end: Result<Outcome, SendError>) {
        self.sent.retain(|_, sent| *sent != cid);
        for sector in self.awaited.remove(&cid).unwrap_or_default() {
            let event = match &end {
                Ok(Outcome::Done { height, failed: which }) => {
                    match which.iter().find(|(number, _)| *number == sector.number) {
                        None => SectorEvent::Landed { epoch: *height },
                        Some((_, code)) => refused(shared, &cid, *height, *code),
                    }
                }
                Ok(Outcome::Refused { height, code }) => refused(shared, &cid, *height, *code),
                Err(error) => {
                    // A message that is nowhere is lost; whatever else is wrong leaves it where it is.
                    let lost = matches!(error, SendError::Lost { .. });
                    let class = if lost { FailureClass::Compute } else { FailureClass::Environment };
                    failed(shared, class, format!("{}: {}", error.code(), chain_of(error)))
                }
            };
            self.tell(shared, sector, event).await;
        }
    }

    pub(super) async fn tell(&self, shared: &Arc<Shared>, sector: SectorId, event: SectorEvent) {
        self.notes.clear(sector);
        // Nobody listens when the driver has ended.
        drop(shared.inputs.send(Input::Sector { sector, event }).await);
    }
}

/// To the end, through all that the node does not say.
async fn followed(
    lotus: &Lotus,
    outbox: &Kept,
    sending: Sending,
    record: &Record,
) -> Result<Outcome, SendError> {
    let courier = Courier::new(lotus, outbox, sending);
    let mut told = false;
    loop {
        match courier.settle(record).await {
            Err(SendError::Chain(error)) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(id = %record.intent.id, error = chain_of(&error), "a message cannot be followed now");
                }
            }
            end => return end,
        }
        tokio::time::sleep(lotus.pause()).await;
    }
}

fn refused(shared: &Shared, cid: &str, height: ChainEpoch, code: ExitCode) -> SectorEvent {
    let message = format!("message {cid} failed on chain at height {}: {code}", height.get());
    failed(shared, FailureClass::Compute, message)
}

pub(super) fn failed(shared: &Shared, class: FailureClass, message: String) -> SectorEvent {
    SectorEvent::Failed { class, message, now_ms: shared.state.now_ms() }
}

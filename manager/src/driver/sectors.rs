//! Sectors: what the pipeline wants next becomes a task, a question or a wait, and what comes of it goes back to the
//! pipeline. Never: decides what a sector's next state is.

use pipeline::{RandomnessSource, SectorEvent, SectorRecord, SectorState, Step, StopAfter};
use rpc::api::PledgeOptions;
use rpc::{ApiError, ApiResult};
use sealtasks::{
    ActorId, FailureClass, FileType, RegisteredSealProof, SectorId, SectorNumber, SectorRef, SectorSize,
    TaskInput,
};

use super::Driver;
use super::errands::{MOVE, RELEASE, UNSEAL};
use super::input::{Busy, Effect, Reply, Sector};
use super::originals::listed;
use crate::state::StateEvent;

/// So often it is asked whether all paths are back that may hold a file, in milliseconds.
const LOOK_AGAIN_MS: u64 = 1000;
/// Why unsealed data of a committed-capacity sector may go: it is zeros, and can be made again.
const RELEASE_REASON: &str = "a committed-capacity sector needs no unsealed copy once its proof is verified";
/// What the log says of a sector that is sealed again.
pub(crate) const REBUILT: &str = "its files are lost; it is sealed again";
/// Why unsealed data of a sector that is filled anew may go.
const ANEW_REASON: &str = "the sector is filled anew, from the data that was given for it or with zeros";

impl Driver {
    pub(super) fn pledge(&mut self, options: PledgeOptions, reply: Reply<SectorId>) {
        let stop_after = options.stop_after_c1.then_some(StopAfter::C1);
        let miner = options.miner.unwrap_or(self.shared.miners.first);
        let made = self.new_sized_sector(miner, options.sector_size, stop_after, SectorRecord::pledge);
        let id = made.as_ref().ok().map(|sector| sector.id);
        self.answer(reply, made.map(|sector| sector.id));
        if let Some(id) = id {
            self.advance(id);
        }
    }

    /// Enters a new sector of the miners' size.
    pub(super) fn new_sector(
        &mut self,
        miner: ActorId,
        stop_after: Option<StopAfter>,
        record: impl FnOnce(SectorRef, Option<StopAfter>, RandomnessSource) -> SectorRecord,
    ) -> ApiResult<SectorRef> {
        self.new_sized_sector(miner, None, stop_after, record)
    }

    fn new_sized_sector(
        &mut self,
        miner: ActorId,
        size: Option<SectorSize>,
        stop_after: Option<StopAfter>,
        record: impl FnOnce(SectorRef, Option<StopAfter>, RandomnessSource) -> SectorRecord,
    ) -> ApiResult<SectorRef> {
        let size = size.unwrap_or(self.shared.miner.sector_size);
        let first = self.shared.unsaid.first_sector(miner)?;
        let Some(id) = self.new_id(miner, first) else {
            return Err(ApiError::refused("MGR020: no sector number is left"));
        };
        let sector = SectorRef { id, proof: RegisteredSealProof::for_new_sector(size) };
        let record = record(sector, stop_after, self.shared.randomness);
        let Some(json) = json_of(&record) else {
            return Err(ApiError::refused("MGR021: the sector's record cannot be written"));
        };
        let state = record.state().name().to_owned();
        self.events.push(StateEvent::SectorPledged { sector, state, record: json });
        self.insert_sector(record);
        self.pledging_due = true;
        Ok(sector)
    }

    /// A number that no sector of the miner has: also none whose files lie anywhere, since sealing would delete them.
    fn new_id(&mut self, miner: ActorId, first: u64) -> Option<SectorId> {
        let counted = self.next_sector.get_mut(&miner)?;
        *counted = first.max(*counted);
        loop {
            let id = SectorId { miner, number: SectorNumber::new(*counted) };
            *counted = counted.checked_add(1).filter(|next| i64::try_from(*next).is_ok())?;
            let taken = self.sectors.contains_key(&id) || self.removed.contains_key(&id);
            if !taken && self.shared.index.sector_files(id).is_empty() {
                return Some(id);
            }
        }
    }

    /// No new sector of the miner has a lower number.
    pub(super) fn first_free(&mut self, miner: ActorId, number: u64) {
        if let Some(counted) = self.next_sector.get_mut(&miner) {
            *counted = (*counted).max(number);
        }
    }

    /// Tells the pipeline what happened and goes on from there. An event that the sector does not take changes nothing.
    pub(super) fn sector_event(&mut self, id: SectorId, event: SectorEvent) {
        if let Err(refusal) = self.try_sector_event(id, event) {
            tracing::warn!(sector = %id, %refusal, "an event was dropped");
        }
    }

    /// The same; the error says why the sector does not take it.
    pub(super) fn try_sector_event(&mut self, id: SectorId, event: SectorEvent) -> Result<(), String> {
        self.apply_event(id, event)?;
        self.advance(id);
        Ok(())
    }

    /// Tells the pipeline what happened. The caller sets going what follows.
    pub(super) fn apply_event(&mut self, id: SectorId, event: SectorEvent) -> Result<(), String> {
        let Some(sector) = self.sectors.get_mut(&id) else {
            return Err(format!("sector {id} is not here; its {} came too late", event.name()));
        };
        let offline = sector.record.source() != RandomnessSource::Lotus;
        let text = match &event {
            SectorEvent::Landed { .. } if offline => "nothing to put on chain (offline)".to_owned(),
            event => describe(event),
        };
        let body = event_json(&event);
        let doubts = matches!(
            event,
            SectorEvent::Failed { class: FailureClass::Environment | FailureClass::Network, .. }
        );
        // What waits for a rebuild that is given up waits on for the next.
        let forced = matches!(event, SectorEvent::Force { .. });
        let before = sector.record.state();
        let kept = sector.record.is_rebuilt();
        sector.record.apply(event).map_err(|refusal| refusal.to_string())?;
        let kept = kept || sector.record.is_rebuilt();
        let (after, state) = (sector.record.state(), sector.record.state().name().to_owned());
        sector.busy = Busy::Free;
        let record = json_of(&sector.record).unwrap_or_default();
        tracing::info!(sector = %id, state, "{text}");
        let text = format!("{text}, now {state}");
        self.events.push(StateEvent::SectorStepped { sector: id, state, text, event: body, record });
        self.pledging_due = true;
        if kept {
            self.keep_originals(id);
        }
        if doubts {
            self.look_again(id);
        }
        if before != after {
            if !forced {
                self.unstage(id);
            }
            self.next_into(before);
        }
        Ok(())
    }

    /// How many sectors may be in this state at once.
    pub(super) fn stage_limit(&self, state: SectorState) -> Option<u32> {
        self.shared.sealing.in_flight.get(&state).copied()
    }

    /// Whether as many other sectors are in this one's state as may be.
    fn stage_is_full(&self, id: SectorId) -> bool {
        let Some(state) = self.sectors.get(&id).map(|sector| sector.record.state()) else { return false };
        let Some(most) = self.stage_limit(state) else { return false };
        let there = |(other, sector): &(&SectorId, &Sector)| {
            **other != id && sector.record.state() == state && matches!(sector.busy, Busy::Task(_))
        };
        self.sectors.iter().filter(there).count() >= usize::try_from(most).unwrap_or(usize::MAX)
    }

    /// A sector has left this state: the first of those that wait for a place there goes on.
    fn next_into(&mut self, state: SectorState) {
        if self.stage_limit(state).is_none() {
            return;
        }
        let waiting = self
            .sectors
            .iter()
            .filter(|(_, sector)| sector.busy == Busy::Stage && sector.record.state() == state);
        let first = waiting.max_by_key(|(id, sector)| (sector.priority, std::cmp::Reverse(**id)));
        if let Some(id) = first.map(|(id, _)| *id) {
            self.advance(id);
        }
    }

    /// Sets going what the sector waits for, unless it is under way.
    pub(super) fn advance(&mut self, id: SectorId) {
        let Some(sector) = self.sectors.get_mut(&id) else { return };
        match sector.busy {
            Busy::Free | Busy::File(_) | Busy::Stage => {}
            Busy::Task(_) | Busy::Asking | Busy::Until(_) => return,
        }
        sector.busy = Busy::Asking;
        let about = sector.record.sector();
        match sector.record.next() {
            Step::Run(work) => {
                if self.stage_is_full(id) {
                    self.set_busy(id, Busy::Stage);
                } else {
                    self.want_task(about, work);
                }
            }
            Step::NeedTicket => self.effects.push(Effect::Ticket(about)),
            Step::NeedSeed => match sector.record.progress().cids {
                Some(cids) => self.effects.push(Effect::Seed(about, cids.sealed)),
                None => {
                    sector.busy = Busy::Free;
                    tracing::error!(sector = %id, "a seed is wanted without a replica");
                }
            },
            Step::NeedVerification(input) => self.effects.push(Effect::Verify(about, input)),
            Step::SubmitPreCommit | Step::SubmitCommit | Step::AwaitMessage { .. } => self.put_on_chain(id),
            Step::Proceed => self.sector_event(id, SectorEvent::Proceed),
            Step::Retry { not_before_ms } => {
                sector.busy = Busy::Until(not_before_ms);
                self.timers.insert((not_before_ms, id));
            }
            Step::Rest { .. } | Step::Done => sector.busy = Busy::Free,
        }
    }

    fn want_task(&mut self, sector: SectorRef, work: TaskInput) {
        match &work {
            TaskInput::Finalize(_) | TaskInput::Move(_) => {
                let kept = self.sectors.get(&sector.id).is_some_and(|known| known.record.has_data());
                if !kept && !self.unsealed_is_gone(sector.id) {
                    return;
                }
            }
            TaskInput::AddPiece(_) if !self.may_be_filled(sector.id) => return,
            TaskInput::AddPiece(input) if input.existing.is_empty() => {
                if !self.leftover_is_gone(sector.id) {
                    return;
                }
            }
            TaskInput::PreCommit1(_) if !self.may_be_sealed(sector) => return,
            TaskInput::DataCid(_)
            | TaskInput::AddPiece(_)
            | TaskInput::PreCommit1(_)
            | TaskInput::PreCommit2(_)
            | TaskInput::Commit1(_)
            | TaskInput::Commit2(_)
            | TaskInput::ReleaseUnsealed(_)
            | TaskInput::Fetch(_)
            | TaskInput::Unseal(_)
            | TaskInput::Verify(_)
            | TaskInput::Scrub(_)
            | TaskInput::Vanilla(_) => {}
        }
        let Ok(id) = self.new_task(sector, work) else { return };
        self.set_busy(sector.id, Busy::Task(id));
        self.submit(id);
    }

    /// Before a sector is finalized its unsealed file goes, by a permit that is durable before anything is deleted.
    /// False: not yet; the sector goes on by itself later.
    fn unsealed_is_gone(&mut self, id: SectorId) -> bool {
        if self.sectors.get(&id).is_none_or(|sector| sector.released) {
            return true;
        }
        let files = self.shared.index.sector_files(id);
        // After a restart the index fills as workers come back. Until the cache is seen nothing is known of this sector.
        if !files.iter().any(|held| held.types.contains(FileType::Cache)) {
            self.set_busy(id, Busy::File(FileType::Cache));
            return false;
        }
        // Nor of the file that is to go, as long as a path may come back that has it: nobody would look for it later.
        let is_listed = files.iter().any(|held| held.types.contains(FileType::Unsealed));
        if !is_listed && self.may_be_back().is_some() {
            self.set_busy(id, Busy::File(FileType::Unsealed));
            self.wait_for_paths(id);
            return false;
        }
        let gone = self.is_deleted(id, RELEASE_REASON);
        if gone && let Some(sector) = self.sectors.get_mut(&id) {
            sector.released = true;
        }
        gone
    }

    /// At the next whole second: however often a waiting sector is asked meanwhile, that is one timer.
    fn wait_for_paths(&mut self, id: SectorId) {
        let now = self.now_ms();
        self.timers.insert(((now - now % LOOK_AGAIN_MS).saturating_add(LOOK_AGAIN_MS), id));
    }

    /// What an earlier filling left would mix with the new one: its bytes behind the first piece stay allocated. A sector
    /// that never failed and is not sealed again has not been filled before.
    fn leftover_is_gone(&mut self, id: SectorId) -> bool {
        let Some(sector) = self.sectors.get_mut(&id) else { return true };
        let filled = !sector.record.failures().is_empty() || sector.record.is_rebuilt();
        !filled || std::mem::take(&mut sector.emptied) || self.is_deleted(id, ANEW_REASON)
    }

    /// Whether no path holds the unsealed file, nor an older copy that is listed nowhere: a worker would find it in the place of
    /// the one that it is to make. Else it is deleted, by a permit that is durable first.
    fn is_deleted(&mut self, id: SectorId, reason: &str) -> bool {
        let file = FileType::Unsealed;
        let files = self.shared.index.sector_files(id).into_iter();
        let older = self.shared.index.older_copies(id, file).into_iter().map(|older| older.id);
        let holders: Vec<_> =
            files.filter(|held| held.types.contains(file)).map(|held| held.id).chain(older).collect();
        if holders.is_empty() {
            return true;
        }
        for path in holders {
            let reason = reason.to_owned();
            self.events.push(StateEvent::DeletePermitted { sector: id, file, path, reason });
        }
        self.effects.push(Effect::Release { sector: id, file, reason: reason.to_owned() });
        false
    }

    pub(super) fn released(&mut self, id: SectorId, result: Result<(), String>) {
        let now_ms = self.now_ms();
        match result {
            Ok(()) => {
                if let Some(sector) = self.sectors.get_mut(&id) {
                    // Only before Finalize it is gone for good.
                    sector.released = sector.record.state() == SectorState::FinalizeSector;
                    sector.emptied = !sector.released;
                    sector.busy = Busy::Free;
                }
                self.advance(id);
            }
            Err(message) => {
                let class = FailureClass::Network;
                let message = format!("unsealed data could not be removed: {message}");
                self.sector_event(id, SectorEvent::Failed { class, message, now_ms });
            }
        }
    }

    pub(super) fn set_busy(&mut self, id: SectorId, busy: Busy) {
        if let Some(sector) = self.sectors.get_mut(&id) {
            // What the chain says now may not hold when the place is free.
            sector.not_proven &= busy != Busy::Stage;
            sector.busy = busy;
        }
    }
}

/// The input's short code: `MOVE` and `GET` are both scheduled as GET.
pub(super) const fn short_code(work: &TaskInput) -> &'static str {
    match work {
        TaskInput::DataCid(_) => "DC",
        TaskInput::AddPiece(_) => "AP",
        TaskInput::PreCommit1(_) => "PC1",
        TaskInput::PreCommit2(_) => "PC2",
        TaskInput::Commit1(_) => "C1",
        TaskInput::Commit2(_) => "C2",
        TaskInput::Finalize(_) => "FIN",
        TaskInput::ReleaseUnsealed(_) => RELEASE,
        TaskInput::Fetch(_) => "GET",
        TaskInput::Move(_) => MOVE,
        TaskInput::Unseal(_) => UNSEAL,
        TaskInput::Verify(_) => "VERIFY",
        TaskInput::Scrub(_) => "SCRUB",
        TaskInput::Vanilla(_) => "VANILLA",
    }
}

fn describe(event: &SectorEvent) -> String {
    match event {
        SectorEvent::Failed { message, .. } => format!("failure: {message}"),
        SectorEvent::Force { to } => format!("put into {to} by the operator"),
        SectorEvent::AddData { data } => {
            format!("{} bytes of data given, CommP {}", data.bytes, data.piece.cid)
        }
        SectorEvent::MessageSent { message } => format!("message {message} sent"),
        SectorEvent::Landed { epoch } => format!("on chain at {}", epoch.get()),
        SectorEvent::TicketExpired { head, .. } => {
            format!("its ticket is too old at height {}; it gets a new one", head.get())
        }
        SectorEvent::SeedChanged { .. } => {
            "its seed does not count any more; it waits for another one".to_owned()
        }
        SectorEvent::Rebuild { .. } => REBUILT.to_owned(),
        SectorEvent::Made { paths } => format!("this rebuild makes files in path {}", listed(paths)),
        SectorEvent::Filled { paths } => {
            format!("this rebuild makes an unsealed file in path {}", listed(paths))
        }
        SectorEvent::Trusted { paths } => {
            format!("its files in path {} are proven to be good", listed(paths))
        }
        SectorEvent::Correct { .. } => "what was told of it is corrected; it is sealed again".to_owned(),
        SectorEvent::Start
        | SectorEvent::StartPacking
        | SectorEvent::Proceed
        | SectorEvent::TaskDone { .. }
        | SectorEvent::TicketReady { .. }
        | SectorEvent::SeedReady { .. }
        | SectorEvent::RetryDue { .. }
        | SectorEvent::RetryNow
        | SectorEvent::Release => event.name().to_owned(),
    }
}

/// The durable form of what the pipeline was told.
fn event_json(event: &SectorEvent) -> serde_json::Value {
    use serde_json::json;
    match event {
        SectorEvent::Start => json!({ "event": "start" }),
        SectorEvent::AddData { data } => json!({ "event": "add_data", "data": data }),
        SectorEvent::StartPacking => json!({ "event": "start_packing" }),
        SectorEvent::Proceed => json!({ "event": "proceed" }),
        SectorEvent::MessageSent { message } => json!({ "event": "message_sent", "message": message }),
        SectorEvent::Landed { epoch } => json!({ "event": "landed", "epoch": epoch }),
        SectorEvent::Rebuild { refill } => json!({ "event": "rebuild", "refill": refill }),
        SectorEvent::Made { paths } => json!({ "event": "made", "paths": paths }),
        SectorEvent::Filled { paths } => json!({ "event": "filled", "paths": paths }),
        SectorEvent::Trusted { paths } => json!({ "event": "trusted", "paths": paths }),
        SectorEvent::Correct { ticket, sealed, data } => {
            json!({ "event": "correct", "ticket": ticket, "sealed": sealed, "data": data })
        }
        SectorEvent::Force { to } => json!({ "event": "force", "to": to }),
        SectorEvent::TaskDone { output, now_ms } => {
            json!({ "event": "task_done", "output": output, "now_ms": now_ms })
        }
        SectorEvent::Failed { class, message, now_ms } => {
            json!({ "event": "failed", "class": class, "message": message, "now_ms": now_ms })
        }
        SectorEvent::TicketReady { ticket, epoch } => {
            json!({ "event": "ticket_ready", "ticket": ticket, "epoch": epoch })
        }
        SectorEvent::SeedReady { seed, epoch } => {
            json!({ "event": "seed_ready", "seed": seed, "epoch": epoch })
        }
        SectorEvent::TicketExpired { head, now_ms } => {
            json!({ "event": "ticket_expired", "head": head, "now_ms": now_ms })
        }
        SectorEvent::SeedChanged { now_ms } => json!({ "event": "seed_changed", "now_ms": now_ms }),
        SectorEvent::RetryDue { now_ms } => json!({ "event": "retry_due", "now_ms": now_ms }),
        SectorEvent::RetryNow => json!({ "event": "retry_now" }),
        SectorEvent::Release => json!({ "event": "release" }),
    }
}

fn json_of(record: &SectorRecord) -> Option<serde_json::Value> {
    serde_json::to_value(record).ok()
}

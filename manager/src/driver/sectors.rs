//! Sectors: what the pipeline wants next becomes a task, a question or a wait, and what comes of it goes back to the
//! pipeline. Never: decides what a sector's next state is.

use pipeline::{SectorEvent, SectorRecord, Step, StopAfter};
use rpc::ApiError;
use rpc::api::PledgeOptions;
use sealtasks::{FailureClass, FileType, RegisteredSealProof, SectorId, SectorNumber, SectorRef, TaskInput};

use super::Driver;
use super::input::{Busy, Effect, Reply, Sector};
use crate::state::StateEvent;

/// Why unsealed data of a committed-capacity sector may go: it is zeros, and can be made again.
const RELEASE_REASON: &str = "a committed-capacity sector needs no unsealed copy once its proof is verified";

impl Driver {
    pub(super) fn pledge(&mut self, options: PledgeOptions, reply: Reply<SectorId>) {
        let miner = self.shared.miner.actor;
        let size = options.sector_size.unwrap_or(self.shared.miner.sector_size);
        let number = SectorNumber::new(self.next_sector);
        let Some(next) = self.next_sector.checked_add(1).filter(|next| i64::try_from(*next).is_ok()) else {
            return self.answer(reply, Err(ApiError::refused("MGR020: no sector number is left")));
        };
        self.next_sector = next;
        let sector =
            SectorRef { id: SectorId { miner, number }, proof: RegisteredSealProof::for_new_sector(size) };
        let stop_after = options.stop_after_c1.then_some(StopAfter::C1);
        let record = SectorRecord::pledge(sector, stop_after, self.shared.randomness);
        let Some(json) = json_of(&record) else {
            return self
                .answer(reply, Err(ApiError::refused("MGR021: the sector's record cannot be written")));
        };
        let state = record.state().name().to_owned();
        self.events.push(StateEvent::SectorPledged { sector, state, record: json });
        self.sectors
            .insert(sector.id, Sector { record, busy: Busy::Free, priority: 0, steps: 0, released: false });
        self.answer(reply, Ok(sector.id));
        self.advance(sector.id);
    }

    /// Tells the pipeline what happened and goes on from there. An event that the sector does not take changes nothing.
    pub(super) fn sector_event(&mut self, id: SectorId, event: SectorEvent) {
        if let Err(refusal) = self.try_sector_event(id, event) {
            tracing::warn!(sector = %id, %refusal, "an event was dropped");
        }
    }

    /// The same; the error says why the sector does not take it.
    pub(super) fn try_sector_event(&mut self, id: SectorId, event: SectorEvent) -> Result<(), String> {
        let Some(sector) = self.sectors.get_mut(&id) else {
            return Err(format!("sector {id} is not here; its {} came too late", event.name()));
        };
        let text = describe(&event);
        let body = event_json(&event);
        sector.record.apply(event).map_err(|refusal| refusal.to_string())?;
        let state = sector.record.state().name().to_owned();
        sector.busy = Busy::Free;
        let record = json_of(&sector.record).unwrap_or_default();
        tracing::info!(sector = %id, state, "{text}");
        let text = format!("{text}, now {state}");
        self.events.push(StateEvent::SectorStepped { sector: id, state, text, event: body, record });
        self.advance(id);
        Ok(())
    }

    /// Sets going what the sector waits for, unless it is under way.
    pub(super) fn advance(&mut self, id: SectorId) {
        let Some(sector) = self.sectors.get_mut(&id) else { return };
        match sector.busy {
            Busy::Free | Busy::File(_) => {}
            Busy::Task(_) | Busy::Asking | Busy::Until(_) => return,
        }
        sector.busy = Busy::Asking;
        let about = sector.record.sector();
        match sector.record.next() {
            Step::Run(work) => self.want_task(about, work),
            Step::NeedTicket => self.effects.push(Effect::Ticket(about)),
            Step::NeedSeed => match sector.record.progress().cids {
                Some(cids) => self.effects.push(Effect::Seed(about, cids.sealed)),
                None => {
                    sector.busy = Busy::Free;
                    tracing::error!(sector = %id, "a seed is wanted without a replica");
                }
            },
            Step::NeedVerification(input) => self.effects.push(Effect::Verify(about, input)),
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
                if !self.unsealed_is_gone(sector.id) {
                    return;
                }
            }
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
            | TaskInput::Scrub(_) => {}
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
        let file = FileType::Unsealed;
        let holders: Vec<_> =
            files.into_iter().filter(|held| held.types.contains(file)).map(|held| held.id).collect();
        if holders.is_empty() {
            if let Some(sector) = self.sectors.get_mut(&id) {
                sector.released = true;
            }
            return true;
        }
        for path in holders {
            let reason = RELEASE_REASON.to_owned();
            self.events.push(StateEvent::DeletePermitted { sector: id, file, path, reason });
        }
        self.effects.push(Effect::Release { sector: id, file, reason: RELEASE_REASON.to_owned() });
        false
    }

    pub(super) fn released(&mut self, id: SectorId, result: Result<(), String>) {
        let now_ms = self.now_ms();
        match result {
            Ok(()) => {
                if let Some(sector) = self.sectors.get_mut(&id) {
                    sector.released = true;
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
        TaskInput::ReleaseUnsealed(_) => "FUS",
        TaskInput::Fetch(_) => "GET",
        TaskInput::Move(_) => "MOVE",
        TaskInput::Unseal(_) => "UNS",
        TaskInput::Verify(_) => "VERIFY",
        TaskInput::Scrub(_) => "SCRUB",
    }
}

fn describe(event: &SectorEvent) -> String {
    match event {
        SectorEvent::Failed { message, .. } => format!("failure: {message}"),
        SectorEvent::Start
        | SectorEvent::TaskDone { .. }
        | SectorEvent::TicketReady { .. }
        | SectorEvent::SeedReady { .. }
        | SectorEvent::RetryDue { .. }
        | SectorEvent::RetryNow => event.name().to_owned(),
    }
}

/// The durable form of what the pipeline was told.
fn event_json(event: &SectorEvent) -> serde_json::Value {
    use serde_json::json;
    match event {
        SectorEvent::Start => json!({ "event": "start" }),
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
        SectorEvent::RetryDue { now_ms } => json!({ "event": "retry_due", "now_ms": now_ms }),
        SectorEvent::RetryNow => json!({ "event": "retry_now" }),
    }
}

fn json_of(record: &SectorRecord) -> Option<serde_json::Value> {
    serde_json::to_value(record).ok()
}

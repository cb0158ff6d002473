//! What an operator gives or orders of a sector's pipeline: data, the start of sealing, a state by hand, the end of
//! pledging. Never: keeps data; it is on stable storage before it comes here.

use chain::sending::Sending;
use pipeline::{DataPiece, SectorEvent, SectorRecord, SectorState};
use rpc::pipelining::{Lost, PledgingView};
use rpc::{ApiError, ApiResult};
use sealtasks::{ActorId, FileType, SectorId, StorageId};

use super::input::{Busy, Reply, Sector};
use super::{Driver, Effect};
use crate::state::StateEvent;

/// One order.
pub(crate) enum Order {
    /// Data for this sector, or for any of this miner.
    AddData { sector: Option<SectorId>, miner: ActorId, data: DataPiece, reply: Reply<SectorId> },
    /// No more data comes.
    StartSealing { sector: SectorId, reply: Reply<()> },
    /// A state by hand; `open` is the message about it whose end is not known.
    UpdateState { sector: SectorId, to: SectorState, open: Option<String>, reply: Reply<()> },
    /// A sector whose files are lost is sealed again, from its record or from what was lost.
    /// `bad`: paths whose files of it were proven to be no replica.
    Rebuild { sector: SectorId, lost: Option<Lost>, bad: Vec<StorageId>, reply: Reply<()> },
    /// Files of it in these paths are its replica: they were proven.
    Trust { sector: SectorId, proven: Vec<StorageId>, reply: Reply<()> },
    /// Pledging by itself stops, or goes on.
    PausePledging { paused: bool, by: String, reply: Reply<PledgingView> },
}

impl Driver {
    pub(super) fn order(&mut self, order: Order) {
        match order {
            Order::AddData { sector, miner, data, reply } => {
                let answer = self.add_data(sector, miner, data);
                self.answer(reply, answer);
            }
            Order::StartSealing { sector, reply } => {
                let answer = self.ordered(sector, SectorEvent::StartPacking, "MGR121");
                self.answer(reply, answer);
            }
            Order::UpdateState { sector, to, open, reply } => {
                let answer = self.update_state(sector, to, open);
                self.answer(reply, answer);
            }
            Order::Rebuild { sector, lost, bad, reply } => {
                let answer = self.rebuild(sector, lost, &bad);
                self.answer(reply, answer);
            }
            Order::Trust { sector, proven, reply } => {
                self.trust(sector, &proven);
                self.answer(reply, Ok(()));
            }
            Order::PausePledging { paused, by, reply } => {
                if paused != self.pledging_paused {
                    self.pledging_paused = paused;
                    self.events.push(StateEvent::PledgingPaused { paused, by });
                }
                let view = self.pledging_view();
                self.answer(reply, Ok(view));
            }
        }
    }

    /// Without a sector: the first of the miner that waits for data and has room, or a new one.
    fn add_data(&mut self, sector: Option<SectorId>, miner: ActorId, data: DataPiece) -> ApiResult<SectorId> {
        let fits = |record: &SectorRecord| {
            record.clone().apply(SectorEvent::AddData { data }).is_ok()
                && record.state() != SectorState::Empty
                && record.sector().id.miner == miner
        };
        let open =
            || self.sectors.values().find(|sector| fits(&sector.record)).map(|one| one.record.sector().id);
        let id = match sector.or_else(open) {
            Some(id) => id,
            None => self.new_sector(miner, self.shared.sealing.stop_at, SectorRecord::open)?.id,
        };
        self.ordered(id, SectorEvent::AddData { data }, "MGR120")?;
        Ok(id)
    }

    /// An event by an operator's order: it may come while the sector does something.
    pub(super) fn ordered(&mut self, id: SectorId, event: SectorEvent, code: &str) -> ApiResult<()> {
        let Some(sector) = self.sectors.get(&id) else { return Err(self.shared.no_sector(id)) };
        let busy = sector.busy.clone();
        self.apply_event(id, event).map_err(|refusal| ApiError::refused(format!("{code}: {refusal}")))?;
        // What is under way goes on: the event has added to what comes behind it.
        self.set_busy(id, busy);
        self.advance(id);
        Ok(())
    }

    fn update_state(&mut self, id: SectorId, to: SectorState, open: Option<String>) -> ApiResult<()> {
        let number = self.shared.name(id);
        let Some(sector) = self.sectors.get(&id) else { return Err(self.shared.no_sector(id)) };
        let under_way = match &sector.busy {
            Busy::Task(task) => {
                Some(format!("task {task} of it waits or runs; `sealing abort {number}` ends it"))
            }
            // What is only shown is sent by nobody.
            Busy::Asking if self.message_of(&sector.record).is_some_and(|(_, unsent)| unsent) => None,
            Busy::Asking => Some("it waits for an answer, which comes soon; try again".to_owned()),
            Busy::Free | Busy::Until(_) | Busy::File(_) | Busy::Stage => None,
        };
        let under_way = under_way.or_else(|| self.unsure_of(&sector.record, open));
        if let Some(what) = under_way.or_else(|| self.moved_or_used(id)) {
            return Err(ApiError::refused(format!("MGR122: sector {number} stays as it is: {what}")));
        }
        let labels = matches!(to, SectorState::GetTicket | SectorState::PreCommit1);
        let files = self.shared.index.sector_files(id);
        if labels && !files.iter().any(|held| held.types.contains(FileType::Unsealed)) {
            return Err(ApiError::refused(format!(
                "MGR123: sector {number} cannot be put into {to}: no path that is known now holds its unsealed file; Packing \
                 makes it anew"
            )));
        }
        let record = &sector.record;
        let given_up = record.is_rebuilt() && !record.is_from_unsealed() && to == SectorState::Proving;
        self.apply_event(id, SectorEvent::Force { to })
            .map_err(|refusal| ApiError::refused(format!("MGR124: {refusal}")))?;
        if let Some(sector) = self.sectors.get_mut(&id) {
            (sector.busy, sector.released) = (Busy::Free, false);
        }
        self.advance(id);
        if given_up && let Some(sector) = self.sectors.get(&id) {
            // The next rebuild finds it again.
            self.shared.refills.put_back(id, sector.record.data());
        }
        Ok(())
    }

    /// A message that an earlier life may have sent, while this one sends none and so never finds out.
    fn unsure_of(&self, record: &SectorRecord, open: Option<String>) -> Option<String> {
        let off = self.shared.messages.as_ref().is_some_and(|messages| messages.sending == Sending::Off);
        let sends = matches!(
            record.state(),
            SectorState::PreCommitting
                | SectorState::SubmitCommit
                | SectorState::PreCommitFailed
                | SectorState::CommitFailed
        );
        let message = open.filter(|_| off && sends)?;
        Some(format!(
            "message {message} about it may have been sent; run the manager with --send-messages until it is known what \
             became of that"
        ))
    }

    /// Whether an operator moves the sector, or somebody has it unsealed.
    pub(super) fn moved_or_used(&self, id: SectorId) -> Option<String> {
        if self.moves.contains_key(&id) {
            return Some("its files are being moved".to_owned());
        }
        let errand = self.errands.get(&id)?;
        Some(format!("task {} of it waits or runs", errand.task))
    }

    /// Data that a sector no longer needs goes when what made it so is durable.
    pub(super) fn unstage(&mut self, id: SectorId) {
        let Some(sector) = self.sectors.get(&id) else { return };
        if sector.record.state() == SectorState::Proving && sector.record.has_data() {
            let staged = sector.record.data().iter().map(|data| data.staged).collect();
            self.effects.push(Effect::Unstage(staged));
        }
    }

    /// Enters a new sector.
    pub(super) fn insert_sector(&mut self, record: impl Into<Box<SectorRecord>>) {
        let record = record.into();
        let (id, rebuilt) = (record.sector().id, record.is_rebuilt());
        self.sectors.insert(
            id,
            Sector {
                record,
                wanted: None,
                busy: Busy::Free,
                priority: 0,
                steps: 0,
                released: false,
                not_proven: false,
                leave_ms: 0,
                emptied: false,
            },
        );
        if rebuilt {
            self.keep_originals(id);
        }
    }
}

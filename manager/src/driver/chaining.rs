//! What goes on chain for a sector: handed to the post office, which sends it. Never: sends, or waits.

use chain::params::Method;
use chain::sending::Sending;
use pipeline::{RandomnessSource, SectorEvent, SectorRecord, SectorState, Step};
use sealtasks::{AttemptId, ChainEpoch, FailureClass, SectorId, SectorRef, TaskId, TaskInput};

use super::input::{Busy, Effect};
use super::originals::KEEP_TOLD;
use super::{Driver, Task};
use crate::messages::{Wanted, What, Wish};
use crate::state::{StateEvent, TaskOutcome};

/// What the chain has said of a sector counts for half an hour, in milliseconds: a task may wait for a worker for days.
const LEAVE_MS: u64 = 30 * 60 * 1000;

impl Driver {
    /// What no chain will ever see lands at once, and nothing is sent.
    pub(super) fn put_on_chain(&mut self, id: SectorId) {
        let Some(sector) = self.sectors.get(&id) else { return };
        let now_ms = self.now_ms();
        let failed =
            |class, message: &str| SectorEvent::Failed { class, message: message.to_owned(), now_ms };
        let event = match sector.record.source() {
            RandomnessSource::Offline | RandomnessSource::Rehearsal => {
                SectorEvent::Landed { epoch: ChainEpoch::default() }
            }
            RandomnessSource::Lotus if self.shared.messages.is_none() => failed(
                FailureClass::Environment,
                "this manager runs without a chain; start it with the full node of the sector's chain",
            ),
            RandomnessSource::Lotus => match wish_of(&sector.record) {
                Some(wish) => return self.effects.push(Effect::Wish(wish)),
                None => failed(FailureClass::Environment, "the sector's record lacks what its message says"),
            },
        };
        self.sector_event(id, event);
    }

    /// Before PreCommit1, which deletes every earlier replica of the sector: a sector of a chain is not sealed while it is
    /// proven there, and one that is sealed again not while a replica of it is known of that this has not made. False: the
    /// chain is asked; the sector goes on by itself later.
    pub(super) fn may_be_sealed(&mut self, about: SectorRef) -> bool {
        let Some(sector) = self.sectors.get_mut(&about.id) else { return false };
        let record = &sector.record;
        if record.rebuilt_to().is_some() {
            let told = record.is_told();
            let Some(path) = self.turned_up(about.id) else { return true };
            let (class, now_ms) = (FailureClass::Environment, self.now_ms());
            let number = self.shared.name(about.id);
            let keep = match told {
                true => KEEP_TOLD.to_owned(),
                false => format!(
                    "`sealyard sectors update-state --really-do-it {number} Proving` gives the rebuild up"
                ),
            };
            let message = format!(
                "a replica has turned up on path {path} that this rebuild has not made, and nothing was deleted; if it is \
                 what was lost, {keep}; if it is worth nothing, delete it, let `sealyard storage redeclare --drop-missing` forget it, and \
                 `sealyard sectors retry {number}`"
            );
            self.sector_event(about.id, SectorEvent::Failed { class, message, now_ms });
            return false;
        }
        if record.source() != RandomnessSource::Lotus {
            return true;
        }
        if !std::mem::take(&mut sector.not_proven) {
            self.effects.push(Effect::AskProven(about.id));
            return false;
        }
        true
    }

    /// What the chain says of a sector that is to be labelled, or was to be a while ago.
    pub(super) fn leave(&mut self, id: SectorId, leave: Result<Option<ChainEpoch>, SectorEvent>) {
        let now_ms = self.now_ms();
        let Some(sector) = self.sectors.get_mut(&id) else { return };
        if sector.record.state() != SectorState::PreCommit1 {
            return;
        }
        let waits = match sector.busy {
            Busy::Asking => None,
            Busy::Task(task) => Some(task),
            Busy::Free | Busy::Until(_) | Busy::File(_) | Busy::Stage => return,
        };
        let event = match leave {
            Ok(Some(head)) if sector.record.needs_new_ticket(head) => {
                SectorEvent::TicketExpired { head, now_ms }
            }
            Ok(_) => {
                sector.leave_ms = now_ms;
                return match waits {
                    Some(task) => self.goes_on(task),
                    None => {
                        (sector.not_proven, sector.busy) = (true, Busy::Free);
                        self.advance(id);
                    }
                };
            }
            Err(failed) => failed,
        };
        if waits.is_none_or(|task| self.taken_back(task)) {
            self.sector_event(id, event);
        }
    }

    /// Whether this is PreCommit1 of a sector of a chain that has not been asked for long: it waited for a worker.
    pub(super) fn leave_is_old(&self, task: TaskId) -> bool {
        let Some(task) = self.tasks.get(&task) else { return false };
        let Some(sector) = self.sectors.get(&task.sector.id) else { return false };
        matches!(*task.work, TaskInput::PreCommit1(_))
            && sector.record.source() == RandomnessSource::Lotus
            && sector.record.rebuilt_to().is_none()
            && sector.leave_ms.saturating_add(LEAVE_MS) < self.now_ms()
    }

    /// Takes a task that was just bound back from the scheduler, until the chain has said that its sector may be sealed still.
    /// Nothing of the binding is committed yet, and nobody was called.
    pub(super) fn ask_again(&mut self, attempt: AttemptId) {
        self.take_back(attempt, "the chain is asked whether it may begin");
        let Some(task) = self.tasks.get_mut(&attempt.task) else { return };
        task.held_back = true;
        self.effects.push(Effect::AskProven(task.sector.id));
    }

    /// One that was taken back goes to the scheduler again, in its old place.
    fn goes_on(&mut self, task: TaskId) {
        if self.tasks.get(&task).is_some_and(|task| task.asks()) {
            self.submit(task);
        }
    }

    /// Ends one that was taken back; false: it is not, or no more.
    fn taken_back(&mut self, task: TaskId) -> bool {
        if !self.tasks.get(&task).is_some_and(|task| task.asks()) {
            return false;
        }
        self.tasks.remove(&task);
        let reason = "it may not begin now".to_owned();
        self.events.push(StateEvent::TaskEnded { task, outcome: TaskOutcome::Cancelled, reason });
        true
    }

    /// What is known of the message that a sector waits for, and whether only the operator's leave is missing.
    pub(super) fn message_of(&self, record: &SectorRecord) -> Option<(String, bool)> {
        let unsent = match record.next() {
            Step::SubmitPreCommit | Step::SubmitCommit => true,
            Step::AwaitMessage { .. } => false,
            _ => return None,
        };
        let messages = self.shared.messages.as_ref()?;
        Some((messages.note(record.sector().id), unsent && messages.sending == Sending::Off))
    }
}

impl Task {
    /// Whether it is held back, and not for its files.
    pub(super) fn asks(&self) -> bool {
        self.held_back && self.open.is_none() && self.in_line.is_none()
    }
}

fn proof_of(record: &SectorRecord) -> Option<What> {
    // The actor counts zeros between and behind them by itself. Named, they would cost gas, and a repair would ask for
    // them.
    let pieces = record.data().iter().map(|data| data.piece).collect();
    let progress = record.progress();
    let seed = progress.seed.map(|seed| (seed.value, seed.epoch))?;
    Some(What::Prove { pieces, proof: progress.proof.clone()?, seed })
}

/// What the sector wants of the chain.
fn wish_of(record: &SectorRecord) -> Option<Wish> {
    let (sector, progress) = (record.sector(), record.progress());
    let what = match record.next() {
        Step::AwaitMessage { message } => {
            let method = match progress.proof {
                Some(_) => Method::ProveCommitSectors3,
                None => Method::PreCommitSectorBatch2,
            };
            return Some(Wish::Await { sector: sector.id, method, message });
        }
        Step::SubmitPreCommit => {
            let unsealed = progress.cids.filter(|_| record.has_data()).map(|cids| cids.unsealed);
            What::PreCommit { ticket_epoch: progress.ticket.as_ref()?.epoch, unsealed }
        }
        Step::SubmitCommit => proof_of(record)?,
        _ => return None,
    };
    let sealed = progress.cids?.sealed;
    Some(Wish::Send(Box::new(Wanted { sector, sealed, cutoff: record.deadline()?, what })))
}

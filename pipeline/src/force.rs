//! `update-state`: an operator puts a sector into a state by hand. What later states made is forgotten, so that the sector
//! does it again; nothing is invented, and what a chain or the unsealed file's absence forbids is refused.

use crate::awaited::Awaited;
use crate::check::{Stage, check};
use crate::record::Fields;
use crate::retry::Failures;
use crate::table::TRANSITIONS;
use crate::{
    OnChain, Outcome, PendingRetry, RandomnessSource, RetryWhen, SectorRecord, SectorState, TransitionError,
};

impl SectorRecord {
    /// Puts the sector into `to`, as an operator asks.
    pub(crate) fn force(&mut self, to: SectorState) -> Result<(), TransitionError> {
        let state = self.fields.state;
        let refuse = |why| Err(TransitionError::Force { state, to, why });
        if state == to {
            return refuse("it is there already; `sectors retry` tries a failed one again");
        }
        if self.rebuilt_to().is_some() {
            if to == SectorState::Proving {
                return self.give_up();
            }
            return refuse(
                "it is sealed again from an old ticket, and goes that way alone; Proving gives that up",
            );
        }
        let (from, least) = (Stage::of(&self.fields), Stage::least(to));
        // A failed state of several steps is entered as what the sector has.
        let target = if to.is_failed() && Stage::of(&Fields { state: to, ..self.fields.clone() }) <= from {
            Stage::of(&Fields { state: to, ..self.fields.clone() })
        } else {
            least
        };
        if target > from {
            return refuse("it has not made what that state needs; it can be put back, not forward");
        }
        let progress = &self.fields.progress;
        if progress.cache_cleared && target < Stage::Committed {
            return refuse("its cache is cleared, so nothing can be proven from it any more");
        }
        let on_chain = |known: &Option<OnChain>| on_chain(known, self.source());
        if on_chain(&progress.commit) && target < Stage::Committed {
            return refuse("its proof was put on chain");
        }
        if on_chain(&progress.pre_commit) && target < Stage::Replica {
            return refuse("its CommR was put on chain, and another ticket would make another one");
        }
        if matches!(
            to,
            SectorState::AddPiece | SectorState::Empty | SectorState::PreCommitWait | SectorState::CommitWait
        ) {
            return refuse("that state is entered by data or a message, not by hand");
        }
        let mut forced = self.fields.clone();
        forced.state = to;
        forget(&mut forced, target);
        forced.retry = retry_from(to, &forced);
        forced.failures = Failures { kept: std::mem::take(&mut forced.failures.kept), ..Failures::default() };
        match check(&forced) {
            Ok(()) => {
                self.fields = forced;
                debug_assert!(self.awaited() != Awaited::Retry || self.fields.retry.is_some());
                Ok(())
            }
            Err(_) => refuse("what it has made does not fit that state"),
        }
    }
}

/// Whether a message was sent, or something has landed: on a chain also by a message that is not ours.
fn on_chain(known: &Option<OnChain>, source: RandomnessSource) -> bool {
    let landed = |known: &OnChain| source == RandomnessSource::Lotus && known.landed.is_some();
    known.as_ref().is_some_and(|known| known.message.is_some() || landed(known))
}

/// Drops what was made behind this stage.
fn forget(fields: &mut Fields, stage: Stage) {
    let progress = &mut fields.progress;
    if stage < Stage::Committed {
        progress.commit = None;
        progress.cache_cleared = false;
    }
    if stage < Stage::Proven {
        (progress.c1, progress.proof, progress.verified) = (None, None, None);
    }
    if stage < Stage::Seeded {
        progress.seed = None;
    }
    if stage < Stage::PreCommitted {
        progress.pre_commit = None;
    }
    if stage < Stage::Replica {
        progress.cids = None;
    }
    if stage < Stage::Labelled {
        progress.pc1 = None;
    }
    if stage < Stage::Ticket {
        progress.ticket = None;
    }
    if stage < Stage::Filled && fields.state != SectorState::AddPieceFailed {
        progress.pieces.clear();
        fields.data.iter_mut().for_each(|data| data.offset = None);
        // Waiting for data is what the operator asks for by WaitDeals.
        fields.packing = fields.state == SectorState::Packing;
        if fields.packing && !fields.data.is_empty() {
            fields.state = SectorState::WaitDeals;
        }
    }
}

/// A failed state waits for the operator, who put it there.
fn retry_from(state: SectorState, fields: &Fields) -> Option<PendingRetry> {
    let proven = fields.progress.proof.is_some();
    let waiting = fields.data.iter().any(|data| data.offset.is_none());
    let retry = match state {
        SectorState::CommitFailed if proven => Some(Outcome::RetrySubmitCommit),
        SectorState::AddPieceFailed if !waiting => Some(Outcome::RetryAddPiece),
        SectorState::PreCommitFailed if Stage::of(fields) == Stage::PreCommitted => {
            Some(Outcome::RetryWaitSeed)
        }
        state if state.is_failed() => {
            TRANSITIONS.iter().find(|row| row.0 == state).map(|(_, outcome, _)| *outcome)
        }
        _ => None,
    };
    retry.map(|retry| PendingRetry { retry, when: RetryWhen::Operator })
}

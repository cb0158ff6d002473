//! Lotus workers that this manager's earlier life had calls on: they are dialled again after a restart, for they register
//! by themselves only when they are quiet, which a PreCommit1 puts off by hours. Sealyard workers register at once, busy or not.
//!
//! Being dialled proves nothing: such a worker cannot say what it holds. So one is dialled only when everything that it
//! may hold is a call of which the durable state knows that it took it; those are charged again, and it gets work beside
//! them. One that may hold anything else has to return that, or to register, first. Never: dials (see `workers`).

use std::collections::BTreeSet;

use sealtasks::WorkerId;

use super::input::Effect;
use super::{Attempt, Driver, Peer, Phase};
use crate::workers::Introduction;

/// Whether a worker is to be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Redial {
    /// At this URL.
    Now(String),
    /// It may hold a call that nobody knows: asked again later.
    Later,
    /// It is here, or has nothing of ours any more.
    Never,
}

impl Driver {
    /// Has every Lotus worker dialled that attempts of an earlier life are on.
    pub(super) fn redial_workers(&mut self) {
        let away = self.open_attempts().map(|(_, open)| open).filter(|open| open.peer == Peer::Lotus);
        let sessions: BTreeSet<WorkerId> = away.map(|open| open.worker).collect();
        self.effects.extend(sessions.into_iter().map(Effect::Redial));
    }

    /// Whether the worker with this session is to be dialled now.
    pub(crate) fn to_redial(&self, session: WorkerId) -> Redial {
        if self.workers.contains_key(&session) {
            return Redial::Never;
        }
        let here: Vec<&Attempt> =
            self.open_attempts().map(|(_, open)| open).filter(|open| open.worker == session).collect();
        let Some(first) = here.first().filter(|open| open.peer == Peer::Lotus) else { return Redial::Never };
        let unknown = here.iter().any(|open| !matches!(open.phase, Phase::Held(..)));
        // Nobody knows any more what a given-up call uses there, so nothing is put beside it.
        let given_up = self.detached.values().any(|given_up| given_up.open.worker == session);
        if unknown || given_up { Redial::Later } else { Redial::Now(first.url.clone()) }
    }

    /// A worker that was dialled answered. Meanwhile it may have registered, or what it was dialled for may be over.
    pub(super) fn redialled(&mut self, introduction: Introduction) {
        if matches!(self.to_redial(introduction.session), Redial::Now(_)) {
            self.join(introduction);
        }
    }
}

//! Sectors that wait for a message of one kind, and how a batch of them becomes a draft. Sends nothing.

use chain::Lotus;
use chain::params::{Activation, Method, PieceActivation, PreCommit, ProveCommit, SectorProofs};
use chain::sending::batch::{BatchPolicy, Decision, Now, Waiting, decide};
use chain::sending::{Draft, Intent, Payment, SendError, draft_pre_commit, draft_prove_commit, own_payers};
use rpc::Miners;
use sealtasks::{ActorId, ChainEpoch, SectorId, SectorNumber};

use super::{Wanted, What};
use crate::binding::others;
use crate::config::ChainSettings;

/// One that waits.
#[derive(Clone, Debug)]
pub(super) struct Gathered {
    pub(super) wanted: Wanted,
    /// Since when, in Unix milliseconds.
    pub(super) since_ms: u64,
    /// The chain and the outbox were asked: no message for it is on its way or has landed.
    pub(super) is_new: bool,
}

/// The kind of a wanted message.
pub(super) const fn method_of(wanted: &Wanted) -> Method {
    match wanted.what {
        What::PreCommit { .. } => Method::PreCommitSectorBatch2,
        What::Prove { .. } => Method::ProveCommitSectors3,
    }
}

/// What one message is about: its kind and its miner.
pub(super) const fn kind_of(wanted: &Wanted) -> (Method, ActorId) {
    (method_of(wanted), wanted.sector.id.miner)
}

/// What the sectors of a message that was intended want, if all of them want it still, as it is: with the CommR or the proof of now.
pub(super) fn wanted_by(gathered: &[Gathered], intent: &Intent) -> Option<Vec<Wanted>> {
    let wants = |wanted: &Wanted, number| {
        let id = SectorId { miner: intent.miner, number };
        wanted.sector.id == id && method_of(wanted) == intent.method && says(wanted, intent)
    };
    let of = |number: &SectorNumber| gathered.iter().map(|one| &one.wanted).find(|one| wants(one, *number));
    intent.sectors.iter().map(|number| of(number).cloned()).collect()
}

/// Whether the message says what is wanted: this CommR, or this proof.
pub(super) fn says(wanted: &Wanted, intent: &Intent) -> bool {
    match &wanted.what {
        What::PreCommit { .. } => intent.says(wanted.sealed.commitment().bytes()),
        What::Prove { proof, .. } => intent.says(&proof.0),
    }
}

/// When messages of this kind go.
pub(super) const fn policy(settings: &ChainSettings, method: Method) -> BatchPolicy {
    match method {
        Method::PreCommitSectorBatch2 => settings.pre_commit,
        Method::ProveCommitSectors3 => settings.prove_commit,
    }
}

/// What is to go now.
pub(super) enum Due {
    /// These, the most urgent first.
    Batch(Vec<Gathered>),
    /// None: the base fee is above the operator's limit.
    Dear,
    /// None yet.
    Nothing,
}

/// Takes out those of this kind and this miner that are to go now: a message is to one miner alone.
pub(super) fn take_due(
    gathered: &mut Vec<Gathered>,
    kind: (Method, ActorId),
    policy: &BatchPolicy,
    now: Now,
) -> Due {
    let places: Vec<usize> = (0..gathered.len())
        .filter(|at| gathered[*at].is_new && kind_of(&gathered[*at].wanted) == kind)
        .collect();
    let waiting: Vec<Waiting> = places
        .iter()
        .map(|at| Waiting { since_ms: gathered[*at].since_ms, cutoff: gathered[*at].wanted.cutoff })
        .collect();
    let which = match decide(&waiting, policy, now) {
        Decision::Send { which, .. } => which,
        Decision::Wait { base_fee: true, .. } => return Due::Dear,
        Decision::Wait { base_fee: false, .. } | Decision::Nothing => return Due::Nothing,
    };
    let batch: Vec<Gathered> =
        which.iter().filter_map(|at| gathered.get(*places.get(*at)?).cloned()).collect();
    let taken = |one: &Gathered| batch.iter().any(|other| other.wanted.sector == one.wanted.sector);
    gathered.retain(|one| kind_of(&one.wanted) != kind || !taken(one));
    Due::Batch(batch)
}

/// The message for these sectors, all of one kind.
pub(super) async fn draft(
    lotus: &Lotus,
    settings: &ChainSettings,
    miners: &Miners,
    miner: ActorId,
    batch: &[Gathered],
) -> Result<Draft, SendError> {
    let mut pre_commits = Vec::new();
    let (mut sectors, mut proofs) = (Vec::new(), Vec::new());
    let (head, _) = lotus.head().await?;
    let expiration = ChainEpoch::new(head.get().saturating_add(settings.lifetime));
    for Wanted { sector, sealed, what, .. } in batch.iter().map(|one| one.wanted.clone()) {
        match what {
            What::PreCommit { ticket_epoch, unsealed } => {
                pre_commits.push(PreCommit { sector, sealed, ticket_epoch, expiration, unsealed });
            }
            What::Prove { pieces, proof, .. } => {
                let activation = |piece| PieceActivation { piece, allocation: None, notify: Vec::new() };
                let pieces = pieces.into_iter().map(activation).collect();
                sectors.push(Activation { number: sector.id.number, pieces });
                proofs.push(proof);
            }
        }
    }
    let payment = match sectors.is_empty() {
        true => &settings.pre_commit_payment,
        false => &settings.prove_commit_payment,
    };
    // The list has all miners' payers, and each pays for its own.
    let from = own_payers(lotus, miner, &others(miners, miner), &payment.from).await?;
    let payment = Payment { fees: payment.fees, from };
    if sectors.is_empty() {
        return draft_pre_commit(lotus, miner, &pre_commits, &payment).await;
    }
    let prove = ProveCommit {
        sectors,
        proofs: SectorProofs::Each(proofs),
        // One that cannot be activated does not take the others with it; each is told what came of it.
        require_activation: false,
        require_notification: false,
    };
    draft_prove_commit(lotus, miner, &prove, &payment).await
}

#[cfg(test)]
mod tests {
    use chain::TokenAmount;
    use sealtasks::{Commitment, RegisteredSealProof, SealedCid, SectorRef, SectorSize};

    use super::*;

    fn waiting(miner: u64, number: u64) -> Gathered {
        let proof = RegisteredSealProof::for_new_sector(SectorSize::KiB2);
        let wanted = Wanted {
            sector: SectorRef { id: SectorId::new(miner, number), proof },
            sealed: SealedCid::new(Commitment::new([7; 32])),
            cutoff: ChainEpoch::new(1_000_000),
            what: What::PreCommit { ticket_epoch: ChainEpoch::new(1), unsealed: None },
        };
        Gathered { wanted, since_ms: 0, is_new: true }
    }

    #[test]
    fn no_message_is_about_two_miners_sectors() {
        let method = Method::PreCommitSectorBatch2;
        let policy =
            BatchPolicy { wait_ms: 0, base_fee_max: None, ..policy(&ChainSettings::default(), method) };
        let now = Now { ms: 1, head: ChainEpoch::new(10), base_fee: TokenAmount::default() };
        let mut gathered = vec![waiting(1000, 1), waiting(2000, 1), waiting(1000, 2)];
        let mut take = |miner| {
            let due = take_due(&mut gathered, (method, ActorId::new(miner)), &policy, now);
            let Due::Batch(batch) = due else { panic!("nothing is due") };
            let mut ids: Vec<_> = batch.iter().map(|one| one.wanted.sector.id).collect();
            ids.sort();
            (ids, gathered.len())
        };
        assert_eq!(take(2000), (vec![SectorId::new(2000, 1)], 2));
        assert_eq!(take(1000), (vec![SectorId::new(1000, 1), SectorId::new(1000, 2)], 0));
    }
}

//! Which chain a repo's sectors are for: bound when the repo is made, and never another afterwards. Never: asks for
//! randomness, or sends anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use chain::sending::{FileOutbox, SendError, Sending, check_payers};
use chain::{BeaconSecret, Chain, ChainError, Lotus, Offline};
use pipeline::RandomnessSource;
use rpc::Miners;
use sealtasks::{ActorId, RegisteredSealProof, SectorSize};

use crate::manager::ManagerError;
use crate::messages::{Messages, Post};
use crate::repo::Repo;
use crate::state::{ChainIdentity, MinerIdentity, State, StateEvent};

/// Miners beside the first one, at most; each is asked about on chain at every start.
const OTHERS_MAX: usize = 63;

/// The chain that a manager is started with.
#[derive(Clone)]
pub enum ChainChoice {
    /// None: tickets and seeds are its own, and nothing is ever sent.
    Offline,
    /// A full node's.
    Lotus {
        /// The node, synced as far as the operator wants it to be.
        lotus: Arc<Lotus>,
        /// Whether messages are sent.
        sending: Sending,
    },
}

impl ChainIdentity {
    /// Of the chain behind this node.
    pub fn of(lotus: &Lotus) -> Self {
        Self { network: lotus.network().to_owned(), genesis: lotus.genesis().to_owned() }
    }
}

/// What a manager works with.
pub(crate) struct Bound {
    pub(crate) chain: Arc<dyn Chain>,
    pub(crate) randomness: RandomnessSource,
    pub(crate) messages: Option<(Messages, Post)>,
    /// No new sector of a miner has a lower number: the chain knows of others.
    pub(crate) first_sectors: BTreeMap<ActorId, u64>,
}

/// The chain of this repo, if it is the one that was chosen and knows the miner as the repo does.
pub(crate) async fn bind(
    repo: &Repo,
    miner: &MinerIdentity,
    miners: &Miners,
    choice: ChainChoice,
) -> Result<Bound, ManagerError> {
    let rehearses = sealtasks::rehearsal::is_marked(&miner.beacon);
    let none = if rehearses { "no chain (it is a REHEARSAL)" } else { "no chain (offline)" };
    let told = |chain: &Option<ChainIdentity>| chain.as_ref().map_or(none.to_owned(), ToString::to_string);
    let ours = told(&miner.chain);
    match (choice, &miner.chain) {
        (ChainChoice::Offline, None) => Ok(Bound {
            chain: Arc::new(Offline::new(BeaconSecret::new(miner.beacon))),
            randomness: if rehearses { RandomnessSource::Rehearsal } else { RandomnessSource::Offline },
            messages: None,
            first_sectors: BTreeMap::new(),
        }),
        (ChainChoice::Offline, Some(_)) => Err(ManagerError::NoNode { ours }),
        (ChainChoice::Lotus { lotus, .. }, bound) if bound.as_ref() != Some(&ChainIdentity::of(&lotus)) => {
            Err(ManagerError::OtherChain { ours, theirs: ChainIdentity::of(&lotus).to_string() })
        }
        (ChainChoice::Lotus { lotus, sending }, _) => {
            let mut first_sectors = BTreeMap::new();
            for actor in miners.all() {
                check_miner(&lotus, actor, miner.sector_size).await?;
                match check_payments(repo, &lotus, actor).await {
                    // Each message is checked again; what one miner may not pay with keeps no other one's from starting.
                    Err(error @ ManagerError::Miner { .. }) if actor != miners.first => {
                        tracing::error!(%error, "no message of this miner is sent until that is put right");
                    }
                    checked => checked?,
                }
                first_sectors.insert(actor, lotus.first_free(actor).await?);
            }
            let outbox = FileOutbox::open(&repo.messages())?;
            Ok(Bound {
                chain: lotus.clone(),
                randomness: RandomnessSource::Lotus,
                messages: Some(Messages::open(lotus, outbox, sending)),
                first_sectors,
            })
        }
    }
}

/// Refuses settings that name a payer who is not the miner's: who is named pays for every miner's messages.
async fn check_payments(repo: &Repo, lotus: &Lotus, miner: ActorId) -> Result<(), ManagerError> {
    let settings = &repo.config().chain;
    for payment in [&settings.pre_commit_payment, &settings.prove_commit_payment] {
        match check_payers(lotus, miner, &payment.from).await {
            Err(SendError::Chain(error)) => return Err(error.into()),
            checked => {
                checked.map_err(|error| ManagerError::Miner { miner, detail: error.to_string() })?;
            }
        }
    }
    Ok(())
}

/// Has a repo serve another miner from the next start on: of the same chain, with sectors of the same size. `lotus` is the
/// full node of a repo that is for a chain.
///
/// # Errors
/// It is served already, the repo's chain is not told or another one, the chain knows the miner otherwise, or the durable
/// state's; nothing has changed then.
pub async fn add_miner(
    repo: &Repo,
    actor: ActorId,
    lotus: Option<&Lotus>,
    by: String,
) -> Result<Miners, ManagerError> {
    let (miner, mut miners) = State::identity(&repo.state_file())?;
    if miners.contains(actor) {
        return Err(ManagerError::ServedAlready { miner: actor });
    }
    if miners.others.len() >= OTHERS_MAX {
        return Err(ManagerError::TooManyMiners { most: OTHERS_MAX + 1 });
    }
    match (lotus, &miner.chain) {
        (None, None) => {}
        (Some(lotus), Some(ours)) if *ours == ChainIdentity::of(lotus) => {
            check_miner(lotus, actor, miner.sector_size).await?;
            check_payments(repo, lotus, actor).await?;
        }
        (Some(lotus), ours) => {
            let ours = ours.as_ref().map_or("no chain (offline)".to_owned(), ToString::to_string);
            return Err(ManagerError::OtherChain { ours, theirs: ChainIdentity::of(lotus).to_string() });
        }
        (None, Some(ours)) => return Err(ManagerError::NoNode { ours: ours.to_string() }),
    }
    // Opened, a database of an earlier version is upgraded, and the program that wrote it can use it no more.
    let state = State::open(&repo.state_file())?;
    state.commit(vec![StateEvent::MinerAdded { miner: actor, by }]).await?;
    miners.others.push(actor);
    Ok(miners)
}

async fn check_miner(lotus: &Lotus, miner: ActorId, size: SectorSize) -> Result<(), ManagerError> {
    let facts = match lotus.miner(miner, Some(size)).await {
        Err(ChainError::SectorSize { chain, told, .. }) => {
            let detail = format!("its sectors have {chain} on chain, and this repo is for sectors of {told}");
            return Err(ManagerError::Miner { miner, detail });
        }
        facts => facts?,
    };
    let made = RegisteredSealProof::for_new_sector(size);
    if facts.proof == made {
        return Ok(());
    }
    let detail = format!(
        "new sectors have proof type {} on this network, and {} is what is made here",
        facts.proof.number(),
        made.number()
    );
    Err(ManagerError::Miner { miner, detail })
}

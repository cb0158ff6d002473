//! Which chain a repo's sectors are for: bound when the repo is made, and never another afterwards. Never: asks for
//! randomness, or sends anything.

use std::sync::Arc;

use chain::sending::{FileOutbox, SendError, Sending, check_payers};
use chain::{BeaconSecret, Chain, ChainError, Lotus, Offline};
use pipeline::RandomnessSource;
use sealtasks::RegisteredSealProof;

use crate::manager::ManagerError;
use crate::messages::{Messages, Post};
use crate::repo::Repo;
use crate::state::{ChainIdentity, MinerIdentity};

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
    /// No new sector has a lower number: the chain knows of others.
    pub(crate) first_sector: u64,
}

/// The chain of this repo, if it is the one that was chosen and knows the miner as the repo does.
pub(crate) async fn bind(
    repo: &Repo,
    miner: &MinerIdentity,
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
            first_sector: 0,
        }),
        (ChainChoice::Offline, Some(_)) => Err(ManagerError::NoNode { ours }),
        (ChainChoice::Lotus { lotus, .. }, bound) if bound.as_ref() != Some(&ChainIdentity::of(&lotus)) => {
            Err(ManagerError::OtherChain { ours, theirs: ChainIdentity::of(&lotus).to_string() })
        }
        (ChainChoice::Lotus { lotus, sending }, _) => {
            check_miner(&lotus, miner).await?;
            let settings = &repo.config().chain;
            for payment in [&settings.pre_commit_payment, &settings.prove_commit_payment] {
                match check_payers(&lotus, miner.actor, &payment.from).await {
                    Err(SendError::Chain(error)) => return Err(error.into()),
                    checked => checked.map_err(|error| ManagerError::Miner {
                        miner: miner.actor,
                        detail: error.to_string(),
                    })?,
                }
            }
            let first_sector = lotus.first_free(miner.actor).await?;
            let outbox = FileOutbox::open(&repo.messages())?;
            Ok(Bound {
                chain: lotus.clone(),
                randomness: RandomnessSource::Lotus,
                messages: Some(Messages::open(lotus, outbox, sending)),
                first_sector,
            })
        }
    }
}

async fn check_miner(lotus: &Lotus, miner: &MinerIdentity) -> Result<(), ManagerError> {
    let facts = match lotus.miner(miner.actor, Some(miner.sector_size)).await {
        Err(ChainError::SectorSize { chain, told, .. }) => {
            let detail = format!("its sectors have {chain} on chain, and this repo is for sectors of {told}");
            return Err(ManagerError::Miner { miner: miner.actor, detail });
        }
        facts => facts?,
    };
    let made = RegisteredSealProof::for_new_sector(miner.sector_size);
    if facts.proof == made {
        return Ok(());
    }
    let detail = format!(
        "new sectors have proof type {} on this network, and {} is what is made here",
        facts.proof.number(),
        made.number()
    );
    Err(ManagerError::Miner { miner: miner.actor, detail })
}

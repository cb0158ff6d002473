//! Which chain a repo's sectors are for: bound when the repo is made, and never another afterwards. Never: asks for
//! randomness, or sends anything.

use std::collections::BTreeSet;
use std::sync::Arc;

use chain::sending::{FileOutbox, Outbox as _, SendError, Sending, own_payers};
use chain::{BeaconSecret, Chain, ChainError, Lotus, Offline};
use pipeline::RandomnessSource;
use rpc::{ApiError, Miners};
use sealtasks::{ActorId, RegisteredSealProof, SectorSize};

use crate::config::ChainSettings;
use crate::manager::ManagerError;
use crate::messages::{Messages, Post};
use crate::repo::Repo;
use crate::state::{ChainIdentity, MinerIdentity, State, StateError, StateEvent};
use crate::unsaid::Unsaid;
use crate::workers::chain_of;

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
    /// What the chain has said of each miner.
    pub(crate) unsaid: Unsaid,
    /// `[chain]` of `config.toml`, without what is left over in it of miners that were removed.
    pub(crate) settings: ChainSettings,
}

/// The chain of this repo, if it is the one that was chosen and knows the miner as the repo does.
pub(crate) async fn bind(
    repo: &Repo,
    miner: &MinerIdentity,
    miners: &Miners,
    choice: ChainChoice,
    now_ms: u64,
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
            unsaid: Unsaid::default(),
            settings: repo.config().chain.clone(),
        }),
        (ChainChoice::Offline, Some(_)) => Err(ManagerError::NoNode { ours }),
        (ChainChoice::Lotus { lotus, .. }, bound) if bound.as_ref() != Some(&ChainIdentity::of(&lotus)) => {
            Err(ManagerError::OtherChain { ours, theirs: ChainIdentity::of(&lotus).to_string() })
        }
        (ChainChoice::Lotus { lotus, sending }, _) => {
            let unsaid = Unsaid::default();
            let settings = without_left_over(&lotus, repo, miners).await?;
            for actor in miners.all() {
                match known(&lotus, &settings, miners, actor, miner.sector_size).await {
                    Ok(first) => unsaid.said(actor, first),
                    // It is asked again; what is not known of one miner keeps no other one's from starting.
                    Err(error) if actor != miners.first && is_of_the_miner(&error) => {
                        tracing::error!(code = "MGR203", %actor, error = chain_of(&error), "nothing is sent for this miner");
                        unsaid.not_said(actor, chain_of(&error), now_ms);
                    }
                    Err(error) => return Err(error),
                }
            }
            let outbox = FileOutbox::open(&repo.messages())?;
            Ok(Bound {
                chain: lotus.clone(),
                randomness: RandomnessSource::Lotus,
                messages: Some(Messages::open(lotus, outbox, sending)),
                unsaid,
                settings,
            })
        }
    }
}

/// Checks that the chain knows this miner as the repo does, and who pays for it; the lowest number that a new sector of it may have.
pub(crate) async fn known(
    lotus: &Lotus,
    settings: &ChainSettings,
    miners: &Miners,
    actor: ActorId,
    size: SectorSize,
) -> Result<u64, ManagerError> {
    check_miner(lotus, actor, size).await?;
    check_payments(lotus, settings, miners, actor).await?;
    Ok(lotus.first_free(actor).await?)
}

/// Whether the node answers, but not with what is wanted of this miner: with another one it may be well.
const fn is_of_the_miner(error: &ManagerError) -> bool {
    matches!(
        error,
        ManagerError::Chain(
            ChainError::Node { source: ApiError::Remote { .. }, .. } | ChainError::Answer { .. }
        )
    )
}

/// Refuses settings that name a payer who is no served miner's: each miner's messages are paid by its own.
async fn check_payments(
    lotus: &Lotus,
    settings: &ChainSettings,
    miners: &Miners,
    miner: ActorId,
) -> Result<(), ManagerError> {
    for payment in [&settings.pre_commit_payment, &settings.prove_commit_payment] {
        match own_payers(lotus, miner, &others(miners, miner), &payment.from).await {
            Err(SendError::Chain(error)) => return Err(error.into()),
            checked => {
                checked.map_err(|error| ManagerError::Miner { miner, detail: error.to_string() })?;
            }
        }
    }
    Ok(())
}

/// What `config.toml` says of the chain, without payers that only a miner had who was removed: each miner's messages are paid by its
/// own, so nothing is ever paid by these, and they keep nobody from starting.
async fn without_left_over(
    lotus: &Lotus,
    repo: &Repo,
    miners: &Miners,
) -> Result<ChainSettings, ManagerError> {
    let mut settings = repo.config().chain.clone();
    let mut removed = None;
    for payment in [&mut settings.pre_commit_payment, &mut settings.prove_commit_payment] {
        for address in std::mem::take(&mut payment.from) {
            match left_over_of(lotus, repo, miners, &mut removed, &address).await? {
                None => payment.from.push(address),
                Some(miner) => tracing::warn!(
                    code = "MGR206",
                    "{address} pays for nothing: it belongs to f0{}, which this manager serves no longer, and to no miner that it \
                     serves; take it out of [chain] pre_commit_from and prove_commit_from in config.toml",
                    miner.get()
                ),
            }
        }
    }
    Ok(settings)
}

/// The miner that was removed whose address this is, if it is no served one's. What cannot be told is refused when it is checked.
/// `removed`: all that were, once it was read.
async fn left_over_of(
    lotus: &Lotus,
    repo: &Repo,
    miners: &Miners,
    removed: &mut Option<BTreeSet<ActorId>>,
    address: &str,
) -> Result<Option<ActorId>, ManagerError> {
    let one = [address.to_owned()];
    let served = own_payers(lotus, miners.first, &others(miners, miners.first), &one).await;
    if !matches!(served, Err(SendError::Stranger { .. })) {
        return Ok(None);
    }
    let removed = match removed {
        Some(known) => known,
        None => removed.insert(removed_miners(repo).await?),
    };
    for miner in removed.iter() {
        if own_payers(lotus, *miner, &[], &one).await.is_ok_and(|own| !own.is_empty()) {
            return Ok(Some(*miner));
        }
    }
    Ok(None)
}

/// Walks over many events.
async fn removed_miners(repo: &Repo) -> Result<BTreeSet<ActorId>, ManagerError> {
    let file = repo.state_file();
    let read = tokio::task::spawn_blocking(move || State::removed_miners(&file)).await;
    Ok(read.map_err(|_| StateError::Closed)??)
}

/// All that are served but this one.
pub(crate) fn others(miners: &Miners, miner: ActorId) -> Vec<ActorId> {
    miners.all().filter(|other| *other != miner).collect()
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
            // Its own payers may be in the list already: it may have been served before.
            let mut served = miners.clone();
            served.others.push(actor);
            let settings = without_left_over(lotus, repo, &served).await?;
            check_payments(lotus, &settings, &miners, actor).await?;
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

/// Has a repo serve an added miner no longer, from the next start on.
///
/// # Errors
/// It is not served or the one that the repo was made for, there are sectors or messages of it, also removed and landed ones, or
/// the durable state's; nothing has changed then.
pub async fn remove_miner(repo: &Repo, actor: ActorId, by: String) -> Result<Miners, ManagerError> {
    let (_, mut miners) = State::identity(&repo.state_file())?;
    if !miners.others.contains(&actor) {
        let why = "it was not added to this repo; `sealyard miners list` shows those that were".to_owned();
        return Err(ManagerError::NotRemoved { miner: actor, why });
    }
    let state = State::open(&repo.state_file())?;
    let of_it = state.sectors().await?.into_iter().filter(|row| row.sector.id.miner == actor);
    let sectors = of_it.count();
    let outbox = FileOutbox::open(&repo.messages())?;
    let messages = outbox.all()?.iter().filter(|record| record.intent.miner == actor).count();
    if sectors + messages > 0 {
        let why = format!(
            "there are {sectors} sectors of it here, removed ones included, and {messages} messages that were sent or meant to be; \
             their numbers must not be used again, so a miner is removed only while there is nothing of it"
        );
        return Err(ManagerError::NotRemoved { miner: actor, why });
    }
    state.commit(vec![StateEvent::MinerRemoved { miner: actor, by }]).await?;
    miners.others.retain(|other| *other != actor);
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

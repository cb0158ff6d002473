//! A full node's methods, typed, each with the time its answer may take. Decides nothing.

use std::time::Duration;

use rpc::{ApiError, ApiInfo, NodeClient, Trust};
use sealtasks::{ActorId, ChainEpoch, SectorId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::wire::{
    Bytes, Link, Lookup, MarketDeal, Message, MessageMatch, MinerInfo, NetworkParams, Partition,
    PreCommitInfo, PreCommitOnChain, SectorLocation, SectorOnChain, SendSpec, SignedMessage, SyncState,
    TipSet, TipSetKey, TipSetMessage, Version,
};
use crate::{ChainError, TokenAmount, entropy};

/// For what a node has at hand.
const QUICK: Duration = Duration::from_secs(30);
/// For what it may have to compute from the chain's state.
const STATE: Duration = Duration::from_secs(180);
/// For a walk over many tipsets.
const WALK: Duration = Duration::from_secs(600);

/// Domain separation tag of tickets, SealRandomness.
const SEAL_RANDOMNESS: u64 = 5;
/// Domain separation tag of seeds, InteractiveSealChallengeSeed.
const INTERACTIVE_SEAL_CHALLENGE_SEED: u64 = 6;
/// A message replaced by one with a higher fee still counts.
const ALLOW_REPLACED: bool = true;

/// The head: no tipset is named.
pub(crate) const HEAD: &[Link] = &[];

pub(crate) struct Node {
    client: NodeClient,
}

/// A miner's address as it is sent; both networks' nodes read this prefix.
pub(crate) fn address(actor: ActorId) -> String {
    format!("f0{}", actor.get())
}

impl Node {
    pub(crate) fn new(info: &ApiInfo, trust: &Trust) -> Result<Self, ChainError> {
        let client = NodeClient::new(info, trust).map_err(|source| ChainError::Client { source })?;
        Ok(Self { client })
    }

    pub(crate) fn url(&self) -> String {
        self.client.url().to_string()
    }

    async fn ask<P, R>(&self, what: &str, method: &str, params: &P, limit: Duration) -> Result<R, ChainError>
    where
        P: Serialize + Sync,
        R: DeserializeOwned,
    {
        let answer = self.client.call(method, params, limit).await;
        answer.map_err(|source| ChainError::Node { what: format!("{what} ({method})"), source })
    }

    pub(crate) async fn version(&self) -> Result<Version, ChainError> {
        self.ask("its version", "Version", &NONE, QUICK).await
    }

    pub(crate) async fn network_params(&self) -> Result<NetworkParams, ChainError> {
        self.ask("its network's parameters", "StateGetNetworkParams", &NONE, QUICK).await
    }

    pub(crate) async fn network_version(&self) -> Result<u32, ChainError> {
        self.ask("its network's version", "StateNetworkVersion", &(HEAD,), QUICK).await
    }

    pub(crate) async fn head(&self) -> Result<TipSet, ChainError> {
        self.ask("its head", "ChainHead", &NONE, QUICK).await
    }

    pub(crate) async fn genesis(&self) -> Result<TipSet, ChainError> {
        self.ask("the genesis block", "ChainGetGenesis", &NONE, QUICK).await
    }

    pub(crate) async fn sync_state(&self) -> Result<SyncState, ChainError> {
        self.ask("how far it is", "SyncState", &NONE, QUICK).await
    }

    /// The tipset at this height, or the last one before it if no block was made then.
    pub(crate) async fn tipset_at(&self, height: i64) -> Result<TipSet, ChainError> {
        let what = format!("the tipset at height {height}");
        self.ask(&what, "ChainGetTipSetByHeight", &(height, HEAD), STATE).await
    }

    pub(crate) async fn miner_info(&self, miner: ActorId) -> Result<MinerInfo, ChainError> {
        let what = format!("who miner {} is", address(miner));
        self.ask(&what, "StateMinerInfo", &(address(miner), HEAD), STATE).await
    }

    pub(crate) async fn sector(
        &self,
        sector: SectorId,
        at: &[Link],
    ) -> Result<Option<SectorOnChain>, ChainError> {
        let params = (address(sector.miner), sector.number, at);
        self.ask(&format!("what sector {sector} is"), "StateSectorGetInfo", &params, STATE).await
    }

    /// The numbers that the miner has ever pre-committed, as lengths of runs.
    pub(crate) async fn allocated(&self, miner: ActorId) -> Result<Vec<u64>, ChainError> {
        let what = format!("which sector numbers {} has used", address(miner));
        let runs: Option<Vec<u64>> =
            self.ask(&what, "StateMinerAllocated", &(address(miner), HEAD), STATE).await?;
        Ok(runs.unwrap_or_default())
    }

    /// What the miner has in one of its deadlines.
    pub(crate) async fn partitions(
        &self,
        miner: ActorId,
        deadline: u64,
        at: &[Link],
    ) -> Result<Vec<Partition>, ChainError> {
        let what = format!("the sectors of {} in deadline {deadline}", address(miner));
        let params = (address(miner), deadline, at);
        let found: Option<Vec<Partition>> = self.ask(&what, "StateMinerPartitions", &params, STATE).await?;
        Ok(found.unwrap_or_default())
    }

    /// In which deadline and partition a proven sector is, those that are over included.
    pub(crate) async fn location(&self, sector: SectorId, at: &[Link]) -> Result<SectorLocation, ChainError> {
        let params = (address(sector.miner), sector.number, at);
        self.ask(&format!("where sector {sector} is proven"), "StateSectorPartition", &params, STATE).await
    }

    pub(crate) async fn pre_commit(
        &self,
        sector: SectorId,
        at: &[Link],
    ) -> Result<Option<PreCommitOnChain>, ChainError> {
        let params = (address(sector.miner), sector.number, at);
        let what = format!("the pre-commitment of {sector}");
        let found = self.ask(&what, "StateSectorPreCommitInfo", &params, STATE).await;
        match found {
            // What nodes of the older API version say instead of null.
            Err(ChainError::Node { source: ApiError::Remote { message, .. }, .. })
                if message.contains("precommit not found") =>
            {
                Ok(None)
            }
            other => other,
        }
    }

    pub(crate) async fn ticket(
        &self,
        miner: ActorId,
        epoch: i64,
        at: &[Link],
    ) -> Result<[u8; 32], ChainError> {
        let params = (SEAL_RANDOMNESS, epoch, Bytes(entropy(miner)), at);
        self.randomness("StateGetRandomnessFromTickets", params).await
    }

    pub(crate) async fn seed(&self, miner: ActorId, epoch: i64, at: &[Link]) -> Result<[u8; 32], ChainError> {
        let params = (INTERACTIVE_SEAL_CHALLENGE_SEED, epoch, Bytes(entropy(miner)), at);
        self.randomness("StateGetRandomnessFromBeacon", params).await
    }

    async fn randomness(
        &self,
        method: &'static str,
        params: (u64, i64, Bytes, &[Link]),
    ) -> Result<[u8; 32], ChainError> {
        let what = format!("the randomness at height {}", params.1);
        let bytes: Bytes = self.ask(&what, method, &params, STATE).await?;
        let len = bytes.0.len();
        bytes
            .0
            .try_into()
            .map_err(|_| ChainError::Answer { method, detail: format!("{len} bytes instead of 32") })
    }

    pub(crate) async fn deal(&self, deal: u64, at: &[Link]) -> Result<MarketDeal, ChainError> {
        self.ask(&format!("what deal {deal} is"), "StateMarketStorageDeal", &(deal, at), STATE).await
    }

    pub(crate) async fn deposit(
        &self,
        miner: ActorId,
        info: &PreCommitInfo,
    ) -> Result<TokenAmount, ChainError> {
        let what = format!("the deposit for sector {}", info.sector_number);
        let params = (address(miner), info, HEAD);
        self.ask(&what, "StateMinerPreCommitDepositForPower", &params, STATE).await
    }

    /// What a sector of this duration (epochs), size and verified part (bytes) must pledge.
    pub(crate) async fn pledge(
        &self,
        duration: i64,
        size: u64,
        verified: u64,
    ) -> Result<TokenAmount, ChainError> {
        let params = (duration, size, verified, HEAD);
        self.ask("a sector's pledge", "StateMinerInitialPledgeForSector", &params, STATE).await
    }

    /// The address whose key signs for this one.
    pub(crate) async fn account_key(&self, address: &str) -> Result<String, ChainError> {
        self.ask(&format!("the key of {address}"), "StateAccountKey", &(address, HEAD), STATE).await
    }

    pub(crate) async fn has_key(&self, key: &str) -> Result<bool, ChainError> {
        self.ask(&format!("whether it has the key of {key}"), "WalletHas", &(key,), QUICK).await
    }

    pub(crate) async fn balance(&self, address: &str) -> Result<TokenAmount, ChainError> {
        self.ask(&format!("the balance of {address}"), "WalletBalance", &(address,), QUICK).await
    }

    /// The message with gas limit, fee cap and premium filled in; executes it against the head's state.
    pub(crate) async fn estimate(&self, message: &Message, spec: &SendSpec) -> Result<Message, ChainError> {
        let what = "what the message would cost";
        self.ask(what, "GasEstimateMessageGas", &(message, spec, HEAD), STATE).await
    }

    pub(crate) async fn push(
        &self,
        message: &Message,
        id: Uuid,
        max_fee: TokenAmount,
    ) -> Result<SignedMessage, ChainError> {
        let spec = SendSpec { max_fee, msg_uuid: id };
        self.ask("that the message was sent", "MpoolPushMessage", &(message, spec), STATE).await
    }

    /// Messages that wait for a block.
    pub(crate) async fn pending(&self) -> Result<Vec<SignedMessage>, ChainError> {
        let pending: Option<Vec<SignedMessage>> =
            self.ask("its waiting messages", "MpoolPending", &(HEAD,), STATE).await?;
        Ok(pending.unwrap_or_default())
    }

    /// Messages between two addresses that landed from height `since` on.
    pub(crate) async fn landed(&self, from: &str, to: &str, since: i64) -> Result<TipSetKey, ChainError> {
        let what = format!("the messages of {from} since height {since}");
        let params = (MessageMatch { to, from }, HEAD, since);
        let found: Option<TipSetKey> = self.ask(&what, "StateListMessages", &params, WALK).await?;
        Ok(found.unwrap_or_default())
    }

    pub(crate) async fn message(&self, cid: &Link) -> Result<Message, ChainError> {
        self.ask(&format!("message {}", cid.cid), "ChainGetMessage", &(cid,), QUICK).await
    }

    /// The messages in the blocks of a tipset.
    pub(crate) async fn messages_in(&self, tipset: &[Link]) -> Result<Vec<TipSetMessage>, ChainError> {
        let found: Option<Vec<TipSetMessage>> =
            self.ask("a tipset's messages", "ChainGetMessagesInTipset", &(tipset,), STATE).await?;
        Ok(found.unwrap_or_default())
    }

    /// The address by number.
    pub(crate) async fn id_of(&self, address: &str) -> Result<String, ChainError> {
        self.ask(&format!("the number of {address}"), "StateLookupID", &(address, HEAD), STATE).await
    }

    /// Which actor has this address, which may be given by number or by key.
    pub(crate) async fn actor_of(&self, address: &str) -> Result<Option<ActorId>, ChainError> {
        match address.parse::<ActorId>() {
            Ok(actor) => Ok(Some(actor)),
            Err(_) => Ok(self.id_of(address).await?.parse().ok()),
        }
    }

    /// Where the message landed, not more than so many heights ago (-1: whenever).
    pub(crate) async fn search(&self, cid: &Link, heights: i64) -> Result<Option<Lookup>, ChainError> {
        let what = format!("where message {} landed", cid.cid);
        let params = (HEAD, cid, heights, ALLOW_REPLACED);
        self.ask(&what, "StateSearchMsg", &params, WALK).await
    }
}

/// No parameters: `[]`, as Go writes them.
const NONE: [(); 0] = [];

/// A tipset's height.
impl TipSet {
    pub(crate) const fn epoch(&self) -> ChainEpoch {
        ChainEpoch::new(self.height)
    }
}

//! A message before it is sent: its parameters, what is sent along, who pays and what it may cost. Sends nothing.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rpc::ApiError;
use rpc::explain::UnsentMessage;
use sealtasks::{ActorId, ChainEpoch, SectorId, SectorNumber};
use uuid::Uuid;

use super::outbox::{Intent, OutboxError};
use crate::lotus::wire::{Bytes, Link, Message, MinerInfo, PreCommitInfo, SendSpec};
use crate::lotus::{HEAD, Node, address};
use crate::params::{Method, ParamsError, PreCommit, ProveCommit, pre_commit, prove_commit};
use crate::{ChainError, Lotus, TokenAmount};

/// What a message's gas may cost: so much, and so much more for each sector in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fees {
    /// For the message.
    pub base: TokenAmount,
    /// For each sector.
    pub per_sector: TokenAmount,
}

impl Fees {
    /// Lotus's limit for pre-commitments: 0.02 FIL for each sector.
    pub const PRE_COMMIT: Self =
        Self { base: TokenAmount::ZERO, per_sector: TokenAmount::from_atto(20_000_000_000_000_000) };
    /// Lotus's limit for proofs: 0.03 FIL for each sector.
    pub const PROVE_COMMIT: Self =
        Self { base: TokenAmount::ZERO, per_sector: TokenAmount::from_atto(30_000_000_000_000_000) };

    fn of(self, sectors: usize) -> Result<TokenAmount, SendError> {
        let sectors = u64::try_from(sectors).unwrap_or(u64::MAX);
        let all = self.per_sector.checked_mul(sectors).and_then(|all| all.checked_add(self.base));
        all.ok_or(SendError::Overflow)
    }
}

/// Who pays for a message, and how much at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// What its gas may cost.
    pub fees: Fees,
    /// Addresses of the miner that pay before its worker, in this order: control addresses, or the owner. Lotus's
    /// `PreCommitControl` and `CommitControl`. A control address that is not named is kept for what else it is for, such as
    /// window PoSt, and the owner's balance is not touched.
    pub from: Vec<String>,
}

/// The worker pays.
impl From<Fees> for Payment {
    fn from(fees: Fees) -> Self {
        Self { fees, from: Vec::new() }
    }
}

/// What would be sent, and what the node says that it would cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    pub(super) intent: Intent,
    /// The gas that it would take.
    pub gas_limit: i64,
    /// What one unit of gas would cost at most.
    pub gas_fee_cap: TokenAmount,
}

impl Draft {
    /// The message.
    pub fn intent(&self) -> &Intent {
        &self.intent
    }

    /// All of it, for whoever checks it before it is sent.
    pub fn unsent(&self) -> UnsentMessage {
        let Message { to, from, value, method, params, .. } = message(&self.intent);
        UnsentMessage {
            to,
            from,
            value: value.into(),
            method,
            method_name: self.intent.method.name().to_owned(),
            params: STANDARD.encode(&params.0),
            max_fee: self.intent.max_fee.into(),
        }
    }
}

/// For the operator: what, who pays and how much.
impl fmt::Display for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Intent { miner, method, sectors, from, value, max_fee, params, .. } = &self.intent;
        let numbers: Vec<String> = sectors.iter().map(ToString::to_string).collect();
        write!(
            f,
            "{} to {} for sectors {} ({} bytes of parameters), from {from}, value {value}, gas {} at up to {} each, \
             fee at most {max_fee}",
            method.name(),
            address(*miner),
            numbers.join(" "),
            params.0.len(),
            self.gas_limit,
            self.gas_fee_cap,
        )
    }
}

/// A PreCommitSectorBatch2 with the deposits that the chain asks for.
///
/// # Errors
/// Nobody can pay, the node says that it would fail, or the node does not answer.
pub async fn draft_pre_commit(
    lotus: &Lotus,
    miner: ActorId,
    sectors: &[PreCommit],
    payment: &Payment,
) -> Result<Draft, SendError> {
    let params = pre_commit(sectors)?;
    let mut value = TokenAmount::ZERO;
    for sector in sectors {
        let info = PreCommitInfo {
            seal_proof: sector.sector.proof.number(),
            sector_number: sector.sector.id.number.get(),
            sealed: Some(Link::new(sector.sealed)),
            seal_rand_epoch: sector.ticket_epoch.get(),
            deals: Vec::new(),
            expiration: sector.expiration.get(),
            unsealed: sector.unsealed.map(Link::new),
        };
        let deposit = lotus.node.deposit(miner, &info).await?;
        value = value.checked_add(deposit).ok_or(SendError::Overflow)?;
    }
    let numbers = sectors.iter().map(|sector| sector.sector.id.number).collect();
    let parts = Parts { miner, method: Method::PreCommitSectorBatch2, numbers, value, params, payment };
    draft(&lotus.node, parts).await
}

/// A ProveCommitSectors3 with what each sector must pledge beyond its deposit.
///
/// # Errors
/// A sector is not pre-committed, nobody can pay, the node says that it would fail, or does not answer.
pub async fn draft_prove_commit(
    lotus: &Lotus,
    miner: ActorId,
    prove: &ProveCommit,
    payment: &Payment,
) -> Result<Draft, SendError> {
    let params = prove_commit(prove)?;
    let size = lotus.miner(miner, None).await?.size.bytes();
    let head = lotus.node.head().await?.height;
    let mut value = TokenAmount::ZERO;
    for sector in &prove.sectors {
        let id = SectorId { miner, number: sector.number };
        let promised = lotus.node.pre_commit(id, HEAD).await?;
        let promised = promised.ok_or(ChainError::NoPreCommit { sector: id })?;
        let verified = sector.pieces.iter().filter(|piece| piece.allocation.is_some());
        let verified = verified.map(|piece| piece.piece.size.get()).fold(0, u64::saturating_add);
        let duration = promised.info.expiration.saturating_sub(head);
        let pledge = lotus.node.pledge(duration, size, verified).await?;
        let rest = pledge.saturating_sub(promised.pre_commit_deposit);
        value = value.checked_add(rest).ok_or(SendError::Overflow)?;
    }
    let numbers = prove.sectors.iter().map(|sector| sector.number).collect();
    draft(&lotus.node, Parts { miner, method: Method::ProveCommitSectors3, numbers, value, params, payment })
        .await
}

struct Parts<'a> {
    miner: ActorId,
    method: Method,
    numbers: Vec<SectorNumber>,
    value: TokenAmount,
    params: Vec<u8>,
    payment: &'a Payment,
}

async fn draft(node: &Node, parts: Parts<'_>) -> Result<Draft, SendError> {
    let max_fee = parts.payment.fees.of(parts.numbers.len())?;
    let needed = parts.value.checked_add(max_fee).ok_or(SendError::Overflow)?;
    let since = node.head().await?.epoch();
    let from = payer(node, parts.miner, needed, &parts.payment.from).await?;
    let intent = Intent {
        id: Uuid::new_v4(),
        miner: parts.miner,
        method: parts.method,
        sectors: parts.numbers,
        from,
        value: parts.value,
        max_fee,
        params: Bytes(parts.params),
        since,
    };
    let spec = SendSpec { max_fee, msg_uuid: intent.id };
    let estimate =
        node.estimate(&message(&intent), &spec).await.map_err(|source| SendError::Estimate { source })?;
    Ok(Draft { intent, gas_limit: estimate.gas_limit, gas_fee_cap: estimate.gas_fee_cap })
}

/// The message as the node takes it, which fills in nonce and gas.
pub(super) fn message(intent: &Intent) -> Message {
    Message {
        version: 0,
        to: address(intent.miner),
        from: intent.from.clone(),
        nonce: 0,
        value: intent.value,
        gas_limit: 0,
        gas_fee_cap: TokenAmount::ZERO,
        gas_premium: TokenAmount::ZERO,
        method: intent.method.number(),
        params: intent.params.clone(),
    }
}

/// Those of these addresses that messages of this miner may come from. They may be other miners' too, of whom each has its own.
///
/// # Errors
/// One of them is none of these miners', or the node does not say whose the miner's are.
pub async fn own_payers(
    lotus: &Lotus,
    miner: ActorId,
    others: &[ActorId],
    from: &[String],
) -> Result<Vec<String>, SendError> {
    if from.is_empty() {
        return Ok(Vec::new());
    }
    let node = &lotus.node;
    let info = node.miner_info(miner).await?;
    let mut payers = Vec::new();
    for address in from {
        match number_in(node, &info, address).await? {
            Some(_) => payers.push(address.clone()),
            None if is_any_other_s(node, others, address).await? => {}
            None => return Err(stranger(miner, &info, address)),
        }
    }
    Ok(payers)
}

/// Whether it is an address of one of these miners, or may be, since the node does not say of one of them.
async fn is_any_other_s(node: &Node, others: &[ActorId], address: &str) -> Result<bool, ChainError> {
    for other in others {
        let info = match node.miner_info(*other).await {
            Err(ChainError::Node { source: ApiError::Remote { .. }, .. }) => return Ok(true),
            info => info?,
        };
        if number_in(node, &info, address).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The number of this address, if it is the miner's.
async fn number_in(node: &Node, info: &MinerInfo, address: &str) -> Result<Option<String>, ChainError> {
    let number = match node.id_of(address).await {
        Err(ChainError::Node { source: ApiError::Remote { .. }, .. }) => return Ok(None),
        number => number?,
    };
    // Test networks' nodes write t where others write f.
    Ok(own(info).find(|own| own.get(1..) == number.get(1..)).cloned())
}

pub(super) fn own(info: &MinerInfo) -> impl Iterator<Item = &String> {
    info.control_addresses.iter().chain([&info.worker, &info.owner])
}

fn stranger(miner: ActorId, info: &MinerInfo, address: &str) -> SendError {
    let known = own(info).map(String::as_str).collect::<Vec<_>>().join(", ");
    SendError::Stranger { miner, address: address.to_owned(), known }
}

/// The numbers of these addresses, each of which is the miner's.
async fn named(
    node: &Node,
    miner: ActorId,
    info: &MinerInfo,
    from: &[String],
) -> Result<Vec<String>, SendError> {
    let mut numbers = Vec::new();
    for address in from {
        let number = number_in(node, info, address).await?;
        numbers.push(number.ok_or_else(|| stranger(miner, info, address))?);
    }
    Ok(numbers)
}

/// The first of the named addresses, else the miner's worker, whose key the node has and whose balance is enough, for its
/// messages that wait as well.
async fn payer(
    node: &Node,
    miner: ActorId,
    needed: TokenAmount,
    from: &[String],
) -> Result<String, SendError> {
    let info = node.miner_info(miner).await?;
    let mut seen = Vec::new();
    for candidate in named(node, miner, &info, from).await?.iter().chain([&info.worker]) {
        let key = node.account_key(candidate).await?;
        if !node.has_key(&key).await? {
            seen.push(format!("{candidate}: the node has not its key"));
            continue;
        }
        let balance = node.balance(&key).await?;
        if balance < needed {
            seen.push(format!("{candidate}: {balance}"));
            continue;
        }
        let promised = promised(node, &key).await?;
        if balance.saturating_sub(promised) >= needed {
            return Ok(key);
        }
        seen.push(format!("{candidate}: {balance}, {promised} of it for messages that wait"));
    }
    Err(SendError::Funds { miner, needed, seen: seen.join(", ") })
}

/// What this key's messages that wait for a block will take from its balance at most; the node counts it as if it were there.
async fn promised(node: &Node, key: &str) -> Result<TokenAmount, SendError> {
    let mut sum = TokenAmount::ZERO;
    for Message { from, value, gas_limit, gas_fee_cap, .. } in
        node.pending().await?.into_iter().map(|signed| signed.message)
    {
        // Test networks' nodes write t where others write f.
        if from.get(1..) == key.get(1..) {
            let gas = gas_fee_cap.checked_mul(u64::try_from(gas_limit).unwrap_or_default());
            let all = gas.and_then(|gas| gas.checked_add(value)).and_then(|all| sum.checked_add(all));
            sum = all.ok_or(SendError::Overflow)?;
        }
    }
    Ok(sum)
}

/// Why a message is not sent, or not known to be. The stable code is [`SendError::code`].
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The parameters cannot be made.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// The node does not say what is needed.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Nobody has enough.
    #[error("nobody who is to pay for f0{}'s messages can pay {needed} (value and highest fee): {seen}", miner.get())]
    Funds {
        /// The miner.
        miner: ActorId,
        /// So much is needed.
        needed: TokenAmount,
        /// Who was asked, and what each has.
        seen: String,
    },
    /// The actor would take no message from there.
    #[error(
        "{address} cannot pay for messages of f0{}: it is none of its control, worker and owner addresses ({known}), nor of \
         another miner that is served here; [chain] pre_commit_from and prove_commit_from in config.toml say who pays",
        miner.get()
    )]
    Stranger {
        /// The miner.
        miner: ActorId,
        /// As it was named.
        address: String,
        /// Those that could.
        known: String,
    },
    /// The node has tried it.
    #[error("the message would fail, so it is not sent")]
    Estimate {
        /// What the node says.
        #[source]
        source: ChainError,
    },
    /// More money than there is.
    #[error("deposits, pledges and fees add up to more than can be counted")]
    Overflow,
    /// The intent cannot be kept, or what became of it.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// It may have been sent or not; the record says so, and it is looked for before it is sent again.
    #[error("whether message {id} was sent is not known; it is looked for before it is sent again")]
    Unknown {
        /// The intent's id.
        id: Uuid,
        /// What the node said.
        #[source]
        source: ChainError,
    },
    /// The node has forgotten it.
    #[error("message {cid} is neither waiting nor on chain since height {since}")]
    Lost {
        /// Its CID.
        cid: String,
        /// From there it was looked for.
        since: ChainEpoch,
    },
}

impl SendError {
    /// Whether the node says that it would run out of gas: fewer sectors may go.
    pub fn is_out_of_gas(&self) -> bool {
        /// Lotus's code of its error OutOfGas.
        const OUT_OF_GAS: i64 = 2;
        matches!(
            self,
            Self::Estimate {
                source: ChainError::Node { source: ApiError::Remote { code: OUT_OF_GAS, .. }, .. }
            }
        ) || matches!(self, Self::Params(ParamsError::Length { .. }))
    }

    /// Whether the message itself is what fails, and not the node or the purse: with other sectors in it, or fewer, it may
    /// not.
    pub fn is_of_the_message(&self) -> bool {
        /// What Lotus writes where it has executed a message and the actor has refused it.
        const EXECUTED: &str = "message execution failed";
        match self {
            Self::Params(_) | Self::Chain(ChainError::NoPreCommit { .. }) => true,
            Self::Estimate { source: ChainError::Node { source: ApiError::Remote { message, .. }, .. } } => {
                self.is_out_of_gas() || message.contains(EXECUTED)
            }
            Self::Estimate { .. } => false,
            Self::Chain(_)
            | Self::Funds { .. }
            | Self::Stranger { .. }
            | Self::Overflow
            | Self::Outbox(_)
            | Self::Unknown { .. }
            | Self::Lost { .. } => false,
        }
    }

    /// Stable code for scripts and logs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Params(_) => "SND01",
            Self::Chain(error) => error.code(),
            Self::Funds { .. } => "SND02",
            Self::Estimate { .. } => "SND03",
            Self::Overflow => "SND04",
            Self::Outbox(_) => "SND05",
            Self::Unknown { .. } => "SND06",
            Self::Lost { .. } => "SND07",
            Self::Stranger { .. } => "SND08",
        }
    }
}

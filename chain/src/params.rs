//! What is told to a miner actor about its sectors, as the actor reads it: PreCommitSectorBatch2 and
//! ProveCommitSectors3, and the answer to the latter. Byte-equal to the actor crates' own encoding
//! (`chain/tests/params.rs`). Sends nothing.

use cid::Cid;
use sealtasks::{
    ActorId, ChainEpoch, PieceInfo, Proof, SealedCid, SectorNumber, SectorRef, UnsealedCid, rehearsal,
};

use crate::cbor::{Value, Writer, read};

/// The methods of the miner actor that are called here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "u64", try_from = "u64")]
pub enum Method {
    /// Commits to replicas, method 28.
    PreCommitSectorBatch2,
    /// Proves and activates them, method 34.
    ProveCommitSectors3,
}

impl Method {
    /// The number on chain.
    pub const fn number(self) -> u64 {
        match self {
            Self::PreCommitSectorBatch2 => 28,
            Self::ProveCommitSectors3 => 34,
        }
    }

    /// The actor's name for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PreCommitSectorBatch2 => "PreCommitSectorBatch2",
            Self::ProveCommitSectors3 => "ProveCommitSectors3",
        }
    }
}

impl From<Method> for u64 {
    fn from(method: Method) -> u64 {
        method.number()
    }
}

impl TryFrom<u64> for Method {
    type Error = String;

    fn try_from(number: u64) -> Result<Self, String> {
        [Self::PreCommitSectorBatch2, Self::ProveCommitSectors3]
            .into_iter()
            .find(|method| method.number() == number)
            .ok_or_else(|| {
                format!("method {number} is neither PreCommitSectorBatch2 (28) nor ProveCommitSectors3 (34)")
            })
    }
}

/// Sectors in one PreCommitSectorBatch2, at most; the actor's own limit.
pub const PRE_COMMIT_MAX: usize = 256;
/// Sectors in one ProveCommitSectors3, at most; the actor's own limit for an aggregate. With a proof for each sector the
/// message is full long before.
pub const PROVE_COMMIT_MAX: usize = 819;
/// Longest parameters of one message, in bytes: the chain takes messages of 64 KiB, and the rest of the message needs
/// up to 128 (both are Lotus's figures).
pub const PARAMS_MAX: usize = (64 << 10) - 128;
/// The aggregate's proof type on chain, SnarkPackV2.
const SNARK_PACK_V2: u64 = 1;

/// One sector to pre-commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreCommit {
    /// Which, and with which proof.
    pub sector: SectorRef,
    /// CommR.
    pub sealed: SealedCid,
    /// The height at which the ticket was drawn.
    pub ticket_epoch: ChainEpoch,
    /// The last height of the sector's life.
    pub expiration: ChainEpoch,
    /// CommD; `None` for a sector of zeroes (committed capacity).
    pub unsealed: Option<UnsealedCid>,
}

/// One piece of a sector that is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PieceActivation {
    /// Size and commitment.
    pub piece: PieceInfo,
    /// The verified allocation that it claims.
    pub allocation: Option<Allocation>,
    /// The actors that are told, with what.
    pub notify: Vec<Notification>,
}

/// A client's verified allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Whose.
    pub client: ActorId,
    /// Its number.
    pub id: u64,
}

/// What an actor is told when a piece is activated; the storage market (actor 5) gets a deal's number, for example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Who.
    pub actor: ActorId,
    /// What, in that actor's encoding.
    pub payload: Vec<u8>,
}

/// One sector to prove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activation {
    /// Which.
    pub number: SectorNumber,
    /// All its pieces in order; none for committed capacity.
    pub pieces: Vec<PieceActivation>,
}

/// The proofs of a ProveCommitSectors3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SectorProofs {
    /// One for each sector, in the same order.
    Each(Vec<Proof>),
    /// One for all (SnarkPackV2).
    Aggregate(Vec<u8>),
}

/// Sectors to prove in one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProveCommit {
    /// The sectors.
    pub sectors: Vec<Activation>,
    /// Their proofs.
    pub proofs: SectorProofs,
    /// Whether one sector that cannot be activated fails all.
    pub require_activation: bool,
    /// Whether one refused notification fails its sector.
    pub require_notification: bool,
}

/// The parameters of PreCommitSectorBatch2.
///
/// # Errors
/// None or more than 256 sectors, one of a rehearsal, or too long for a message.
pub fn pre_commit(sectors: &[PreCommit]) -> Result<Vec<u8>, ParamsError> {
    if !(1..=PRE_COMMIT_MAX).contains(&sectors.len()) {
        return Err(ParamsError::Sectors { count: sectors.len(), max: PRE_COMMIT_MAX });
    }
    let mut out = Writer::default();
    out.array(1).array(sectors.len());
    for sector in sectors {
        real(sector.sealed.commitment().bytes())?;
        out.array(7)
            .signed(sector.sector.proof.number())
            .unsigned(sector.sector.id.number.get())
            .cid(&cid(&sector.sealed)?)
            .signed(sector.ticket_epoch.get())
            .array(0) // deals are activated with the proof
            .signed(sector.expiration.get());
        match &sector.unsealed {
            Some(unsealed) => out.cid(&cid(unsealed)?),
            None => out.null(),
        };
    }
    bounded(out)
}

/// The parameters of ProveCommitSectors3.
///
/// # Errors
/// No sector or more than 819, another number of proofs than of sectors, a rehearsal's proof, or too long for a
/// message.
pub fn prove_commit(prove: &ProveCommit) -> Result<Vec<u8>, ParamsError> {
    let count = prove.sectors.len();
    if !(1..=PROVE_COMMIT_MAX).contains(&count) {
        return Err(ParamsError::Sectors { count, max: PROVE_COMMIT_MAX });
    }
    let mut out = Writer::default();
    out.array(6).array(count);
    for sector in &prove.sectors {
        out.array(2).unsigned(sector.number.get()).array(sector.pieces.len());
        for piece in &sector.pieces {
            piece_activation(&mut out, piece)?;
        }
    }
    match &prove.proofs {
        SectorProofs::Each(proofs) if proofs.len() == count => {
            out.array(count);
            for proof in proofs {
                real(&proof.0)?;
                out.bytes(&proof.0);
            }
            out.bytes(&[]).null();
        }
        SectorProofs::Each(proofs) => {
            return Err(ParamsError::Proofs { proofs: proofs.len(), sectors: count });
        }
        SectorProofs::Aggregate(proof) => {
            real(proof)?;
            out.array(0).bytes(proof).unsigned(SNARK_PACK_V2);
        }
    }
    out.boolean(prove.require_activation).boolean(prove.require_notification);
    bounded(out)
}

fn piece_activation(out: &mut Writer, piece: &PieceActivation) -> Result<(), ParamsError> {
    out.array(4).cid(&cid(&piece.piece.cid)?).unsigned(piece.piece.size.get());
    match piece.allocation {
        Some(allocation) => out.array(2).unsigned(allocation.client.get()).unsigned(allocation.id),
        None => out.null(),
    };
    out.array(piece.notify.len());
    for told in &piece.notify {
        out.array(2).bytes(&id_address(told.actor)).bytes(&told.payload);
    }
    Ok(())
}

/// An actor's id address in its binary form: a zero for "id" and the number as unsigned LEB128.
pub(crate) fn id_address(actor: ActorId) -> Vec<u8> {
    let mut bytes = vec![0];
    let mut rest = actor.get();
    loop {
        let low = (rest & 0x7f) as u8;
        rest >>= 7;
        if rest == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// The miner's address as its randomness is bound to it: CBOR of the binary form.
pub fn entropy(miner: ActorId) -> Vec<u8> {
    let mut out = Writer::default();
    out.bytes(&id_address(miner));
    out.finish()
}

/// The sectors of a ProveCommitSectors3 that were not activated although the message succeeded, by their place in the
/// message, with the actor's exit codes. `None`: the answer is something else.
pub fn failed_activations(answer: &[u8]) -> Option<Vec<(usize, u32)>> {
    let Value::Array(parts) = read(answer)? else { return None };
    let [Value::Unsigned(_), Value::Array(failed)] = parts.as_slice() else { return None };
    let failure = |value: &Value| match value {
        Value::Array(pair) => match pair.as_slice() {
            [Value::Unsigned(at), Value::Unsigned(code)] => {
                Some((usize::try_from(*at).ok()?, u32::try_from(*code).ok()?))
            }
            _ => None,
        },
        _ => None,
    };
    failed.iter().map(failure).collect()
}

/// The pieces of this sector in the parameters of a ProveCommitSectors3; `None`: they are of something else, or not of
/// this sector.
pub(crate) fn proven_pieces(params: &[u8], sector: SectorNumber) -> Option<Vec<PieceInfo>> {
    let Value::Array(parts) = read(params)? else { return None };
    let Some(Value::Array(activations)) = parts.first() else { return None };
    let pieces = activations.iter().find_map(|activation| match activation {
        Value::Array(pair) => match pair.as_slice() {
            [Value::Unsigned(number), Value::Array(pieces)] if *number == sector.get() => Some(pieces),
            _ => None,
        },
        _ => None,
    })?;
    let piece = |piece: &Value| match piece {
        Value::Array(fields) => match fields.as_slice() {
            [Value::Cid(cid), Value::Unsigned(size), ..] => Some(PieceInfo {
                size: (*size).try_into().ok()?,
                cid: Cid::try_from(cid.as_slice()).ok()?.to_string().parse().ok()?,
            }),
            _ => None,
        },
        _ => None,
    };
    pieces.iter().map(piece).collect()
}

/// The sectors that parameters name, in their order; `None`: they are of something else.
pub(crate) fn sectors_of(method: Method, params: &[u8]) -> Option<Vec<SectorNumber>> {
    /// Where a sector's number stands among its fields.
    const IN_PRE_COMMIT: usize = 1;
    const IN_ACTIVATION: usize = 0;
    let Value::Array(parts) = read(params)? else { return None };
    let Some(Value::Array(sectors)) = parts.first() else { return None };
    let place = match method {
        Method::PreCommitSectorBatch2 => IN_PRE_COMMIT,
        Method::ProveCommitSectors3 => IN_ACTIVATION,
    };
    let number = |sector: &Value| match sector {
        Value::Array(fields) => match fields.get(place) {
            Some(Value::Unsigned(number)) => Some(SectorNumber::new(*number)),
            _ => None,
        },
        _ => None,
    };
    sectors.iter().map(number).collect()
}

/// Refuses what a rehearsal made up.
fn real(bytes: &[u8]) -> Result<(), ParamsError> {
    if rehearsal::is_marked(bytes) { Err(ParamsError::Rehearsal) } else { Ok(()) }
}

fn cid(text: &impl ToString) -> Result<Vec<u8>, ParamsError> {
    let text = text.to_string();
    Cid::try_from(text.as_str()).map(|cid| cid.to_bytes()).map_err(|_| ParamsError::Cid { text })
}

fn bounded(out: Writer) -> Result<Vec<u8>, ParamsError> {
    let bytes = out.finish();
    if bytes.len() > PARAMS_MAX {
        return Err(ParamsError::Length { bytes: bytes.len() });
    }
    Ok(bytes)
}

/// Parameters that no message can carry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParamsError {
    /// None, or more than the actor takes.
    #[error("{count} sectors cannot go into one message; between 1 and {max} can")]
    Sectors {
        /// So many were given.
        count: usize,
        /// So many may be.
        max: usize,
    },
    /// Each sector needs one.
    #[error("{proofs} proofs for {sectors} sectors; each needs its own, in the same order")]
    Proofs {
        /// So many proofs.
        proofs: usize,
        /// So many sectors.
        sectors: usize,
    },
    /// More than a message may have.
    #[error(
        "the parameters have {bytes} bytes, and a message carries at most {PARAMS_MAX}; send fewer sectors at once"
    )]
    Length {
        /// So long.
        bytes: usize,
    },
    /// A rehearsal's replica or proof.
    #[error("a rehearsal's replica or proof is told to no chain; nothing of it is real")]
    Rehearsal,
    /// A commitment that makes no CID.
    #[error("{text:?} is no CID")]
    Cid {
        /// Its text.
        text: String,
    },
}

//! What the miner actor makes of a message, by the message's own parameters alone. They are read here a second time, so that
//! what is encoded wrong, or says something wrong, is refused as it would be on chain. Checks no proof.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::world::{Effect, PreCommitted, Proven, State};

/// PreCommitSectorBatch2.
pub const PRE_COMMIT: u64 = 28;
/// ProveCommitSectors3.
pub const PROVE_COMMIT: u64 = 34;
/// A day and the finality: so old may a ticket be.
const TICKET_AGE_MAX: i64 = 2880 + 900;
/// 180 days and 1278: so long may a sector live.
const LIFE: std::ops::RangeInclusive<i64> = 180 * 2880..=1278 * 2880;
/// Binary CIDs begin so: version 1, codec fil-commitment-(un)sealed, Poseidon or truncated SHA-256, 32 bytes.
const SEALED: [u8; 7] = [0x01, 0x82, 0xe2, 0x03, 0x81, 0xe8, 0x02];
const UNSEALED: [u8; 7] = [0x01, 0x81, 0xe2, 0x03, 0x92, 0x20, 0x20];

/// The actors' exit codes.
pub mod exit {
    pub const ILLEGAL_ARGUMENT: u32 = 16;
    pub const NOT_FOUND: u32 = 17;
    pub const INSUFFICIENT_FUNDS: u32 = 19;
    pub const SERIALIZATION: u32 = 21;
    pub const UNHANDLED: u32 = 22;
}

/// What a message did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Receipt {
    pub exit_code: u32,
    /// In CBOR; empty: none.
    pub answer: Vec<u8>,
}

/// What the actor goes by.
pub struct Rules {
    pub sector_size: u64,
    pub challenge_delay: i64,
    pub deposit: u128,
    pub pledge: u128,
}

/// Executes a message at this height; what it does is applied by the caller.
pub fn execute(
    rules: &Rules,
    state: &State,
    height: i64,
    message: &Value,
) -> Result<(Vec<Effect>, Receipt), u32> {
    let params = params_of(message);
    let value = message["Value"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default();
    match message["Method"].as_u64().unwrap_or_default() {
        PRE_COMMIT => {
            let infos = params.and_then(pre_commits).ok_or(exit::SERIALIZATION)?;
            pre_commit(rules, state, height, value, infos).map(|effects| (effects, Receipt::default()))
        }
        PROVE_COMMIT => {
            let (sectors, proofs) = params.and_then(activations).ok_or(exit::SERIALIZATION)?;
            prove_commit(rules, state, height, value, &sectors, &proofs)
        }
        _ => Err(exit::UNHANDLED),
    }
}

/// A message's parameters; `None`: they are no CBOR.
pub fn params_of(message: &Value) -> Option<Cbor> {
    read(&STANDARD.decode(message["Params"].as_str()?).ok()?)
}

fn pre_commit(
    rules: &Rules,
    state: &State,
    height: i64,
    value: u128,
    infos: Vec<(PreCommitted, i64)>,
) -> Result<Vec<Effect>, u32> {
    let mut seen = BTreeSet::new();
    for (info, expiration) in &infos {
        let number = info.number;
        let is_taken = state.sectors.contains_key(&number) || state.pre_commits.contains_key(&number);
        let is_young = (height - TICKET_AGE_MAX..height).contains(&info.ticket_epoch);
        if is_taken || !seen.insert(number) || !is_young || !LIFE.contains(&(expiration - height)) {
            return Err(exit::ILLEGAL_ARGUMENT);
        }
    }
    if value < rules.deposit * infos.len() as u128 {
        return Err(exit::INSUFFICIENT_FUNDS);
    }
    Ok(infos.into_iter().map(|(info, _)| Effect::PreCommit(info)).collect())
}

fn prove_commit(
    rules: &Rules,
    state: &State,
    height: i64,
    value: u128,
    sectors: &[Activation],
    proofs: &[Vec<u8>],
) -> Result<(Vec<Effect>, Receipt), u32> {
    if sectors.is_empty() || proofs.len() != sectors.len() {
        return Err(exit::ILLEGAL_ARGUMENT);
    }
    let (mut effects, mut failed) = (Vec::new(), Vec::new());
    for (at, (sector, proof)) in sectors.iter().zip(proofs).enumerate() {
        let (promised_at, promised) = state.pre_commits.get(&sector.number).ok_or(exit::NOT_FOUND)?;
        // A proof of 192 bytes for each partition.
        if proof.is_empty() || proof.len() % 192 != 0 || height <= promised_at + rules.challenge_delay {
            return Err(exit::ILLEGAL_ARGUMENT);
        }
        let data = if sector.pieces.is_empty() { None } else { comm_d(&sector.pieces, rules.sector_size) };
        let is_as_promised = data == promised.unsealed && data.is_some() != sector.pieces.is_empty();
        if is_as_promised {
            effects.push(Effect::Prove(Proven {
                number: promised.number,
                proof: promised.proof,
                sealed: promised.sealed.clone(),
                key: None,
            }));
        } else {
            failed.push(at);
        }
    }
    if effects.is_empty() {
        return Err(exit::ILLEGAL_ARGUMENT);
    }
    if value < rules.pledge.saturating_sub(rules.deposit) * effects.len() as u128 {
        return Err(exit::INSUFFICIENT_FUNDS);
    }
    let mut answer = vec![0x82];
    number(&mut answer, 0x00, effects.len());
    number(&mut answer, 0x80, failed.len());
    for at in failed {
        answer.push(0x82);
        number(&mut answer, 0x00, at);
        number(&mut answer, 0x00, exit::ILLEGAL_ARGUMENT as usize);
    }
    Ok((effects, Receipt { exit_code: 0, answer }))
}

fn number(out: &mut Vec<u8>, major: u8, number: usize) {
    match u8::try_from(number).expect("batches in tests are small") {
        small @ 0..=23 => out.push(major | small),
        byte => out.extend([major | 24, byte]),
    }
}

/// A sector to prove: its number and pieces, which a ProveCommitSectors3 names.
#[derive(Clone, Debug, PartialEq)]
pub struct Activation {
    pub number: u64,
    /// Size with padding, and CID.
    pub pieces: Vec<(u64, String)>,
}

/// The sectors of a ProveCommitSectors3 and their proofs.
pub fn activations(params: Cbor) -> Option<(Vec<Activation>, Vec<Vec<u8>>)> {
    let [sectors, proofs, aggregate, kind, Cbor::Bool, Cbor::Bool] = params.list::<6>()? else {
        return None;
    };
    if aggregate != Cbor::Bytes(Vec::new()) || kind != Cbor::Null {
        return None;
    }
    let piece = |piece: Cbor| {
        let [Cbor::Cid(cid), Cbor::Int(size), allocation, notify] = piece.list::<4>()? else {
            return None;
        };
        let is_plain = allocation == Cbor::Null && notify == Cbor::List(Vec::new());
        (is_plain && cid.starts_with(&UNSEALED)).then_some((u64::try_from(size).ok()?, text(&cid)))
    };
    let sector = |sector: Cbor| {
        let [Cbor::Int(number), Cbor::List(pieces)] = sector.list::<2>()? else { return None };
        let pieces = pieces.into_iter().map(piece).collect::<Option<_>>()?;
        Some(Activation { number: u64::try_from(number).ok()?, pieces })
    };
    let proof = |proof: Cbor| match proof {
        Cbor::Bytes(bytes) => Some(bytes),
        _ => None,
    };
    let (Cbor::List(sectors), Cbor::List(proofs)) = (sectors, proofs) else { return None };
    Some((
        sectors.into_iter().map(sector).collect::<Option<_>>()?,
        proofs.into_iter().map(proof).collect::<Option<_>>()?,
    ))
}

/// The sectors of a PreCommitSectorBatch2, and the last height of each.
pub fn pre_commits(params: Cbor) -> Option<Vec<(PreCommitted, i64)>> {
    let [Cbor::List(infos)] = params.list::<1>()? else { return None };
    let info = |info: Cbor| {
        let fields = info.list::<7>()?;
        let [
            Cbor::Int(proof),
            Cbor::Int(number),
            Cbor::Cid(sealed),
            Cbor::Int(ticket_epoch),
            Cbor::List(deals),
            Cbor::Int(expiration),
            data,
        ] = fields
        else {
            return None;
        };
        let unsealed = match data {
            Cbor::Null => None,
            Cbor::Cid(cid) if cid.starts_with(&UNSEALED) => Some(text(&cid)),
            _ => return None,
        };
        let is_plain = deals.is_empty() && sealed.starts_with(&SEALED);
        let number = u64::try_from(number).ok()?;
        let sealed = text(&sealed);
        let info = PreCommitted { number, proof, sealed, ticket_epoch, deals: Vec::new(), unsealed };
        is_plain.then_some((info, expiration))
    };
    infos.into_iter().map(info).collect()
}

/// The commitment of a sector with these pieces at the first places that suit their sizes, zeros between and behind them.
/// `None`: they do not fit.
pub fn comm_d(pieces: &[(u64, String)], sector_size: u64) -> Option<String> {
    // A tree of SHA-256 over nodes of 32 bytes, the two highest bits of each cleared.
    let parent = |left: &[u8; 32], right: &[u8; 32]| {
        let mut node: [u8; 32] = Sha256::new().chain_update(left).chain_update(right).finalize().into();
        node[31] &= 0x3f;
        node
    };
    let zeros = |size: u64| {
        let (mut has, mut node) = (32, [0; 32]);
        while has < size {
            (has, node) = (has * 2, parent(&node, &node));
        }
        node
    };
    let mut stack: Vec<(u64, [u8; 32])> = Vec::new();
    let push = |stack: &mut Vec<(u64, [u8; 32])>, mut top: (u64, [u8; 32])| {
        while let Some(below) = stack.pop_if(|below| below.0 == top.0) {
            top = (top.0 * 2, parent(&below.1, &top.1));
        }
        stack.push(top);
    };
    let filled = |stack: &[(u64, [u8; 32])]| stack.iter().map(|part| part.0).sum::<u64>();
    for (size, cid) in pieces {
        if !size.is_power_of_two() || *size < 128 {
            return None;
        }
        while filled(&stack) % size != 0 {
            let gap = 1 << filled(&stack).trailing_zeros();
            push(&mut stack, (gap, zeros(gap)));
        }
        push(&mut stack, (*size, binary(cid)?));
    }
    while filled(&stack) < sector_size {
        let gap = 1 << filled(&stack).trailing_zeros();
        push(&mut stack, (gap, zeros(gap)));
    }
    let [(size, root)] = stack[..] else { return None };
    (size == sector_size).then(|| text(&[&UNSEALED[..], &root].concat()))
}

const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// A binary CID as text.
fn text(cid: &[u8]) -> String {
    let bit = |at: usize| cid.get(at / 8).is_some_and(|byte| byte >> (7 - at % 8) & 1 == 1);
    let digit = |at: usize| BASE32[(0..5).fold(0, |five, next| five << 1 | usize::from(bit(at * 5 + next)))];
    let digits = (0..(cid.len() * 8).div_ceil(5)).map(|at| char::from(digit(at)));
    std::iter::once('b').chain(digits).collect()
}

/// The commitment in a CID.
fn binary(cid: &str) -> Option<[u8; 32]> {
    let digits: Option<Vec<usize>> =
        cid.strip_prefix('b')?.bytes().map(|digit| BASE32.iter().position(|known| *known == digit)).collect();
    let digits = digits?;
    let bit = |at: usize| digits.get(at / 5).is_some_and(|five| five >> (4 - at % 5) & 1 == 1);
    let bytes: Vec<u8> = (0..digits.len() * 5 / 8)
        .map(|at| (0..8).fold(0, |byte, next| byte << 1 | u8::from(bit(at * 8 + next))))
        .collect();
    bytes.strip_prefix(&UNSEALED)?.try_into().ok()
}

/// What messages are made of.
#[derive(Clone, Debug, PartialEq)]
pub enum Cbor {
    Int(i64),
    Bytes(Vec<u8>),
    List(Vec<Cbor>),
    Bool,
    Null,
    /// In its binary form.
    Cid(Vec<u8>),
}

impl Cbor {
    fn list<const LEN: usize>(self) -> Option<[Cbor; LEN]> {
        match self {
            Cbor::List(list) => list.try_into().ok(),
            _ => None,
        }
    }
}

/// One value that fills the bytes.
fn read(bytes: &[u8]) -> Option<Cbor> {
    let (value, rest) = item(bytes)?;
    rest.is_empty().then_some(value)
}

fn item(bytes: &[u8]) -> Option<(Cbor, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let width = match first & 0x1f {
        0..=23 => 0,
        kind @ 24..=27 => 1 << (kind - 24),
        _ => return None,
    };
    let (behind, mut rest) = rest.split_at_checked(width)?;
    let number = match width {
        0 => u64::from(first & 0x1f),
        _ => behind.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)),
    };
    let length = usize::try_from(number).ok()?;
    let value = match (first >> 5, number) {
        (0, _) => Cbor::Int(i64::try_from(number).ok()?),
        (1, _) => Cbor::Int(-1 - i64::try_from(number).ok()?),
        (2, _) => {
            let (taken, after) = rest.split_at_checked(length)?;
            rest = after;
            Cbor::Bytes(taken.to_vec())
        }
        (4, _) => {
            let mut list = Vec::new();
            for _ in 0..length {
                let (value, after) = item(rest)?;
                list.push(value);
                rest = after;
            }
            Cbor::List(list)
        }
        (6, 42) => {
            let (Cbor::Bytes(cid), after) = item(rest)? else { return None };
            rest = after;
            Cbor::Cid(cid.strip_prefix(&[0])?.to_vec())
        }
        (7, 20 | 21) => Cbor::Bool,
        (7, 22) => Cbor::Null,
        _ => return None,
    };
    Some((value, rest))
}

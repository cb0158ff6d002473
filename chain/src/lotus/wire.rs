//! The JSON shapes of a full node's API, first version, of which only the keys in use are read. Go writes an empty list
//! as null and a missing CID as null.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::TokenAmount;

/// A CID, `{"/": "…"}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Link {
    #[serde(rename = "/")]
    pub(crate) cid: String,
}

impl Link {
    pub(crate) fn new(cid: impl ToString) -> Self {
        Self { cid: cid.to_string() }
    }
}

/// Which tipset; the empty one is the head.
pub(crate) type TipSetKey = Vec<Link>;

/// Bytes in base64 with padding; nil is null.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text: Option<String> = Option::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text.unwrap_or_default()).map_err(serde::de::Error::custom)?;
        Ok(Self(bytes))
    }
}

/// null is the default, as in Go.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Version {
    pub(crate) version: String,
    #[serde(rename = "APIVersion")]
    pub(crate) api_version: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NetworkParams {
    pub(crate) network_name: String,
    pub(crate) block_delay_secs: u64,
    pub(crate) pre_commit_challenge_delay: i64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct TipSet {
    #[serde(deserialize_with = "nullable")]
    pub(crate) cids: TipSetKey,
    #[serde(deserialize_with = "nullable")]
    pub(crate) blocks: Vec<Block>,
    pub(crate) height: i64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Block {
    /// Unix seconds.
    pub(crate) timestamp: u64,
    #[serde(default)]
    pub(crate) parent_base_fee: TokenAmount,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SyncState {
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) active_syncs: Vec<ActiveSync>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ActiveSync {
    pub(crate) stage: u64,
    pub(crate) height: i64,
    #[serde(default)]
    pub(crate) target: Option<TipSet>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct MinerInfo {
    pub(crate) owner: String,
    pub(crate) worker: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(crate) control_addresses: Vec<String>,
    pub(crate) window_po_st_proof_type: i64,
    pub(crate) sector_size: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SectorOnChain {
    pub(crate) seal_proof: i64,
    #[serde(rename = "SealedCID")]
    pub(crate) sealed: Option<Link>,
    pub(crate) activation: i64,
    pub(crate) expiration: i64,
    /// The replica before a snap update; null where there was none.
    #[serde(rename = "SectorKeyCID", default)]
    pub(crate) key: Option<Link>,
}

/// Where a proven sector is.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SectorLocation {
    pub(crate) deadline: u64,
    pub(crate) partition: u64,
}

/// A part of a deadline's sectors. Bit fields are lengths of runs.
#[derive(Deserialize)]
pub(crate) struct Partition {
    /// Neither expired nor terminated: active, faulty, recovering and not proven yet.
    #[serde(rename = "LiveSectors", deserialize_with = "nullable")]
    pub(crate) live: Vec<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PreCommitOnChain {
    pub(crate) info: PreCommitInfo,
    pub(crate) pre_commit_deposit: TokenAmount,
    pub(crate) pre_commit_epoch: i64,
}

/// Also sent, to learn a deposit.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PreCommitInfo {
    pub(crate) seal_proof: i64,
    pub(crate) sector_number: u64,
    #[serde(rename = "SealedCID")]
    pub(crate) sealed: Option<Link>,
    pub(crate) seal_rand_epoch: i64,
    #[serde(rename = "DealIDs", default, deserialize_with = "nullable")]
    pub(crate) deals: Vec<u64>,
    pub(crate) expiration: i64,
    #[serde(rename = "UnsealedCid", default)]
    pub(crate) unsealed: Option<Link>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct MarketDeal {
    pub(crate) proposal: DealProposal,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DealProposal {
    #[serde(rename = "PieceCID")]
    pub(crate) piece: Link,
    pub(crate) piece_size: u64,
}

/// A message, sent and received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Message {
    pub(crate) version: u64,
    pub(crate) to: String,
    pub(crate) from: String,
    pub(crate) nonce: u64,
    pub(crate) value: TokenAmount,
    pub(crate) gas_limit: i64,
    pub(crate) gas_fee_cap: TokenAmount,
    pub(crate) gas_premium: TokenAmount,
    pub(crate) method: u64,
    pub(crate) params: Bytes,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct SignedMessage {
    #[serde(rename = "Message")]
    pub(crate) message: Message,
    #[serde(rename = "CID")]
    pub(crate) cid: Link,
}

/// A message as it lies in a block, with its CID beside it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct TipSetMessage {
    pub(crate) cid: Link,
    pub(crate) message: Message,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SendSpec {
    pub(crate) max_fee: TokenAmount,
    pub(crate) msg_uuid: uuid::Uuid,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct MessageMatch<'a> {
    pub(crate) to: &'a str,
    pub(crate) from: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Lookup {
    /// Another one than was asked for, if that was replaced.
    pub(crate) message: Link,
    pub(crate) receipt: Receipt,
    pub(crate) height: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Receipt {
    pub(crate) exit_code: u32,
    #[serde(rename = "Return", default)]
    pub(crate) answer: Bytes,
    pub(crate) gas_used: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a node writes them, extra keys and nulls included.
    #[test]
    fn what_go_writes_is_read() {
        let sector: SectorOnChain = serde_json::from_str(
            r#"{"SectorNumber":9,"SealProof":8,"SealedCID":{"/":"bagboea4b5abc"},"DeprecatedDealIDs":null,"Activation":10101,
            "Expiration":20202,"DealWeight":"0","VerifiedDealWeight":"0","InitialPledge":"0","SectorKeyCID":null,"Flags":1}"#,
        )
        .expect("a sector");
        assert_eq!((sector.activation, sector.key), (10101, None));
        let lookup: Lookup = serde_json::from_str(
            r#"{"Message":{"/":"bafy"},"Receipt":{"ExitCode":0,"Return":null,"GasUsed":9,"EventsRoot":null},"ReturnDec":{},
            "TipSet":[{"/":"bafy"}],"Height":10101}"#,
        )
        .expect("a lookup");
        assert!(lookup.receipt.answer.0.is_empty());
        let none: Option<PreCommitOnChain> = serde_json::from_str("null").expect("nothing");
        assert!(none.is_none());
        let miner: MinerInfo = serde_json::from_str(
            r#"{"Owner":"f0100","Worker":"f0101","NewWorker":"\u003cempty\u003e","ControlAddresses":null,"WorkerChangeEpoch":-1,
            "PeerId":null,"Multiaddrs":null,"WindowPoStProofType":13,"SectorSize":34359738368,"WindowPoStPartitionSectors":2349,
            "ConsensusFaultElapsed":-1}"#,
        )
        .expect("a miner");
        assert_eq!((miner.window_po_st_proof_type, miner.control_addresses.len()), (13, 0));
    }

    #[test]
    fn messages_are_written_as_go_reads_them() {
        let message = Message {
            version: 0,
            to: "f01000".to_owned(),
            from: "f3abc".to_owned(),
            nonce: 0,
            value: TokenAmount::from_atto(7),
            gas_limit: 0,
            gas_fee_cap: TokenAmount::ZERO,
            gas_premium: TokenAmount::ZERO,
            method: 28,
            params: Bytes(vec![1, 2]),
        };
        let text = serde_json::to_string(&message).expect("JSON");
        assert_eq!(
            text,
            r#"{"Version":0,"To":"f01000","From":"f3abc","Nonce":0,"Value":"7","GasLimit":0,"GasFeeCap":"0","GasPremium":"0","Method":28,"Params":"AQI="}"#
        );
    }
}

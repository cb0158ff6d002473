//! A sector's status in the shape of Lotus's `SectorsStatus`. What only the chain knows is Go's zero value.

use serde_json::{Value, json};

use super::{Base64, Cid};
use crate::extension::SectorDetail;

/// What `SectorsStatus` answers. Texts of ours that do not parse (none do not) become `null`.
pub(crate) fn sector_info(detail: SectorDetail) -> Value {
    let bytes = |text: &Option<String>| text.as_ref().and_then(|text| hex::decode(text).ok()).map(Base64);
    let cid = |text: &Option<String>| text.as_ref().and_then(Cid::of);
    let pieces: Vec<Value> = detail
        .pieces
        .iter()
        .map(|(size, text)| json!({"Piece": {"Size": size, "PieceCID": Cid::of(text)}, "DealInfo": null}))
        .collect();
    let log: Vec<Value> = detail
        .log
        .iter()
        .map(|(at_ms, kind, text)| json!({"Kind": kind, "Timestamp": at_ms / 1000, "Trace": "", "Message": text}))
        .collect();
    // Lotus's tools show the word as it is.
    let state = if detail.rehearsal { format!("REHEARSAL {}", detail.state) } else { detail.state };
    json!({
        "SectorID": detail.sector.number.get(),
        "State": state,
        "CommD": cid(&detail.comm_d),
        "CommR": cid(&detail.comm_r),
        "Proof": bytes(&detail.proof),
        "Deals": vec![0; detail.pieces.len()],
        "Pieces": pieces,
        "Ticket": {"Value": bytes(&detail.ticket), "Epoch": detail.ticket_epoch},
        "Seed": {"Value": bytes(&detail.seed), "Epoch": detail.seed_epoch},
        "PreCommitMsg": cid(&detail.pre_commit_message),
        "CommitMsg": cid(&detail.commit_message),
        "Retries": detail.invalid_proofs,
        "ToUpgrade": false,
        "ReplicaUpdateMessage": null,
        "LastErr": detail.last_error,
        "Log": log,
        "SealProof": detail.proof_type,
        "Activation": 0,
        "Expiration": 0,
        "DealWeight": "0",
        "VerifiedDealWeight": "0",
        "InitialPledge": "0",
        "OnTime": 0,
        "Early": 0,
    })
}

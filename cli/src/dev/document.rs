//! The one JSON document that `sealyard dev --json` prints; its schema is `cli/dev.schema.json`.

use std::collections::BTreeMap;

use rpc::extension::{JobView, PathView, SectorDetail};
use serde::Serialize;

/// Everything a run did.
#[derive(Debug, Serialize)]
pub struct Document {
    /// Every sector, by number.
    pub sectors: Vec<Sector>,
    /// Where the files ended up.
    pub storage: Vec<Stored>,
}

/// One sector.
#[derive(Debug, Serialize)]
pub struct Sector {
    miner: u64,
    number: u64,
    proof_type: i64,
    ticket: Option<String>,
    seed: Option<String>,
    comm_d: Option<String>,
    comm_r: Option<String>,
    c1_sha256: Option<String>,
    proof: Option<String>,
    verified: Option<bool>,
    state: String,
    tasks: Vec<Task>,
}

/// One task of a sector. Times are Unix milliseconds.
#[derive(Debug, Serialize)]
pub struct Task {
    #[serde(rename = "type")]
    kind: &'static str,
    worker: Option<String>,
    queued_ms: u64,
    started_ms: u64,
    ended_ms: u64,
    bytes_fetched: u64,
}

/// Files of one sector in one path.
#[derive(Debug, Serialize)]
pub struct Stored {
    sector: u64,
    path: String,
    worker: String,
    types: Vec<&'static str>,
    primary: bool,
}

/// Puts the document together.
pub fn document(details: &[SectorDetail], paths: &[PathView]) -> Document {
    let mut by_number: BTreeMap<u64, &SectorDetail> = BTreeMap::new();
    for detail in details {
        by_number.insert(detail.sector.number.get(), detail);
    }
    let mut storage: Vec<Stored> = paths.iter().flat_map(stored).collect();
    storage.sort_by(|a, b| (a.sector, &a.path).cmp(&(b.sector, &b.path)));
    Document { sectors: by_number.into_values().map(sector).collect(), storage }
}

fn sector(detail: &SectorDetail) -> Sector {
    Sector {
        miner: detail.sector.miner.get(),
        number: detail.sector.number.get(),
        proof_type: detail.proof_type,
        ticket: detail.ticket.clone(),
        seed: detail.seed.clone(),
        comm_d: detail.comm_d.clone(),
        comm_r: detail.comm_r.clone(),
        c1_sha256: detail.c1_sha256.clone(),
        proof: detail.proof.clone(),
        verified: detail.verified,
        state: detail.state.clone(),
        tasks: detail.tasks.iter().map(task).collect(),
    }
}

fn task(job: &JobView) -> Task {
    Task {
        kind: job.task.short(),
        worker: job.worker.clone(),
        queued_ms: job.queued_ms,
        started_ms: job.started_ms,
        ended_ms: job.ended_ms,
        bytes_fetched: job.bytes_fetched,
    }
}

fn stored(path: &PathView) -> impl Iterator<Item = Stored> + '_ {
    path.files.iter().map(|file| Stored {
        sector: file.sector.number.get(),
        path: path.id.to_string(),
        worker: path.workers.join(","),
        types: file.types.iter().map(|kind| kind.name()).collect(),
        primary: !file.types.is_empty() && file.types.difference(file.primary).is_empty(),
    })
}

//! Longer answers of the API, put together from the driver's memory, the index and the durable state. Never: changes.

use std::collections::BTreeMap;

use pipeline::{DataPiece, Failure, OnChain, RandomnessSource, Rest, SectorRecord, SectorState, Step};
use rpc::api::PledgeOptions;
use rpc::extension::{DataView, FileView, JobView, ManagerOverview, PathView, SectorDetail};
use rpc::{ApiError, ApiResult, SectorName};
use sealtasks::{SectorId, SectorNumber, StorageId, TaskId, UnpaddedOffset};
use sha2::{Digest as _, Sha256};
use stores::OpenedPath;

use crate::driver::{Driver, REBUILT, REMOVED};
use crate::service::{Service, refusal};
use crate::shared::Shared;
use crate::state::{AttemptOutcome, TaskRow};

/// Ended tasks shown beside those that wait or run.
const ENDED_JOBS_MAX: u32 = 200;

/// Whether a sector of this miner and size can be pledged here.
pub(crate) fn check_pledge(shared: &Shared, options: PledgeOptions) -> ApiResult<()> {
    if let Some(miner) = options.miner.filter(|miner| !shared.miners.contains(*miner)) {
        return Err(ApiError::refused(format!(
            "MGR051: this manager does not serve {miner}; `sealyard miners list` lists those that it does"
        )));
    }
    shared.unsaid.first_sector(options.miner.unwrap_or(shared.miners.first))?;
    let size = options.sector_size.unwrap_or(shared.miner.sector_size);
    match shared.randomness {
        RandomnessSource::Offline if !size.is_test_size() => Err(ApiError::refused(format!(
            "MGR052: {size} sectors need a chain: set FULLNODE_API_INFO to a Lotus node's API info; without one only \
             2KiB, 8MiB and 512MiB sectors can be pledged"
        ))),
        RandomnessSource::Lotus if size != shared.miner.sector_size => Err(ApiError::refused(format!(
            "MGR127: the miner's sectors have {}; on its chain there are none of {size}",
            shared.miner.sector_size
        ))),
        RandomnessSource::Offline | RandomnessSource::Lotus | RandomnessSource::Rehearsal => Ok(()),
    }
}

/// Says what lies in a path and is no sector file.
pub(crate) fn warn_of_foreign(opened: &OpenedPath) {
    for entry in &opened.foreign {
        tracing::warn!(path = %opened.id, entry = %entry.display(), "no sector file; it is left alone");
    }
}

impl Driver {
    /// All sectors, by miner and number.
    pub(crate) fn sector_ids(&self) -> Vec<SectorId> {
        self.records().map(|record| record.sector().id).collect()
    }

    /// The numbers of the first miner's sectors, lowest first.
    pub(crate) fn sector_numbers(&self) -> Vec<SectorNumber> {
        first_ones(self, self.records())
    }

    /// How many sectors are in each state.
    pub(crate) fn sectors_by_state(&self) -> BTreeMap<String, u64> {
        let mut states = BTreeMap::<_, u64>::new();
        for record in self.records() {
            let count = states.entry(record.state().name().to_owned()).or_default();
            *count = count.saturating_add(1);
        }
        states
    }

    /// Numbers of the first miner's sectors in any of these states.
    pub(crate) fn sectors_in(&self, states: &[String]) -> Vec<SectorNumber> {
        let wanted = |record: &&SectorRecord| states.iter().any(|state| state == record.state().name());
        let removed = states.iter().any(|state| state == REMOVED);
        let removed = self.removed_records().filter(|_| removed);
        first_ones(self, self.records().filter(wanted).chain(removed))
    }

    fn detail(&self, sector: SectorId) -> Option<(SectorDetail, BTreeMap<TaskId, String>)> {
        let name = self.shared().name(sector);
        if let Some(record) = self.removed(sector) {
            let detail =
                SectorDetail { state: REMOVED.to_owned(), stopped: false, ..detail_of(record, name) };
            return Some((detail, BTreeMap::new()));
        }
        let record = self.record(sector)?;
        Some((detail_of(record, name), self.reasons(Some(sector))))
    }
}

/// Of these the first miner's: Lotus's lists have numbers alone.
fn first_ones<'a>(driver: &Driver, records: impl Iterator<Item = &'a SectorRecord>) -> Vec<SectorNumber> {
    let first = driver.shared().miners.first;
    let ids = records.map(|record| record.sector().id);
    ids.filter(|id| id.miner == first).map(|id| id.number).collect()
}

/// One sector with everything known of it.
pub(crate) async fn sector_detail(service: &Service, name: SectorName) -> ApiResult<SectorDetail> {
    let sector = service.sector_id(name).await?;
    let found = service.view(move |driver| driver.detail(sector)).await?;
    let Some((mut detail, reasons)) = found else {
        return Err(service.0.no_sector(sector));
    };
    let rows = service.0.state.tasks_of(sector).await.map_err(refusal)?;
    detail.tasks = rows.into_iter().map(|row| job(row, &reasons)).collect();
    mark(&service.0, &mut detail.tasks);
    detail.older = service.older_copies(sector).await?;
    let log = service.0.state.log_of(sector).await.map_err(refusal)?;
    detail.rebuilt |= log.iter().any(|row| row.text.starts_with(REBUILT));
    detail.log = log.into_iter().map(|row| (row.at_ms, row.kind, row.text)).collect();
    Ok(detail)
}

fn detail_of(record: &SectorRecord, name: SectorName) -> SectorDetail {
    let progress = record.progress();
    let sector = record.sector();
    SectorDetail {
        sector: sector.id,
        proof_type: sector.proof.number(),
        state: record.state().name().to_owned(),
        chain: match record.source() {
            RandomnessSource::Offline => "offline".to_owned(),
            RandomnessSource::Lotus => "lotus".to_owned(),
            RandomnessSource::Rehearsal => "REHEARSAL".to_owned(),
        },
        ticket: progress.ticket.map(|ticket| ticket.value.to_string()),
        ticket_epoch: progress.ticket.map_or(0, |ticket| ticket.epoch.get()),
        seed: progress.seed.map(|seed| seed.value.to_string()),
        seed_epoch: progress.seed.map_or(0, |seed| seed.epoch.get()),
        comm_d: progress.cids.map(|cids| cids.unsealed.to_string()),
        comm_r: progress.cids.map(|cids| cids.sealed.to_string()),
        c1_sha256: progress.c1.as_ref().map(|c1| hex::encode(Sha256::digest(&c1.0))),
        proof: progress.proof.as_ref().map(|proof| hex::encode(&proof.0)),
        verified: progress.verified,
        rehearsal: record.is_rehearsal(),
        rebuilt: record.rebuilt_to().is_some(),
        stopped: is_stopped(record),
        pieces: progress.pieces.iter().map(|piece| (piece.size.get(), piece.cid.to_string())).collect(),
        data: record.data().iter().map(data_view).collect(),
        tasks: Vec::new(),
        log: Vec::new(),
        pre_commit_message: message_of(&progress.pre_commit),
        commit_message: message_of(&progress.commit),
        invalid_proofs: record.invalid_proofs(),
        last_error: last_error(record, name),
        older: Vec::new(),
    }
}

fn message_of(sent: &Option<OnChain>) -> Option<String> {
    sent.as_ref().and_then(|sent| sent.message.clone())
}

fn data_view(data: &DataPiece) -> DataView {
    DataView {
        cid: data.piece.cid.to_string(),
        bytes: data.bytes,
        padded_size: data.piece.size.get(),
        offset: data.offset.map(UnpaddedOffset::get),
    }
}

/// The failure that the sector stands at, or that has put it back, and what to do about it; empty once the step that
/// failed has worked.
pub(crate) fn last_error(record: &SectorRecord, name: SectorName) -> String {
    if is_stopped(record) {
        return String::new();
    }
    match record.failures().last() {
        Some(failure) if matches!(record.next(), Step::Rest { why: Rest::NeedsOperator }) => {
            format!("{}; it waits for `sealyard sectors retry {name}`", failure.message)
        }
        Some(failure)
            if record.state().is_failed()
                || failure.state == record.state()
                || puts_back(failure, record) =>
        {
            failure.message.clone()
        }
        Some(_) | None => String::new(),
    }
}

/// Whether all is done that was wanted of it.
fn is_stopped(record: &SectorRecord) -> bool {
    matches!(record.rest(), Some(Rest::StoppedAfterPc2 | Rest::StoppedAfterC1))
}

/// Whether the sector is made anew since it could not be pre-committed, or its proof since that could not be sent.
fn puts_back(failure: &Failure, record: &SectorRecord) -> bool {
    let from = match record.state() {
        SectorState::GetTicket | SectorState::PreCommit1 | SectorState::PreCommit2 => {
            SectorState::PreCommitting
        }
        SectorState::WaitSeed | SectorState::Committing => SectorState::SubmitCommit,
        _ => return false,
    };
    failure.state == from && record.rebuilt_to().is_none()
}

/// Tasks that wait, run, or ended lately.
pub(crate) async fn jobs(service: &Service) -> ApiResult<Vec<JobView>> {
    let reasons = service.view(|driver| driver.reasons(None)).await?;
    let rows = service.0.state.recent_tasks(ENDED_JOBS_MAX).await.map_err(refusal)?;
    let mut jobs: Vec<JobView> = rows.into_iter().map(|row| job(row, &reasons)).collect();
    mark(&service.0, &mut jobs);
    service.add_fetches(&mut jobs).await?;
    Ok(jobs)
}

/// Marks a rehearsal's tasks.
pub(crate) fn mark(shared: &Shared, jobs: &mut [JobView]) {
    jobs.iter_mut().for_each(|job| job.rehearsal = shared.rehearses());
}

pub(crate) fn job(row: TaskRow, reasons: &BTreeMap<TaskId, String>) -> JobView {
    let state = match AttemptOutcome::from_word(&row.state) {
        Some(AttemptOutcome::Done) => "done",
        Some(
            AttemptOutcome::Failed
            | AttemptOutcome::StartFailed
            | AttemptOutcome::Requeued
            | AttemptOutcome::Disowned
            | AttemptOutcome::Aborted,
        ) => "failed",
        None if row.state == "cancelled" => "failed",
        None => row.state.as_str(),
    };
    let why = reasons.get(&row.attempt.task).filter(|_| row.ended_ms == 0);
    JobView {
        attempt: row.attempt,
        call: row.call,
        sector: row.sector,
        task: row.task_type,
        state: state.to_owned(),
        reason: why.cloned().unwrap_or(row.reason),
        worker: row.worker,
        session: row.session,
        queued_ms: row.queued_ms,
        started_ms: row.started_ms,
        ended_ms: row.ended_ms,
        bytes_fetched: row.bytes_fetched,
        priority: row.priority,
        rehearsal: false,
        fetch: None,
    }
}

/// Workers and paths in one answer.
pub(crate) async fn overview(service: &Service) -> ApiResult<ManagerOverview> {
    let shared = &service.0;
    let view =
        |driver: &Driver| (driver.worker_views(), driver.path_servers(), (driver.alerts(), driver.audits()));
    let (workers, servers, (alerts, audits)) = service.view(view).await?;
    Ok(ManagerOverview {
        miner: format!("f0{}", shared.miner.actor.get()),
        sector_size: Some(shared.miner.sector_size),
        chain: if shared.rehearses() { "REHEARSAL" } else { shared.chain.name() }.to_owned(),
        advertised: shared.advertised.clone(),
        workers,
        paths: paths(shared, &servers),
        alerts: {
            let beside = shared.unsaid.alerts().into_iter().chain(shared.at_odds.alerts());
            shared.standing.alert().into_iter().chain(beside).chain(alerts).collect()
        },
        audits,
    })
}

fn paths(shared: &Shared, servers: &BTreeMap<StorageId, Vec<String>>) -> Vec<PathView> {
    let local: BTreeMap<_, _> = shared.local.paths().into_iter().map(|path| (path.id, path.dir)).collect();
    let view = |path: stores::PathView| {
        let id = path.info.id.clone();
        let own = local.get(&id);
        let mut workers = servers.get(&id).cloned().unwrap_or_default();
        if own.is_some() {
            workers.insert(0, "manager".to_owned());
        }
        let files = shared.index.path_files(&id).into_iter();
        PathView {
            workers,
            urls: path.info.urls,
            local: own.map(|dir| dir.display().to_string()),
            weight: path.info.stanza.weight,
            can_seal: path.info.stanza.can_seal,
            can_store: path.info.stanza.can_store,
            capacity: path.stat.capacity,
            available: path.stat.available,
            reserved: path.stat.reserved,
            max_storage: path.info.stanza.max_storage,
            heartbeat_age_ms: path.heartbeat_age_ms,
            error: path.error,
            files: files
                .map(|(decl, primary)| FileView { sector: decl.sector, types: decl.types, primary })
                .collect(),
            id,
        }
    };
    shared.index.paths().into_iter().map(view).collect()
}

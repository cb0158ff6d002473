//! Values that the fakes answer with and the tests send.

use std::collections::{BTreeMap, BTreeSet};

use rpc::api::{
    ManagerVersion, SectorLock, StoragePath, WorkerInfo, WorkerJob, WorkerResources, WorkerStats,
};
use rpc::beat::{Beat, Beaten};
use rpc::extension::{
    AlertView, CallPhase, DataView, DurationView, ExecutorSetting, FetchView, FileView, HeldCall, Hello,
    JobView, MachineIdentity, ManagerOverview, PathView, SectorDetail, ThreadState, ThreadView, WorkerState,
    WorkerView,
};
use rpc::operator::WorkerMode;
use sealtasks::{
    ActorId, AddPieceInput, AttemptId, C1Output, CallId, Commit1Input, Commit2Input, Commitment,
    DataCidInput, FetchInput, FileType, FileTypes, FinalizeInput, FsStat, HealthReport, MoveInput,
    PaddedPieceSize, PathFilters, PathType, Pc1Output, PieceInfo, PieceSource, PreCommit1Input,
    PreCommit2Input, Proof, RegisteredSealProof, ReleaseUnsealedInput, ResourceTable, SealedCid, SealingPlan,
    SectorDecl, SectorId, SectorRef, SectorSize, SectorStorageInfo, Seed, StorageId, StorageInfo,
    StorageStanza, TaskId, TaskInput, TaskOutput, TaskType, Ticket, UnpaddedOffset, UnpaddedPieceSize,
    UnsealInput, UnsealedCid, UnsealedRange, WorkerId,
};
use uuid::Uuid;

pub const SECTOR: SectorId = SectorId::new(1000, 42);
pub const CALL_UUID: Uuid = Uuid::from_u128(0x0755_4431_7f88_43b4_b2b7_c6a5_9f3e_0001);
pub const SESSION: Uuid = Uuid::from_u128(0x1111_2222_3333_4444_5555_6666_7777_8888);

pub fn sector_ref() -> SectorRef {
    SectorRef { id: SECTOR, proof: RegisteredSealProof::for_new_sector(SectorSize::KiB2) }
}

pub fn call() -> CallId {
    CallId { sector: SECTOR, id: CALL_UUID }
}

pub fn attempt() -> AttemptId {
    AttemptId { task: TaskId::new(7), attempt: 2 }
}

pub fn storage_id() -> StorageId {
    "76f1988b-ef30-4d7e-b3ec-9a627f4ba5a8".parse().expect("a storage id")
}

/// A path that the fakes do not know.
pub fn missing_id() -> StorageId {
    "missing".parse().expect("a storage id")
}

pub fn filters() -> PathFilters {
    PathFilters {
        allow_types: vec![FileType::Sealed, FileType::Cache],
        deny_types: vec![FileType::Unsealed],
        allow_miners: vec![ActorId::new(1000)],
        deny_miners: vec![ActorId::new(1001)],
    }
}

pub fn storage_info() -> StorageInfo {
    StorageInfo {
        id: storage_id(),
        urls: vec!["http://10.0.0.7:3456/remote".into()],
        stanza: StorageStanza {
            weight: 10,
            max_storage: u64::MAX,
            can_seal: true,
            can_store: false,
            groups: BTreeSet::from(["a".into()]),
            allow_to: BTreeSet::from(["b".into()]),
            filters: filters(),
        },
    }
}

pub fn fs_stat() -> FsStat {
    FsStat { capacity: 5, available: -4, fs_available: 3, reserved: 2, max: 1, used: i64::MAX }
}

pub fn health() -> HealthReport {
    HealthReport { stat: fs_stat(), error: Some("read-only".into()) }
}

pub fn beat() -> Beat {
    Beat { session: SESSION, had: 6, unknown: vec![missing_id()] }
}

pub fn beaten() -> Beaten {
    Beaten { number: 7, state: worker_state(), health: vec![(storage_id(), health())] }
}

pub fn decl() -> SectorDecl {
    SectorDecl { sector: SECTOR, types: FileTypes::SEALED | FileTypes::CACHE }
}

pub fn found() -> SectorStorageInfo {
    SectorStorageInfo {
        id: storage_id(),
        urls: vec!["http://10.0.0.7:3456/remote/sealed/s-t01000-42".into()],
        base_urls: vec!["http://10.0.0.7:3456/remote".into()],
        weight: 10,
        can_seal: true,
        can_store: true,
        primary: true,
        filters: filters(),
    }
}

pub fn lock() -> SectorLock {
    SectorLock { sector: SECTOR, write: [0, 1, 0, 0, 0, 0], read: [3, 0, 0, 0, 0, 0] }
}

pub fn manager_version() -> ManagerVersion {
    ManagerVersion { version: "fake 1".into(), api_version: 66816, block_delay: 30 }
}

pub fn worker_info() -> WorkerInfo {
    WorkerInfo {
        hostname: "w1".into(),
        ignore_resources: true,
        resources: WorkerResources {
            mem_physical: 1 << 40,
            mem_used: 2,
            mem_swap: 3,
            mem_swap_used: 4,
            cpus: 64,
            gpus: vec!["a gpu".into()],
            table: Some(ResourceTable::builtin()),
        },
    }
}

pub fn worker_stats() -> WorkerStats {
    WorkerStats {
        info: worker_info(),
        tasks: BTreeSet::from([TaskType::PreCommit1, TaskType::Fetch]),
        enabled: true,
        mem_used_min: 1,
        mem_used_max: 2,
        gpu_used: 0.5,
        cpu_use: 3,
        task_counts: BTreeMap::from([("5:seal/v0/precommit/1".into(), 2)]),
    }
}

pub fn worker_job() -> WorkerJob {
    WorkerJob {
        id: call(),
        sector: SECTOR,
        task: TaskType::Commit2,
        run_wait: -2,
        start_ms: 1_605_172_927_123,
        hostname: "w1".into(),
    }
}

pub fn storage_path() -> StoragePath {
    StoragePath {
        id: storage_id(),
        weight: 10,
        local_path: "/sealing".into(),
        can_seal: true,
        can_store: false,
    }
}

pub fn hello() -> Hello {
    Hello::of_this_build("fake 1")
}

pub fn executor_setting() -> ExecutorSetting {
    ExecutorSetting {
        task: Some(TaskType::PreCommit1),
        name: "FIL_PROOFS_USE_MULTICORE_SDR".to_owned(),
        value: "1".to_owned(),
        origin: "environment".to_owned(),
    }
}

pub fn worker_state() -> WorkerState {
    WorkerState {
        repo: Some(uuid::Uuid::from_u128(77)),
        session: WorkerId(SESSION),
        name: "w1".into(),
        enabled: true,
        tasks: BTreeSet::from([TaskType::PreCommit1]),
        pending: BTreeMap::from([(TaskType::Commit2, "fetching parameters".into())]),
        mem_used: 1,
        mem_swap_used: 2,
        mem_beside: 3,
        paths: vec![storage_id()],
        calls: vec![HeldCall {
            call: call().to_string(),
            attempt: Some(attempt()),
            phase: CallPhase::Returning,
            lingering: false,
        }],
        caps: serde_json::from_str(r#"{"PC1":3,"PC2+C2":1}"#).unwrap(),
        machine: Some(MachineIdentity { id: "b0".into(), name: "big-box".into() }),
        plan: SealingPlan::Rebuild,
        threads: vec![ThreadState {
            location: "/mnt/nvme1".into(),
            path: Some(storage_id()),
            plan: SealingPlan::Sealer,
            error: "config.toml is no valid TOML".into(),
        }],
    }
}

pub fn job_view() -> JobView {
    JobView {
        attempt: attempt(),
        call: Some(call().to_string()),
        sector: SECTOR,
        task: TaskType::PreCommit2,
        state: "running".into(),
        reason: String::new(),
        worker: Some("w1".into()),
        session: Some(WorkerId(SESSION)),
        queued_ms: 1,
        started_ms: 2,
        ended_ms: 0,
        bytes_fetched: 3,
        priority: -1,
        rehearsal: false,
        fetch: Some(FetchView { files: 2, bytes_done: 3, bytes_total: 9, rate: 2, eta_s: Some(3) }),
    }
}

fn thread_view() -> ThreadView {
    ThreadView {
        index: 1,
        location: "/mnt/nvme1".into(),
        path: Some(storage_id()),
        plan: SealingPlan::Sealer,
        pending: Some(SealingPlan::Rebuild),
        sectors: vec![SECTOR],
        paused: false,
        state: "sealing".into(),
        last_error: String::new(),
    }
}

pub fn overview() -> ManagerOverview {
    ManagerOverview {
        miner: "f01000".into(),
        sector_size: Some(SectorSize::KiB2),
        chain: "offline".into(),
        workers: vec![WorkerView {
            session: WorkerId(SESSION),
            name: "w1".into(),
            url: "http://10.0.0.7:3456/rpc/v0".into(),
            kind: "lotus".into(),
            enabled: true,
            state: "suspect".into(),
            silent_ms: 12_000,
            next_state: Some(("lost".into(), 40_000)),
            tasks: BTreeSet::from([TaskType::AddPiece]),
            pending: BTreeMap::new(),
            running: BTreeMap::from([("AP".into(), 1)]),
            limits: BTreeMap::from([("AP".into(), 2)]),
            cpu: (1, 2),
            ram: (3, 4, 5),
            vmem: (6, 7, 8),
            gpu_used: 0.5,
            gpus: vec![],
            mode: WorkerMode::Draining,
            mode_set: Some(("root@big-box".into(), 7)),
            caps: vec![],
            machine: Some("big-box".into()),
            machine_caps: vec![],
            durations: vec![DurationView {
                task: TaskType::AddPiece,
                size: SectorSize::KiB2,
                count: 3,
                mean_ms: 40,
                last_ms: 50,
                peak_bytes: 60,
                cpu_ms: 70,
            }],
            fetches_bytes_per_second: 1 << 20,
            plan: SealingPlan::Any,
            threads: vec![thread_view()],
            paths: vec![storage_id()],
        }],
        paths: vec![PathView {
            id: storage_id(),
            workers: vec!["w1".into()],
            urls: vec![],
            local: None,
            weight: 10,
            can_seal: true,
            can_store: false,
            capacity: 9,
            available: 8,
            reserved: 1,
            max_storage: 0,
            heartbeat_age_ms: 5,
            error: None,
            files: vec![FileView { sector: SECTOR, types: FileTypes::ALL, primary: FileTypes::SEALED }],
        }],
        alerts: vec![AlertView {
            system: "sectors".into(),
            subject: "42".into(),
            text: "Packing is to go on, and nothing is under way".into(),
            since_ms: 1,
        }],
        ..ManagerOverview::default()
    }
}

/// Two miners.
pub fn miners() -> rpc::Miners {
    rpc::Miners { first: SECTOR.miner, others: vec![ActorId::new(2000)] }
}

pub fn sector_detail() -> SectorDetail {
    SectorDetail {
        sector: SECTOR,
        proof_type: 5,
        state: "Proving".into(),
        chain: "offline".into(),
        ticket: Some(Ticket([1; 32]).to_string()),
        ticket_epoch: 10,
        seed: Some(Seed([2; 32]).to_string()),
        seed_epoch: 20,
        comm_d: Some(comm_d().to_string()),
        comm_r: Some(comm_r().to_string()),
        c1_sha256: None,
        proof: Some("00ff".into()),
        verified: Some(true),
        rehearsal: false,
        rebuilt: false,
        pieces: vec![(2048, comm_d().to_string())],
        data: vec![DataView { cid: comm_d().to_string(), bytes: 200, padded_size: 256, offset: Some(0) }],
        tasks: vec![job_view()],
        log: vec![(1500, "event".into(), "text".into())],
        stopped: true,
        pre_commit_message: Some(comm_d().to_string()),
        commit_message: Some(comm_r().to_string()),
        invalid_proofs: 2,
        last_error: String::new(),
        older: Vec::new(),
    }
}

pub fn comm_d() -> UnsealedCid {
    UnsealedCid::new(Commitment::new([3; 32]))
}

pub fn comm_r() -> SealedCid {
    SealedCid::new(Commitment::new([4; 32]))
}

pub fn piece() -> PieceInfo {
    PieceInfo::new(PaddedPieceSize::try_from(2048).expect("a piece size"), Commitment::new([3; 32]))
}

pub fn unpadded(bytes: u64) -> UnpaddedPieceSize {
    UnpaddedPieceSize::try_from(bytes).expect("a piece size")
}

pub fn range() -> UnsealedRange {
    UnsealedRange { offset: UnpaddedOffset::try_from(127).expect("an offset"), size: 1 }
}

/// Every task that a worker can be given, but for those whose bytes come by a stream.
pub fn tasks() -> Vec<TaskInput> {
    let (ticket, seed) = (Ticket([1; 32]), Seed([2; 32]));
    let pieces = vec![piece()];
    vec![
        TaskInput::DataCid(DataCidInput { size: unpadded(2032), source: PieceSource::Zeros }),
        TaskInput::AddPiece(AddPieceInput {
            existing: vec![unpadded(127), unpadded(127)],
            size: unpadded(254),
            source: PieceSource::Zeros,
        }),
        TaskInput::PreCommit1(PreCommit1Input { ticket, pieces: pieces.clone() }),
        TaskInput::PreCommit2(PreCommit2Input { pc1: Pc1Output(b"{\"pc1\":1}".to_vec()) }),
        TaskInput::Commit1(Commit1Input { ticket, seed, pieces, sealed: comm_r(), unsealed: comm_d() }),
        TaskInput::Commit2(Commit2Input { c1: C1Output(b"{\"c1\":1}".to_vec()) }),
        TaskInput::Finalize(FinalizeInput {}),
        TaskInput::ReleaseUnsealed(ReleaseUnsealedInput { keep: vec![range()] }),
        TaskInput::ReleaseUnsealed(ReleaseUnsealedInput { keep: vec![] }),
        TaskInput::Fetch(FetchInput {
            types: FileTypes::SEALED | FileTypes::CACHE,
            path_type: PathType::Sealing,
            mode: sealtasks::AcquireMode::Move,
        }),
        TaskInput::Move(MoveInput { types: FileTypes::UNSEALED }),
        TaskInput::Unseal(UnsealInput { range: range(), ticket, unsealed: comm_d() }),
    ]
}

/// Every result that a worker can return.
pub fn outputs() -> Vec<(rpc::ReturnMethod, TaskOutput)> {
    use rpc::ReturnMethod as Method;
    vec![
        (Method::DataCid, TaskOutput::DataCid(piece())),
        (Method::AddPiece, TaskOutput::AddPiece(piece())),
        (Method::SealPreCommit1, TaskOutput::PreCommit1(Pc1Output(vec![1, 2]))),
        (Method::SealPreCommit2, TaskOutput::PreCommit2 { unsealed: comm_d(), sealed: comm_r() }),
        (Method::SealCommit1, TaskOutput::Commit1(C1Output(vec![3]))),
        (Method::SealCommit2, TaskOutput::Commit2(Proof(vec![4; 192]))),
        (Method::FinalizeSector, TaskOutput::Finalize),
        (Method::ReleaseUnsealed, TaskOutput::ReleaseUnsealed),
        (Method::MoveStorage, TaskOutput::Move),
        (Method::UnsealPiece, TaskOutput::Unseal),
        (Method::Fetch, TaskOutput::Fetch),
    ]
}

/// Tells that a call is over, however it ends.
pub struct TellOnDrop<'a>(pub &'a tokio::sync::Notify);

impl Drop for TellOnDrop<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

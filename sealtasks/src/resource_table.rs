//! Lotus's resource table and its environment overrides.
//!
//! Source of the figures: Lotus `storage/sealer/storiface/resources.go`. The rows are given per sector size; each
//! serves the V1, V1_1 and synthetic proof of that size. Non-interactive proofs have no rows, as in Lotus.

use crate::{
    RegisteredSealProof, ResourceEnvError, ResourceTable, ResourceVariable, Resources, SectorSize, TaskType,
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Producers of multicore SDR when `FIL_PROOFS_MULTICORE_SDR_PRODUCERS` is not set (the proofs library's default).
const SDR_PRODUCERS_DEFAULT: i64 = 3;
/// Beyond any machine; a larger number is a mistake.
const SDR_PRODUCERS_MAX: i64 = 1024;

/// What one row says: min and max memory, threads, threads beside a GPU, GPUs, shared memory.
type Row = (u64, u64, i64, i64, f64, u64);

/// The sizes in the order in which the rows stand.
const SIZES: [SectorSize; 5] =
    [SectorSize::GiB64, SectorSize::GiB32, SectorSize::MiB512, SectorSize::MiB8, SectorSize::KiB2];

const ADD_PIECE: [Row; 5] = [
    (8 * GIB, 8 * GIB, 1, 0, 0.0, GIB),
    (4 * GIB, 4 * GIB, 1, 0, 0.0, GIB),
    (GIB, GIB, 1, 0, 0.0, GIB),
    (8 * MIB, 8 * MIB, 1, 0, 0.0, 8 * MIB),
    (2 * KIB, 2 * KIB, 1, 0, 0.0, 2 * KIB),
];
/// Also Unseal, which labels the layers again.
const PRE_COMMIT_1: [Row; 5] = [
    (112 * GIB, 128 * GIB, 1, 0, 0.0, 10 * MIB),
    (56 * GIB, 64 * GIB, 1, 0, 0.0, 10 * MIB),
    (768 * MIB, GIB, 1, 0, 0.0, MIB),
    (8 * MIB, 8 * MIB, 1, 0, 0.0, 8 * MIB),
    (2 * KIB, 2 * KIB, 1, 0, 0.0, 2 * KIB),
];
const PRE_COMMIT_2: [Row; 5] = [
    (30 * GIB, 30 * GIB, -1, 6, 1.0, GIB),
    (15 * GIB, 15 * GIB, -1, 6, 1.0, GIB),
    (GIB, 1536 * MIB, -1, 0, 0.0, GIB),
    (8 * MIB, 8 * MIB, -1, 0, 0.0, 8 * MIB),
    (2 * KIB, 2 * KIB, -1, 0, 0.0, 2 * KIB),
];
/// Also ProveReplicaUpdate1.
const COMMIT_1: [Row; 5] = [
    (GIB, GIB, 0, 0, 0.0, GIB),
    (GIB, GIB, 0, 0, 0.0, GIB),
    (GIB, GIB, 0, 0, 0.0, GIB),
    (8 * MIB, 8 * MIB, 0, 0, 0.0, 8 * MIB),
    (2 * KIB, 2 * KIB, 0, 0, 0.0, 2 * KIB),
];
/// Also ProveReplicaUpdate2.
const COMMIT_2: [Row; 5] = [
    (60 * GIB, 190 * GIB, -1, 6, 1.0, 64 * GIB),
    (30 * GIB, 150 * GIB, -1, 6, 1.0, 32 * GIB),
    (GIB, 1536 * MIB, 1, 0, 1.0, 10 * GIB),
    (8 * MIB, 8 * MIB, 1, 0, 1.0, 8 * MIB),
    (2 * KIB, 2 * KIB, 1, 0, 1.0, 2 * KIB),
];
const FETCH: [Row; 5] = [(MIB, MIB, 0, 0, 0.0, 0); 5];
/// Also RegenSectorKey.
const REPLICA_UPDATE: [Row; 5] = [
    (8 * GIB, 8 * GIB, 1, 6, 1.0, GIB),
    (4 * GIB, 4 * GIB, 1, 6, 1.0, GIB),
    (GIB, GIB, 1, 0, 1.0, GIB),
    (8 * MIB, 8 * MIB, 1, 0, 1.0, 8 * MIB),
    (2 * KIB, 2 * KIB, 1, 0, 1.0, 2 * KIB),
];
const WINDOW_POST: [Row; 5] = [
    (60 * GIB, 120 * GIB, -1, 6, 1.0, 64 * GIB),
    (30 * GIB, 96 * GIB, -1, 6, 1.0, 32 * GIB),
    (GIB, 1536 * MIB, 1, 0, 1.0, 10 * GIB),
    (8 * MIB, 8 * MIB, 1, 0, 1.0, 8 * MIB),
    (2 * KIB, 2 * KIB, 1, 0, 1.0, 2 * KIB),
];
const WINNING_POST: [Row; 5] = [
    (GIB, GIB, -1, 6, 1.0, 64 * GIB),
    (GIB, GIB, -1, 6, 1.0, 32 * GIB),
    (2 * KIB, 2 * KIB, 1, 0, 1.0, 10 * GIB),
    (8 * MIB, 8 * MIB, 1, 0, 1.0, 8 * MIB),
    (2 * KIB, 2 * KIB, 1, 0, 1.0, 2 * KIB),
];
/// DataCid costs the same for every size: what AddPiece costs at 32 GiB.
const DATA_CID: [Row; 5] = [ADD_PIECE[1]; 5];

/// The rows of a task type; `None` for those that need nothing (and so cannot be tuned by the environment either).
const fn rows_of(task: TaskType) -> Option<&'static [Row; 5]> {
    Some(match task {
        TaskType::DataCid => &DATA_CID,
        TaskType::AddPiece => &ADD_PIECE,
        TaskType::PreCommit1 | TaskType::Unseal => &PRE_COMMIT_1,
        TaskType::PreCommit2 => &PRE_COMMIT_2,
        TaskType::Commit1 | TaskType::ProveReplicaUpdate1 => &COMMIT_1,
        TaskType::Commit2 | TaskType::ProveReplicaUpdate2 => &COMMIT_2,
        TaskType::Fetch => &FETCH,
        TaskType::ReplicaUpdate | TaskType::RegenSectorKey => &REPLICA_UPDATE,
        TaskType::WindowPost => &WINDOW_POST,
        TaskType::WinningPost => &WINNING_POST,
        TaskType::Finalize
        | TaskType::FinalizeUnsealed
        | TaskType::FinalizeReplicaUpdate
        | TaskType::DownloadSector => return None,
    })
}

/// Every task type and size that has a row, in the order of a sector's life, small sizes first.
fn sized_rows() -> impl Iterator<Item = (TaskType, SectorSize, Resources)> {
    TaskType::ALL.iter().copied().filter_map(|task| Some((task, rows_of(task)?))).flat_map(|(task, rows)| {
        SIZES.into_iter().zip(rows).rev().map(move |(size, row)| (task, size, resources_of(*row)))
    })
}

fn resources_of(row: Row) -> Resources {
    let (min_memory, max_memory, max_parallelism, max_parallelism_gpu, gpu_utilization, base_min_memory) =
        row;
    Resources {
        min_memory,
        max_memory,
        gpu_utilization,
        max_parallelism,
        max_parallelism_gpu,
        base_min_memory,
        max_concurrent: 0,
    }
}

/// The proofs that a size's row serves: V1, V1_1 and synthetic. Non-interactive ones come last and have none.
fn proofs_of(size: SectorSize) -> impl Iterator<Item = RegisteredSealProof> {
    RegisteredSealProof::all().filter(move |proof| proof.sector_size() == size).take(3)
}

pub(crate) fn builtin() -> ResourceTable {
    ResourceTable::from_rows(
        sized_rows().flat_map(|(task, size, row)| proofs_of(size).map(move |proof| (task, proof, row))),
    )
}

pub(crate) fn with_environment(
    table: ResourceTable,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<ResourceTable, ResourceEnvError> {
    let mut rows = Vec::new();
    for (task, proof, mut row) in table.rows() {
        for field in &FIELDS {
            let (sized, unsized_) = names(task, proof.sector_size(), field);
            override_field(&mut row, task, field, [&sized, &unsized_], &variable)?;
        }
        rows.push((task, proof, row));
    }
    Ok(ResourceTable::from_rows(rows))
}

pub(crate) fn variables(
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Vec<ResourceVariable>, ResourceEnvError> {
    let mut listed = Vec::new();
    for (task, size, builtin) in sized_rows() {
        for field in &FIELDS {
            let (sized, unsized_) = names(task, size, field);
            let mut default = builtin;
            override_field(
                &mut default,
                task,
                field,
                [],
                |name| if is_sdr(name) { variable(name) } else { None },
            )?;
            let mut effective = builtin;
            override_field(&mut effective, task, field, [&sized, &unsized_], &variable)?;
            let set = variable(&sized);
            listed.push(ResourceVariable {
                name: sized,
                set,
                default: Some((field.text)(&default)),
                effective: Some((field.text)(&effective)),
            });
            let set = variable(&unsized_);
            listed.push(ResourceVariable { name: unsized_, effective: set.clone(), set, default: None });
        }
    }
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    listed.dedup_by(|a, b| a.name == b.name);
    Ok(listed)
}

/// One tunable field: the end of its variables' names, how it reads as text and how text is taken into it.
struct Field {
    suffix: &'static str,
    expected: &'static str,
    text: fn(&Resources) -> String,
    set: fn(&mut Resources, &str) -> Option<()>,
}

const BYTES: &str = "a whole number of bytes";
const THREADS: &str = "a whole number of threads, or -1 for 92 % of the CPUs";

/// In Lotus's order. The names are Lotus's.
const FIELDS: [Field; 7] = [
    Field {
        suffix: "MIN_MEMORY",
        expected: BYTES,
        text: |row| row.min_memory.to_string(),
        set: |row, text| unsigned(text).map(|bytes| row.min_memory = bytes),
    },
    Field {
        suffix: "MAX_MEMORY",
        expected: BYTES,
        text: |row| row.max_memory.to_string(),
        set: |row, text| unsigned(text).map(|bytes| row.max_memory = bytes),
    },
    Field {
        suffix: "GPU_UTILIZATION",
        expected: "a number of GPUs, for example 0, 0.5 or 1",
        text: |row| row.gpu_utilization.to_string(),
        set: |row, text| gpus(text).map(|gpus| row.gpu_utilization = gpus),
    },
    Field {
        suffix: "MAX_PARALLELISM",
        expected: THREADS,
        text: |row| row.max_parallelism.to_string(),
        set: |row, text| threads(text).map(|threads| row.max_parallelism = threads),
    },
    Field {
        suffix: "MAX_PARALLELISM_GPU",
        expected: THREADS,
        text: |row| row.max_parallelism_gpu.to_string(),
        set: |row, text| threads(text).map(|threads| row.max_parallelism_gpu = threads),
    },
    Field {
        suffix: "BASE_MIN_MEMORY",
        expected: BYTES,
        text: |row| row.base_min_memory.to_string(),
        set: |row, text| unsigned(text).map(|bytes| row.base_min_memory = bytes),
    },
    Field {
        suffix: "MAX_CONCURRENT",
        expected: "a whole number of tasks; 0 = no limit",
        text: |row| row.max_concurrent.to_string(),
        set: |row, text| unsigned(text).map(|tasks| row.max_concurrent = tasks),
    },
];

/// The name with the size, which wins, and the one without.
fn names(task: TaskType, size: SectorSize, field: &Field) -> (String, String) {
    let (short, suffix) = (task.short(), field.suffix);
    (format!("{short}_{}_{suffix}", size.short()), format!("{short}_{suffix}"))
}

/// Takes the first variable of `names` that is set into the field; without one, PC1 and Unseal get the threads of
/// multicore SDR.
fn override_field<const N: usize>(
    row: &mut Resources,
    task: TaskType,
    field: &Field,
    names: [&str; N],
    variable: impl Fn(&str) -> Option<String>,
) -> Result<(), ResourceEnvError> {
    if let Some((name, value)) = names.into_iter().find_map(|name| Some((name, variable(name)?))) {
        let error = ResourceEnvError { name: name.to_owned(), expected: field.expected, value };
        return (field.set)(row, &error.value).ok_or(error);
    }
    if field.suffix == "MAX_PARALLELISM" && matches!(task, TaskType::PreCommit1 | TaskType::Unseal) {
        row.max_parallelism = 1 + sdr_producers(variable)?;
    }
    Ok(())
}

const SDR_SWITCH: &str = "FIL_PROOFS_USE_MULTICORE_SDR";
const SDR_PRODUCERS: &str = "FIL_PROOFS_MULTICORE_SDR_PRODUCERS";

fn is_sdr(name: &str) -> bool {
    name == SDR_SWITCH || name == SDR_PRODUCERS
}

/// Threads that prepare parents beside the one that labels; 0 without multicore SDR.
fn sdr_producers(variable: impl Fn(&str) -> Option<String>) -> Result<i64, ResourceEnvError> {
    if variable(SDR_SWITCH).as_deref() != Some("1") {
        return Ok(0);
    }
    let Some(value) = variable(SDR_PRODUCERS) else { return Ok(SDR_PRODUCERS_DEFAULT) };
    match signed(&value) {
        Some(producers @ 0..=SDR_PRODUCERS_MAX) => Ok(producers),
        _ => Err(ResourceEnvError {
            name: SDR_PRODUCERS.to_owned(),
            value,
            expected: "a whole number of producers, 0 to 1024",
        }),
    }
}

/// A leading `+` is refused: Lotus's reader refuses it as well.
fn unsigned(text: &str) -> Option<u64> {
    if text.starts_with('+') { None } else { text.parse().ok() }
}

fn signed(text: &str) -> Option<i64> {
    if text.starts_with('+') { None } else { text.parse().ok() }
}

fn threads(text: &str) -> Option<i64> {
    signed(text).filter(|threads| *threads >= -1)
}

fn gpus(text: &str) -> Option<f64> {
    text.parse().ok().filter(|gpus: &f64| gpus.is_finite() && *gpus >= 0.0)
}

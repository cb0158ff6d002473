//! Workers, their resources and their jobs on the wire.

use std::collections::{BTreeMap, BTreeSet};

use sealtasks::{RegisteredSealProof, ResourceTable, TaskType};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::sector::{CallId, SectorId};
use super::{Empty, WireError, nullable, of};
use crate::api;

/// TaskTypes' answer: a set, as Go writes one. Types that we do not know (a newer Lotus's) are left out: nothing of
/// that kind is ever scheduled here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct TaskTypes(pub BTreeMap<String, Empty>);

impl From<BTreeSet<TaskType>> for TaskTypes {
    fn from(tasks: BTreeSet<TaskType>) -> Self {
        Self(tasks.iter().map(|task| (task.name().to_owned(), Empty {})).collect())
    }
}

impl From<TaskTypes> for BTreeSet<TaskType> {
    fn from(tasks: TaskTypes) -> Self {
        tasks.0.keys().filter_map(|name| name.parse().ok()).collect()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct WorkerInfo {
    #[serde(deserialize_with = "nullable")]
    pub hostname: String,
    pub ignore_resources: bool,
    pub resources: WorkerResources,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct WorkerResources {
    pub mem_physical: u64,
    pub mem_used: u64,
    pub mem_swap: u64,
    pub mem_swap_used: u64,
    #[serde(rename = "CPUs")]
    pub cpus: u64,
    #[serde(rename = "GPUs", deserialize_with = "nullable")]
    pub gpus: Vec<String>,
    /// By task name, then by proof number as text.
    pub resources: Option<BTreeMap<String, BTreeMap<String, Resources>>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Resources {
    pub min_memory: u64,
    pub max_memory: u64,
    #[serde(rename = "GPUUtilization")]
    pub gpu_utilization: f64,
    pub max_parallelism: i64,
    #[serde(rename = "MaxParallelismGPU")]
    pub max_parallelism_gpu: i64,
    pub base_min_memory: u64,
    pub max_concurrent: i64,
}

impl From<api::WorkerInfo> for WorkerInfo {
    fn from(info: api::WorkerInfo) -> Self {
        let resources = info.resources;
        Self {
            hostname: info.hostname,
            ignore_resources: info.ignore_resources,
            resources: WorkerResources {
                mem_physical: resources.mem_physical,
                mem_used: resources.mem_used,
                mem_swap: resources.mem_swap,
                mem_swap_used: resources.mem_swap_used,
                cpus: resources.cpus,
                gpus: resources.gpus,
                resources: resources.table.as_ref().map(table),
            },
        }
    }
}

impl TryFrom<WorkerInfo> for api::WorkerInfo {
    type Error = WireError;

    fn try_from(info: WorkerInfo) -> Result<Self, WireError> {
        let resources = info.resources;
        Ok(Self {
            hostname: info.hostname,
            ignore_resources: info.ignore_resources,
            resources: api::WorkerResources {
                mem_physical: resources.mem_physical,
                mem_used: resources.mem_used,
                mem_swap: resources.mem_swap,
                mem_swap_used: resources.mem_swap_used,
                cpus: resources.cpus,
                gpus: resources.gpus,
                table: resources.resources.map(table_of).transpose()?,
            },
        })
    }
}

fn table(table: &ResourceTable) -> BTreeMap<String, BTreeMap<String, Resources>> {
    let mut out = BTreeMap::<_, BTreeMap<_, _>>::new();
    for (task, proof, need) in table.rows() {
        let row = Resources {
            min_memory: need.min_memory,
            max_memory: need.max_memory,
            gpu_utilization: need.gpu_utilization,
            max_parallelism: need.max_parallelism,
            max_parallelism_gpu: need.max_parallelism_gpu,
            base_min_memory: need.base_min_memory,
            // Beyond any number of tasks a worker can run; Go has no more room.
            max_concurrent: i64::try_from(need.max_concurrent).unwrap_or(i64::MAX),
        };
        out.entry(task.name().to_owned()).or_default().insert(proof.to_string(), row);
    }
    out
}

/// Rows of tasks and proofs that we do not know are left out; a row that we do know must make sense.
fn table_of(table: BTreeMap<String, BTreeMap<String, Resources>>) -> Result<ResourceTable, WireError> {
    let mut rows = Vec::new();
    for (task, proofs) in table {
        let Ok(task) = task.parse::<TaskType>() else { continue };
        for (proof, need) in proofs {
            let Some(proof) =
                proof.parse::<i64>().ok().and_then(|number| RegisteredSealProof::try_from(number).ok())
            else {
                continue;
            };
            let max_concurrent = u64::try_from(need.max_concurrent).map_err(|_| {
                WireError::new(
                    "MaxConcurrent",
                    format!("{} for {task}, expected 0 or more", need.max_concurrent),
                )
            })?;
            if !(need.gpu_utilization.is_finite() && need.gpu_utilization >= 0.0) {
                let detail = format!("{} for {task}, expected 0 or more", need.gpu_utilization);
                return Err(WireError::new("GPUUtilization", detail));
            }
            let need = sealtasks::Resources {
                min_memory: need.min_memory,
                max_memory: need.max_memory,
                gpu_utilization: need.gpu_utilization,
                max_parallelism: need.max_parallelism,
                max_parallelism_gpu: need.max_parallelism_gpu,
                base_min_memory: need.base_min_memory,
                max_concurrent,
            };
            rows.push((task, proof, need));
        }
    }
    Ok(ResourceTable::from_rows(rows))
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct WorkerStats {
    pub info: WorkerInfo,
    #[serde(deserialize_with = "nullable")]
    pub tasks: Vec<String>,
    pub enabled: bool,
    pub mem_used_min: u64,
    pub mem_used_max: u64,
    pub gpu_used: f64,
    pub cpu_use: u64,
    #[serde(deserialize_with = "nullable")]
    pub task_counts: BTreeMap<String, i64>,
}

impl From<api::WorkerStats> for WorkerStats {
    fn from(stats: api::WorkerStats) -> Self {
        Self {
            info: stats.info.into(),
            tasks: stats.tasks.iter().map(|task| task.name().to_owned()).collect(),
            enabled: stats.enabled,
            mem_used_min: stats.mem_used_min,
            mem_used_max: stats.mem_used_max,
            gpu_used: stats.gpu_used,
            cpu_use: stats.cpu_use,
            task_counts: stats.task_counts,
        }
    }
}

impl TryFrom<WorkerStats> for api::WorkerStats {
    type Error = WireError;

    fn try_from(stats: WorkerStats) -> Result<Self, WireError> {
        Ok(Self {
            info: stats.info.try_into()?,
            tasks: stats.tasks.iter().filter_map(|name| name.parse().ok()).collect(),
            enabled: stats.enabled,
            mem_used_min: stats.mem_used_min,
            mem_used_max: stats.mem_used_max,
            gpu_used: stats.gpu_used,
            cpu_use: stats.cpu_use,
            task_counts: stats.task_counts,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct WorkerJob {
    #[serde(rename = "ID")]
    pub id: CallId,
    pub sector: SectorId,
    pub task: String,
    #[serde(default)]
    pub run_wait: i64,
    pub start: GoTime,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub hostname: String,
}

impl From<api::WorkerJob> for WorkerJob {
    fn from(job: api::WorkerJob) -> Self {
        Self {
            id: job.id.into(),
            sector: job.sector.into(),
            task: job.task.name().to_owned(),
            run_wait: job.run_wait,
            start: GoTime { unix_ms: job.start_ms },
            hostname: job.hostname,
        }
    }
}

impl TryFrom<WorkerJob> for api::WorkerJob {
    type Error = WireError;

    fn try_from(job: WorkerJob) -> Result<Self, WireError> {
        Ok(Self {
            id: job.id.into(),
            sector: job.sector.into(),
            task: job.task.parse().map_err(of("WorkerJob.Task"))?,
            run_wait: job.run_wait,
            start_ms: job.start.unix_ms,
            hostname: job.hostname,
        })
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct StoragePath {
    #[serde(rename = "ID")]
    pub id: String,
    pub weight: u64,
    #[serde(deserialize_with = "nullable")]
    pub local_path: String,
    pub can_seal: bool,
    pub can_store: bool,
}

impl From<api::StoragePath> for StoragePath {
    fn from(path: api::StoragePath) -> Self {
        Self {
            id: path.id.into(),
            weight: path.weight,
            local_path: path.local_path,
            can_seal: path.can_seal,
            can_store: path.can_store,
        }
    }
}

impl TryFrom<StoragePath> for api::StoragePath {
    type Error = WireError;

    fn try_from(path: StoragePath) -> Result<Self, WireError> {
        Ok(Self {
            id: path.id.try_into().map_err(of("StoragePath.ID"))?,
            weight: path.weight,
            local_path: path.local_path,
            can_seal: path.can_seal,
            can_store: path.can_store,
        })
    }
}

/// What a manager says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ApiVersion {
    #[serde(deserialize_with = "nullable")]
    pub version: String,
    #[serde(rename = "APIVersion")]
    pub api_version: u32,
    pub block_delay: u64,
    /// Lotus's user agent; older releases have no such key.
    #[serde(deserialize_with = "nullable")]
    pub agent: String,
}

/// An instant as Go writes it (RFC 3339, any offset). Kept in whole milliseconds; Go's zero time and anything before
/// 1970 is 0, "not yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GoTime {
    pub unix_ms: u64,
}

const GO_ZERO_TIME: &str = "0001-01-01T00:00:00Z";

impl Serialize for GoTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.unix_ms == 0 {
            return serializer.serialize_str(GO_ZERO_TIME);
        }
        let nanos = i128::from(self.unix_ms) * 1_000_000;
        let text =
            OffsetDateTime::from_unix_timestamp_nanos(nanos).ok().and_then(|at| at.format(&Rfc3339).ok());
        let text = text.ok_or_else(|| serde::ser::Error::custom("an instant beyond the year 9999"))?;
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for GoTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let at = OffsetDateTime::parse(&text, &Rfc3339)
            .map_err(|_| serde::de::Error::custom(format!("{text:?} is no RFC 3339 instant")))?;
        Ok(Self { unix_ms: u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0) })
    }
}

//! The resources one task of one size needs, and the table of all of them with Lotus's environment overrides.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{RegisteredSealProof, SectorSize, TaskType, resource_table};

/// What one task needs. Field meanings and arithmetic are Lotus's (`storage/sealer/storiface/resources.go`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// Memory in bytes that must be RAM.
    pub min_memory: u64,
    /// Memory in bytes at the peak, swap included.
    pub max_memory: u64,
    /// GPUs used, fractional.
    pub gpu_utilization: f64,
    /// Threads used; -1 = 92 % of the CPUs.
    pub max_parallelism: i64,
    /// Threads used when a GPU does the work; 0 = as `max_parallelism`.
    pub max_parallelism_gpu: i64,
    /// Memory in bytes shared by all tasks of the type on a worker, needed once.
    pub base_min_memory: u64,
    /// At most this many at once on a worker; 0 = no limit.
    pub max_concurrent: u64,
}

impl Resources {
    /// CPU threads one task occupies on a worker with `cpus` CPUs and `gpus` GPUs.
    pub fn threads(&self, cpus: u64, gpus: usize) -> u64 {
        let on_gpu = self.gpu_utilization > 0.0 && gpus > 0 && self.max_parallelism_gpu != 0;
        let wanted = if on_gpu { self.max_parallelism_gpu } else { self.max_parallelism };
        match u64::try_from(wanted) {
            Ok(threads) => threads,
            Err(_) => match cpus.saturating_mul(92) / 100 {
                0 => cpus,
                most => most,
            },
        }
    }
}

/// Resources of every task type and proof that has a row. A task without a row needs nothing (Finalize, for example).
#[derive(Clone, Debug, PartialEq)]
pub struct ResourceTable(pub(crate) BTreeMap<TaskType, BTreeMap<RegisteredSealProof, Resources>>);

impl ResourceTable {
    /// Lotus's built-in table.
    pub fn builtin() -> Self {
        resource_table::builtin()
    }

    /// The built-in table with overrides from the environment: `<SHORT>_<SIZE>_<FIELD>`, else `<SHORT>_<FIELD>`.
    /// `variable` looks a name up.
    ///
    /// # Errors
    /// A value that is no number of the field's kind. (Lotus reads a malformed number as 0, and so admits anything.)
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ResourceEnvError> {
        resource_table::with_environment(Self::builtin(), variable)
    }

    /// Every variable that tunes the built-in table, sorted by name, with what it is set to and what is in force.
    /// `variable` looks a name up.
    ///
    /// # Errors
    /// As [`ResourceTable::from_environment`].
    pub fn variables(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Vec<ResourceVariable>, ResourceEnvError> {
        resource_table::variables(variable)
    }

    /// A table with these rows, for example one that a Lotus worker sent.
    pub fn from_rows(rows: impl IntoIterator<Item = (TaskType, RegisteredSealProof, Resources)>) -> Self {
        let mut table = BTreeMap::<_, BTreeMap<_, _>>::new();
        for (task, proof, resources) in rows {
            table.entry(task).or_default().insert(proof, resources);
        }
        Self(table)
    }

    /// The row for this task, if there is one.
    pub fn get(&self, task: TaskType, proof: RegisteredSealProof) -> Option<Resources> {
        self.0.get(&task)?.get(&proof).copied()
    }

    /// Memory in bytes that scrubbing a sector's files may take. It builds tree-r-last on the CPU, one of the trees that
    /// PreCommit2 builds of the same replica: what that may take is never less.
    pub fn scrub_memory(&self, size: SectorSize) -> u64 {
        let row = self.get(TaskType::PreCommit2, RegisteredSealProof::for_new_sector(size));
        row.map_or(0, |row| row.max_memory.max(row.min_memory).saturating_add(row.base_min_memory))
    }

    /// All rows.
    pub fn rows(&self) -> impl Iterator<Item = (TaskType, RegisteredSealProof, Resources)> + '_ {
        self.0.iter().flat_map(|(task, row)| row.iter().map(|(proof, resources)| (*task, *proof, *resources)))
    }
}

/// One variable that tunes the table, as `worker resources` lists it. All values are texts as a variable would hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceVariable {
    /// For example `PC2_32G_MAX_MEMORY`, or `PC2_MAX_MEMORY` for all sizes.
    pub name: String,
    /// What it is set to, if it is.
    pub set: Option<String>,
    /// What holds when neither this nor the other form is set; `None` for the form without a size, since each size
    /// has its own.
    pub default: Option<String>,
    /// What is in force; for the form without a size what it is set to.
    pub effective: Option<String>,
}

/// A resource variable that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}={value:?}: expected {expected}")]
pub struct ResourceEnvError {
    /// The variable.
    pub name: String,
    /// Its value.
    pub value: String,
    /// What would be right.
    pub expected: &'static str,
}

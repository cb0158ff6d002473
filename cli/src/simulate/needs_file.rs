//! The part of a cluster file that says what a task needs. The same keys stand in `tasks` and in a machine's `needs`.

use sealtasks::Resources;

use super::reader::{ClusterError, Entry, Section};

/// Thousandths of GPUs that one task may use.
const GPUS_MAX: u64 = 64_000;
/// CPU threads that one task may use.
const THREADS_MAX: u64 = 1_000_000;

/// Takes the keys that are there over into `resources`. The caller finishes the section.
pub fn needs(section: &mut Section<'_>, resources: &mut Resources) -> Result<(), ClusterError> {
    let peak = section.optional("memory_max");
    if let Some(entry) = section.optional("memory_min") {
        resources.min_memory = entry.bytes()?;
        // Where only the lower bound is given, the peak is no less.
        resources.max_memory = resources.max_memory.max(resources.min_memory);
    }
    if let Some(entry) = peak {
        resources.max_memory = entry.bytes()?;
        if resources.max_memory < resources.min_memory {
            return Err(entry.wrong(format!("must be at least memory_min, {} B", resources.min_memory)));
        }
    }
    if let Some(entry) = section.optional("memory_base") {
        resources.base_min_memory = entry.bytes()?;
    }
    if let Some(entry) = section.optional("threads") {
        resources.max_parallelism = threads(&entry)?;
    }
    if let Some(entry) = section.optional("threads_gpu") {
        resources.max_parallelism_gpu = threads(&entry)?;
    }
    if let Some(entry) = section.optional("gpus") {
        resources.gpu_utilization = entry.thousandths(0..=GPUS_MAX)? as f64 / 1000.0;
    }
    if let Some(entry) = section.optional("max_concurrent") {
        resources.max_concurrent = entry.count(0..=u32::MAX.into())?;
    }
    Ok(())
}

/// A number of threads, or "all" for 92 % of the machine's, as Lotus counts.
fn threads(entry: &Entry<'_>) -> Result<i64, ClusterError> {
    if entry.text().is_ok_and(|text| text == "all") {
        return Ok(-1);
    }
    let count = entry.count(0..=THREADS_MAX);
    let count =
        count.map_err(|_| entry.wrong(format!("write \"all\" or a whole number up to {THREADS_MAX}")))?;
    Ok(count as i64)
}

//! `storage list`: every path with its space, its use and what it holds.

use rpc::storage::StoragePathView;

use super::{age, bar, bytes, line, paint, plain};
use crate::exit::Outcome;

const WIDTH: usize = 50;
/// A path that has not reported for this long takes no new files (the index's own rule).
const SILENT_MS: u64 = 50_000;

/// Prints every path, largest first.
pub fn print_storage(paths: &[StoragePathView]) -> Outcome {
    let mut sorted: Vec<&StoragePathView> = paths.iter().collect();
    sorted.sort_by(|a, b| b.capacity.cmp(&a.capacity).then_with(|| a.id.cmp(&b.id)));
    if sorted.is_empty() {
        return line("no storage paths; `sealyard storage attach --init --store DIR` makes one");
    }
    sorted.into_iter().try_for_each(print_path)
}

fn print_path(path: &StoragePathView) -> Outcome {
    line(&format!("{}:", path.id))?;
    if let Some(error) = &path.error {
        line(&format!("        {}", paint::red(&format!("Error: {}", plain(error)))))?;
    }
    let free = path.fs_available.min(path.capacity);
    let of = if path.max_storage > 0 { " (filesystem)" } else { "" };
    line(&use_bar(path.capacity.saturating_sub(free), path.reserved, path.capacity, of))?;
    if path.max_storage > 0 {
        line(&use_bar(path.used, path.reserved, path.max_storage, " (limit)"))?;
    }
    let [unsealed, sealed, cache, update, update_cache, _] = path.files;
    line(&format!(
        "        {}; {}; {}; {}; {}; Reserved: {}",
        paint::yellow(&format!("Unsealed: {unsealed}")),
        paint::green(&format!("Sealed: {sealed}")),
        paint::blue(&format!("Caches: {cache}")),
        paint::green(&format!("Updated: {update}")),
        paint::blue(&format!("Update-caches: {update_cache}")),
        bytes(path.reserved.max(0) as u64)
    ))?;
    line(&format!("        Weight: {}; Use: {}", path.weight, use_of(path)))?;
    for (title, names) in [("Groups", &path.groups), ("AllowTo", &path.allow_to)] {
        if !names.is_empty() {
            line(&format!("        {title}: {}", plain(&names.join(", "))))?;
        }
    }
    if !path.allow_types.is_empty() {
        line(&format!("        Allow Types: {}", paint::green(&path.allow_types.join(" "))))?;
    }
    if !path.deny_types.is_empty() {
        line(&format!("        Deny Types: {}", paint::red(&path.deny_types.join(" "))))?;
    }
    line(&format!("        Workers: {}", plain(&path.workers.join(", "))))?;
    if path.heartbeat_age_ms > SILENT_MS {
        line(&format!("        {}", paint::red(&format!("silent for {}", age(path.heartbeat_age_ms)))))?;
    }
    if let Some(local) = &path.local {
        line(&format!("        Local: {}", paint::green(&plain(local))))?;
    }
    for (url, why) in &path.set_aside {
        let text = format!("set aside: {} ({})", plain(url), plain(why));
        line(&format!("        {}", paint::red(&text)))?;
    }
    for (at, url) in path.urls.iter().enumerate() {
        let latency = path.latency_ms.filter(|_| at == 0);
        let latency = latency.map(|ms| format!(" (latency: {ms:.1}ms)")).unwrap_or_default();
        line(&format!("        URL: {}{latency}", plain(url)))?;
    }
    Ok(())
}

/// One bar of what is used, promised and there.
fn use_bar(used: i64, reserved: i64, total: i64, of: &str) -> String {
    let (used, reserved) = (used.max(0), reserved.max(0));
    let drawn = bar(WIDTH, total as f64, &[(used as f64, '#'), (reserved as f64, '*')]);
    let taken = used.saturating_add(reserved);
    let percent = if total > 0 { taken as f64 / total as f64 * 100.0 } else { 0.0 };
    let text = format!("[{drawn}] {}/{} {percent:.0}%{of}", bytes(taken as u64), bytes(total.max(0) as u64));
    let coloured = match percent {
        over if over > 98.0 => paint::red(&text),
        over if over > 90.0 => paint::yellow(&text),
        _ => paint::green(&text),
    };
    format!("        {coloured}")
}

fn use_of(path: &StoragePathView) -> String {
    let mut uses = Vec::new();
    if path.can_seal {
        uses.push(paint::magenta("Seal"));
    }
    if path.can_store {
        uses.push(paint::cyan("Store"));
    }
    if uses.is_empty() || path.weight == 0 {
        uses.push(paint::yellow("ReadOnly"));
    }
    uses.join(" ")
}

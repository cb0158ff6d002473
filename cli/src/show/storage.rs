//! `storage list` and `storage find`.

use rpc::extension::PathView;
use sealtasks::{FileType, FileTypes, SectorId, SectorNumber};
use serde::Serialize;

use super::{age, bar, bytes, line, paint, plain};
use crate::exit::Outcome;

const WIDTH: usize = 50;
/// A path that has not reported for this long takes no new files (the index's own rule).
const SILENT_MS: u64 = 50_000;

/// Prints every path, largest first.
pub fn print_storage(paths: &[PathView]) -> Outcome {
    let mut sorted: Vec<&PathView> = paths.iter().collect();
    sorted.sort_by(|a, b| b.capacity.cmp(&a.capacity).then_with(|| a.id.cmp(&b.id)));
    if sorted.is_empty() {
        return line("no storage paths; `sealyard storage attach --init --store DIR` makes one");
    }
    for path in sorted {
        print_path(path)?;
    }
    Ok(())
}

fn print_path(path: &PathView) -> Outcome {
    line(&format!("{}:", path.id))?;
    if let Some(error) = &path.error {
        line(&format!("        {}", paint::red(&format!("Error: {error}"))))?;
    }
    let used = path.capacity.saturating_sub(path.available).saturating_sub(path.reserved).max(0) as f64;
    let percent = if path.capacity > 0 {
        (path.capacity - path.available).max(0) as f64 / path.capacity as f64 * 100.0
    } else {
        0.0
    };
    let drawn = bar(WIDTH, path.capacity as f64, &[(used, '#'), (path.reserved as f64, '*')]);
    let taken = path.capacity.saturating_sub(path.available).max(0) as u64;
    let text = format!("[{drawn}] {}/{} {percent:.0}%", bytes(taken), bytes(path.capacity.max(0) as u64));
    let coloured = match percent {
        over if over > 98.0 => paint::red(&text),
        over if over > 90.0 => paint::yellow(&text),
        _ => paint::green(&text),
    };
    line(&format!("        {coloured}"))?;
    let count = |kind: FileType| path.files.iter().filter(|file| file.types.contains(kind)).count();
    line(&format!(
        "        Unsealed: {}; Sealed: {}; Caches: {}; Reserved: {}",
        count(FileType::Unsealed),
        count(FileType::Sealed),
        count(FileType::Cache),
        bytes(path.reserved.max(0) as u64)
    ))?;
    line(&format!("        Weight: {}; Use: {}", path.weight, use_of(path)))?;
    line(&format!("        Workers: {}", plain(&path.workers.join(", "))))?;
    if path.heartbeat_age_ms > SILENT_MS {
        line(&format!("        {}", paint::red(&format!("silent for {}", age(path.heartbeat_age_ms)))))?;
    }
    if let Some(local) = &path.local {
        line(&format!("        Local: {}", paint::green(local)))?;
    }
    for url in &path.urls {
        line(&format!("        URL: {url}"))?;
    }
    Ok(())
}

fn use_of(path: &PathView) -> String {
    let mut uses = Vec::new();
    if path.can_seal {
        uses.push(paint::magenta("Seal"));
    }
    if path.can_store {
        uses.push(paint::cyan("Store"));
    }
    if uses.is_empty() { paint::yellow("ReadOnly") } else { uses.join(" ") }
}

/// One path that holds files of a sector.
#[derive(Debug, Serialize)]
pub struct FoundPath {
    /// The path's id.
    pub path: String,
    /// Whose path it is.
    pub workers: Vec<String>,
    /// Which files are there.
    pub types: Vec<&'static str>,
    /// Which of them are primary.
    pub primary: Vec<&'static str>,
    /// Sealing may use the path.
    pub sealing: bool,
    /// Finished sectors may live there.
    pub storage: bool,
    /// The directory, when it is on the manager's host.
    pub local: Option<String>,
    /// Where each file can be fetched.
    pub urls: Vec<String>,
}

/// The paths that hold files of sector `number`, in the order of their ids.
pub fn find(paths: &[PathView], number: SectorNumber) -> Vec<FoundPath> {
    let mut found: Vec<FoundPath> = paths
        .iter()
        .flat_map(|path| {
            path.files.iter().filter(|f| f.sector.number == number).map(move |file| (path, file))
        })
        .map(|(path, file)| FoundPath {
            path: path.id.to_string(),
            workers: path.workers.clone(),
            types: names(file.types),
            primary: names(file.primary),
            sealing: path.can_seal,
            storage: path.can_store,
            local: path.local.clone(),
            urls: file_urls(path, file.sector, file.types),
        })
        .collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn names(types: FileTypes) -> Vec<&'static str> {
    types.iter().map(FileType::name).collect()
}

fn file_urls(path: &PathView, sector: SectorId, types: FileTypes) -> Vec<String> {
    let one = |url: &String| types.iter().map(|t| format!("{url}/{t}/{sector}")).collect::<Vec<_>>();
    path.urls.iter().flat_map(one).collect()
}

/// Prints where a sector's files are, in Lotus's layout.
pub fn print_find(found: &[FoundPath]) -> Outcome {
    for path in found {
        let titles: Vec<String> = path.types.iter().map(|name| title(name)).collect();
        line(&format!("In {} ({})", path.path, titles.join(", ")))?;
        line(&format!("        Sealing: {}; Storage: {}", path.sealing, path.storage))?;
        let primary = if path.primary.is_empty() { "none".to_owned() } else { path.primary.join(", ") };
        line(&format!("        Worker: {}; Primary: {primary}", plain(&path.workers.join(", "))))?;
        match &path.local {
            Some(local) => line(&format!("        Local ({local})"))?,
            None => line("        Remote")?,
        }
        for url in &path.urls {
            line(&format!("        URL: {url}"))?;
        }
    }
    Ok(())
}

/// `update-cache` becomes `Update-cache`.
fn title(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

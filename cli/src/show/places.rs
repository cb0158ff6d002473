//! `storage find`: where a sector's files are.

use rpc::extension::{JobView, PathView};
use rpc::storage::{LockHolder, OlderCopy, SectorPlaces};
use sealtasks::{FileType, FileTypes, SectorId, SectorNumber};
use serde::Serialize;

use super::{line, paint, plain};
use crate::exit::Outcome;

/// `storage find --json`: a sector and where its files are.
#[derive(Debug, Serialize)]
pub struct FoundSector {
    /// The sector.
    pub sector: SectorId,
    /// Its state; `None` = the manager has no record of it.
    pub state: Option<String>,
    /// It is a rehearsal's: its files are empty.
    pub rehearsal: bool,
    /// The paths that hold files of it.
    pub places: Vec<FoundPath>,
    /// File types of which more than one path claims the primary copy.
    pub conflicts: Vec<&'static str>,
    /// Its tasks that wait or run.
    pub under_way: Vec<JobView>,
    /// Who holds locks on it.
    pub locks: Vec<LockHolder>,
    /// Copies that are older than others and listed in no place.
    pub older: Vec<OlderCopy>,
}

impl From<SectorPlaces> for FoundSector {
    fn from(told: SectorPlaces) -> Self {
        let sector = told.sector;
        let place = |place: rpc::storage::Place| FoundPath {
            copies: names(place.types.difference(place.primary)),
            remote: place.local.is_none(),
            unconfirmed: names(place.unconfirmed),
            workers: place.workers,
            types: names(place.types),
            primary: names(place.primary),
            sealing: place.can_seal,
            storage: place.can_store,
            local: place.local,
            urls: file_urls(&place.urls, sector, place.types),
            path: place.path.to_string(),
        };
        Self {
            sector,
            state: told.state,
            rehearsal: told.rehearsal,
            places: told.places.into_iter().map(place).collect(),
            conflicts: names(told.conflicts),
            under_way: told.under_way,
            locks: told.locks,
            older: told.older,
        }
    }
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
    /// Which of them are copies that do not count.
    pub copies: Vec<&'static str>,
    /// Which files were there when the manager last ran, and nobody has declared since.
    pub unconfirmed: Vec<&'static str>,
    /// Sealing may use the path.
    pub sealing: bool,
    /// Finished sectors may live there.
    pub storage: bool,
    /// Whether another process than the manager has the path open.
    pub remote: bool,
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
            unconfirmed: Vec::new(),
            workers: path.workers.clone(),
            types: names(file.types),
            primary: names(file.primary),
            copies: names(file.types.difference(file.primary)),
            sealing: path.can_seal,
            storage: path.can_store,
            remote: path.local.is_none(),
            local: path.local.clone(),
            urls: file_urls(&path.urls, file.sector, file.types),
        })
        .collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn names(types: FileTypes) -> Vec<&'static str> {
    types.iter().map(FileType::name).collect()
}

fn file_urls(urls: &[String], sector: SectorId, types: FileTypes) -> Vec<String> {
    let one = |url: &String| types.iter().map(|t| format!("{url}/{t}/{sector}")).collect::<Vec<_>>();
    urls.iter().flat_map(one).collect()
}

/// Prints where a sector's files are, in Lotus's layout.
pub fn print_find(found: &[FoundPath]) -> Outcome {
    for path in found {
        let titles: Vec<String> = path.types.iter().map(|name| title(name)).collect();
        line(&format!("In {} ({})", path.path, titles.join(", ")))?;
        line(&format!("        Sealing: {}; Storage: {}", path.sealing, path.storage))?;
        let primary = if path.primary.is_empty() { "none".to_owned() } else { path.primary.join(", ") };
        let copies = if path.copies.is_empty() {
            String::new()
        } else {
            format!("; Copy: {}", path.copies.join(", "))
        };
        line(&format!("        Worker: {}; Primary: {primary}{copies}", plain(&path.workers.join(", "))))?;
        if !path.unconfirmed.is_empty() {
            let types = path.unconfirmed.join(", ");
            line(&format!(
                "        {}",
                paint::yellow(&format!("Unconfirmed since the manager's start: {types}"))
            ))?;
        }
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

/// What else is to be known of the sector: two primary copies, and what is being done.
pub fn print_around(found: &FoundSector) -> Outcome {
    if !found.conflicts.is_empty() {
        let types = found.conflicts.join(", ");
        let text = format!("Conflict: more than one path claims the primary copy of {types}");
        line(&paint::red(&text))?;
    }
    print_older(&found.older)?;
    for job in &found.under_way {
        let place = job.worker.as_deref().map(|name| format!(" on {}", plain(name))).unwrap_or_default();
        let reason = if job.reason.is_empty() { String::new() } else { format!(": {}", plain(&job.reason)) };
        line(&format!("Under way: {} {}{place}{reason}", job.task, job.state))?;
    }
    for lock in &found.locks {
        line(&format!(
            "Locked: {} by {} for {}",
            super::lock_words(lock),
            plain(&lock.owner),
            plain(&lock.reason)
        ))?;
    }
    Ok(())
}

/// Older copies, each with its path and what is to be done about it.
pub fn print_older(older: &[OlderCopy]) -> Outcome {
    for copy in older {
        let host = if copy.workers.is_empty() { "nobody".to_owned() } else { copy.workers.join(", ") };
        line(&paint::yellow(&format!(
            "Older copy: {} in {}, served by {}: {}",
            names(copy.types).join(", "),
            copy.path,
            plain(&host),
            plain(&copy.remedy)
        )))?;
    }
    Ok(())
}

/// `update-cache` becomes `Update-cache`.
fn title(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

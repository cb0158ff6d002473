//! Housekeeping: what lies in the open paths and should not, and deleting what is offered of it.
//!
//! A finding is offered only where nothing can be lost by it: what never was whole, what was on its way out, and copies
//! beside which another primary one is declared and was confirmed. Foreign entries are shown and never offered.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sealtasks::{
    CleanedEntry, FileType, FileTypes, Finding, Matter, PathSurvey, SectorId, SectorStorageInfo, StorageId,
};

use super::exact::Leaving;
use super::removal::stands_for;
use super::{Local, LocalPath, OPEN_DEADLINE};
use crate::care::copy_of;
use crate::disk;
use crate::error::StoreError;
use crate::fetch::arriving::Arriving;
use crate::identity;
use crate::index::CopyKind;
use crate::kept::Kept;
use crate::layout;
use crate::space::FileKey;

/// A transfer whose newest byte is older than this has no sender any more: both ends try again within minutes.
const PARTIAL_ABANDONED: Duration = Duration::from_secs(3600);
/// Findings of one path that are told; further ones wait for the next survey.
pub const FINDINGS_MAX: usize = 10_000;

impl Local {
    /// What lies in the open paths and should not. A path that cannot be looked at does not hide the others' findings.
    pub async fn survey(&self) -> Vec<PathSurvey> {
        let surveys = self.paths().into_iter().map(|path| async move {
            let (id, dir) = (path.id.clone(), path.dir.clone());
            let (findings, error) = match self.survey_one(&path).await {
                Ok(findings) => (findings, None),
                Err(error) => (Vec::new(), Some(super::chain(&error))),
            };
            PathSurvey { id, dir, error, findings }
        });
        futures_util::future::join_all(surveys).await
    }

    async fn survey_one(&self, path: &LocalPath) -> Result<Vec<Finding>, StoreError> {
        let dir = path.dir.clone();
        let (kept, id) = (self.kept.clone(), path.id.clone());
        let look = move || {
            let scan = layout::scan(&dir)?;
            let mut found = oddities(&dir, &scan);
            found.extend(kept_from_deletion(&dir, &id, &kept));
            Ok((found, scan.files))
        };
        let open = self.path(&path.id)?;
        let (mut findings, on_disk) = open.look(OPEN_DEADLINE, "surveying a storage path", look).await?;
        let known: std::collections::BTreeMap<SectorId, FileTypes> =
            self.index.files(&path.id).await?.into_iter().map(|decl| (decl.sector, decl.types)).collect();
        for decl in on_disk {
            let unknown = decl.types.difference(known.get(&decl.sector).copied().unwrap_or_default());
            for kind in unknown.iter().filter(|kind| !self.is_made(&path.id, decl.sector, *kind)) {
                if findings.len() < FINDINGS_MAX {
                    findings.push(self.unlisted(path, decl.sector, kind).await?);
                }
            }
        }
        for one in findings.iter_mut().filter(|one| one.matter == Matter::Replaced) {
            let Some((sector, kind)) = one.file else { continue };
            let holders = self.index.find(sector, kind.into(), None).await?;
            (one.offered, one.reason) = match holders.iter().find(|holder| holder.primary) {
                Some(holder) => {
                    let by =
                        format!("another file took its place; the primary copy is in path {}", holder.id);
                    (true, by)
                }
                None => (false, "another file took its place, and no primary copy is declared".to_owned()),
            };
        }
        findings.sort_by(|one, other| one.entry.cmp(&other.entry));
        findings.truncate(FINDINGS_MAX);
        Ok(findings)
    }

    /// A whole file that the index does not list here.
    async fn unlisted(
        &self,
        path: &LocalPath,
        sector: SectorId,
        kind: FileType,
    ) -> Result<Finding, StoreError> {
        let entry = layout::file(&path.dir, sector, kind);
        let elsewhere = self.index.find(sector, kind.into(), None).await?;
        let other = elsewhere.iter().find(|holder| holder.primary && holder.id != path.id);
        let (offered, reason) = match other {
            Some(holder) => (true, format!("the primary copy is in path {}", holder.id)),
            None => (
                false,
                format!("it may be the only copy; `sealyard storage redeclare --id {}` lists it", path.id),
            ),
        };
        let file = Some((sector, kind));
        Ok(finding(entry, Matter::NotInIndex, file, offered, reason))
    }

    /// Deletes `entries`, each only if a survey taken now finds it and offers it. A primary copy elsewhere cannot be asked for
    /// here and counts for nothing: see [`crate::Remote::carry_out`]. Those in `old` are older copies of files that tasks have
    /// changed since, and need not be matched file by file.
    pub async fn clean_up(&self, entries: &[PathBuf], old: &[PathBuf]) -> Vec<CleanedEntry> {
        let alone = |entry: &PathBuf| Vouched { entry: entry.clone(), copy: copy_of(entry, old), twin: None };
        self.clean_up_vouched(&entries.iter().map(alone).collect::<Vec<_>>()).await
    }

    /// The same where primary copies elsewhere were asked for.
    pub(crate) async fn clean_up_vouched(&self, entries: &[Vouched]) -> Vec<CleanedEntry> {
        let offered: Vec<Finding> =
            self.survey().await.into_iter().flat_map(|survey| survey.findings).collect();
        let mut cleaned = Vec::new();
        for vouched in entries {
            let entry = &vouched.entry;
            let kept = match offered.iter().find(|finding| finding.entry == *entry) {
                None => Some("it is no finding of this process any more".to_owned()),
                Some(finding) if !finding.offered => Some(finding.reason.clone()),
                Some(finding) => {
                    self.clean_one(finding, Some(vouched)).await.err().map(|error| super::chain(&error))
                }
            };
            let freed = offered.iter().find(|finding| finding.entry == *entry && kept.is_none());
            let bytes = freed.map_or(0, |finding| finding.bytes);
            cleaned.push(CleanedEntry { entry: entry.clone(), bytes, kept });
        }
        for path in self.paths() {
            self.touched(&path.id);
        }
        cleaned
    }

    async fn clean_one(&self, finding: &Finding, vouched: Option<&Vouched>) -> Result<(), StoreError> {
        let entry = finding.entry.clone();
        match (finding.matter, finding.file) {
            // Whoever waits for a turn to go on with it has claimed it, however old it is.
            (Matter::PartialFetch, Some((sector, kind))) if !layout::is_lotus_arriving(&entry) => {
                let Some(dir) = entry.ancestors().nth(3).map(Path::to_owned) else { return Ok(()) };
                blocking(move || clean_partial(&dir, &entry, (sector, kind))).await
            }
            (Matter::Replaced, Some(file)) => {
                let turn = self.removing.lock().await;
                let holders = self.index.find(file.0, file.1.into(), None).await?;
                self.check_other(&entry, file, &holders, vouched).await?;
                // No deletion counts on this one, so that none need wait for it: its disk may hang.
                drop(turn);
                tracing::info!(?entry, "a file whose place another one took is cleaned up");
                blocking(move || disk::remove(&entry)).await
            }
            (Matter::PartialFetch | Matter::PartialRemoval | Matter::Temporary, _) => {
                tracing::info!(?entry, matter = finding.matter.words(), "cleaned up");
                blocking(move || disk::remove(&entry)).await
            }
            (Matter::NotInIndex, Some(file)) => self.remove_unlisted(&entry, file, vouched).await,
            (_, file) => {
                let (sector, kind) = file.unwrap_or((SectorId::new(0, 0), FileType::Unsealed));
                Err(StoreError::LastCopy { sector, kind, why: finding.reason.clone() })
            }
        }
    }

    /// A primary copy must be declared: one in a path of ours that is another file and makes up for `entry`, or the one that
    /// was found to do so.
    async fn check_other(
        &self,
        entry: &Path,
        (sector, kind): FileKey,
        holders: &[SectorStorageInfo],
        vouched: Option<&Vouched>,
    ) -> Result<(), StoreError> {
        let (copy, twin) = vouched.map_or((CopyKind::Primary, None), |one| (one.copy, one.twin.as_ref()));
        let mut why = "no primary copy is declared that truly is there".to_owned();
        for holder in holders.iter().filter(|holder| holder.primary) {
            let Ok(dir) = self.dir(&holder.id) else {
                if twin == Some(&holder.id) {
                    return Ok(());
                }
                continue;
            };
            let (file, entry) = (layout::file(&dir, sector, kind), entry.to_owned());
            let at = file.clone();
            let look = move || stands_for(&file, &entry, copy);
            match self.look(&at, "looking at a copy", look).await? {
                None => return Ok(()),
                Some(wrong) => why = format!("the copy in path {} {wrong}", holder.id),
            }
        }
        Err(StoreError::LastCopy { sector, kind, why })
    }

    /// Asks the index once more, with deletions shut out: another process may just have counted on this copy.
    async fn remove_unlisted(
        &self,
        entry: &Path,
        (sector, kind): FileKey,
        vouched: Option<&Vouched>,
    ) -> Result<(), StoreError> {
        let turn = self.removing.lock().await;
        let holders = self.index.find(sector, kind.into(), None).await?;
        let here = self.paths().into_iter().find(|path| layout::file(&path.dir, sector, kind) == entry);
        let Some(path) = here else { return Err(StoreError::NotAttached { path: entry.to_owned() }) };
        if holders.iter().any(|holder| holder.id == path.id) {
            let why = "the index lists it by now".to_owned();
            return Err(StoreError::LastCopy { sector, kind, why });
        }
        if self.is_made(&path.id, sector, kind) {
            let why = "a task is just making it".to_owned();
            return Err(StoreError::LastCopy { sector, kind, why });
        }
        let at = entry.to_owned();
        let found = self.look(entry, "looking at an unlisted copy", move || identity::look(&at)).await?;
        self.check_other(entry, (sector, kind), &holders, vouched).await?;
        tracing::info!(%sector, %kind, ?entry, "an unlisted copy is deleted");
        // No scan declares it while it goes, and no deletion, which could not count on it, waits for a disk that hangs.
        let _leaving = self.making(sector, &[(kind, path.id.clone())]);
        drop(turn);
        // Not what a fetch may have put there meanwhile.
        let leaving = Leaving::of(&path.dir, sector, kind);
        blocking(move || leaving.delete_exactly(&found.etag)).await?;
        self.forget_older(&path.id, sector, kind, entry).await
    }

    /// What a scan may delete without being asked: removals and writes that did not end, and transfers that nobody has
    /// gone on with for a day. Returns how many entries went.
    pub async fn tidy(&self) -> usize {
        let day = Duration::from_secs(24 * 3600).as_secs();
        let dead = |finding: &Finding| match finding.matter {
            Matter::PartialRemoval | Matter::Temporary => finding.offered,
            Matter::PartialFetch => finding.offered && finding.age_s >= day,
            Matter::NotInIndex
            | Matter::Replaced
            | Matter::KeptFromDeletion
            | Matter::RemovedSector
            | Matter::Foreign => false,
        };
        let mut gone = 0;
        for finding in self.survey().await.into_iter().flat_map(|survey| survey.findings).filter(dead) {
            match self.clean_one(&finding, None).await {
                Ok(()) => gone += 1,
                Err(error) => {
                    tracing::warn!(entry = ?finding.entry, error = super::chain(&error), "not cleaned up")
                }
            }
        }
        gone
    }
}

/// An entry that may be cleaned up, and the path of the primary copy that was found to have all of it, if one had to be.
pub(crate) struct Vouched {
    pub(crate) entry: PathBuf,
    /// How closely it must be matched.
    pub(crate) copy: CopyKind,
    pub(crate) twin: Option<StorageId>,
}

/// Looked at once more, now that nobody goes on with it: all of it may have come since, or its source may still be to be
/// deleted.
fn clean_partial(dir: &Path, entry: &Path, (sector, kind): FileKey) -> Result<(), StoreError> {
    let Some(place) = Arriving::left(dir, sector, kind)? else { return disk::remove(entry) };
    if Arriving::is_whole(entry) || Arriving::is_debt(entry, Duration::MAX) {
        let why = "a fetch has ended there meanwhile".to_owned();
        return Err(StoreError::LastCopy { sector, kind, why });
    }
    tracing::info!(?entry, "what a fetch left is cleaned up");
    place.discard();
    disk::remove(entry)
}

/// Between two scans.
const TIDY_PERIOD: Duration = Duration::from_secs(24 * 3600);

impl Local {
    /// Scans the open paths now and daily, until dropped: deletes what [`Local::tidy`] may, and says how much of the rest
    /// there is.
    pub async fn keep_tidy(&self) {
        let mut daily = tokio::time::interval(TIDY_PERIOD);
        loop {
            daily.tick().await;
            let gone = self.tidy().await;
            let surveys = self.survey().await;
            let left: Vec<_> = surveys.iter().flat_map(|survey| &survey.findings).collect();
            let bytes = left.iter().map(|finding| finding.bytes).fold(0, u64::saturating_add);
            if gone + left.len() > 0 {
                let found = left.len();
                tracing::info!(
                    gone,
                    found,
                    bytes,
                    "storage paths were scanned; `sealyard storage cleanup` lists what is left"
                );
            }
        }
    }
}

/// What a scan of one path found besides sector files.
fn oddities(dir: &Path, scan: &layout::Scan) -> Vec<Finding> {
    // What is owed at the end of a move is looked after elsewhere.
    let partial = scan.partial.iter().filter(|entry| !Arriving::is_debt(entry, Duration::MAX)).map(|entry| {
        let mut found =
            finding(entry.clone(), Matter::PartialFetch, layout::named(entry), true, String::new());
        let whole = Arriving::is_whole(entry);
        found.offered = !whole && found.age_s >= PARTIAL_ABANDONED.as_secs();
        found.reason = if whole {
            "all of it came, and nobody was told; it may be the only copy, and the next fetch goes on with it"
                .to_owned()
        } else if found.offered {
            "nobody has written to it for an hour".to_owned()
        } else {
            "a transfer may be under way".to_owned()
        };
        found
    });
    let removed = scan.removed.iter().map(|entry| {
        let reason = "its deletion had been decided".to_owned();
        finding(entry.clone(), Matter::PartialRemoval, layout::named(entry), true, reason)
    });
    let foreign = scan.foreign.iter().map(|entry| {
        finding(
            entry.clone(),
            Matter::Foreign,
            None,
            false,
            "no file of a sector; not ours to delete".to_owned(),
        )
    });
    let replaced = scan
        .replaced
        .iter()
        .map(|entry| finding(entry.clone(), Matter::Replaced, layout::named(entry), false, String::new()));
    let temporary = layout::temporaries(dir).into_iter().map(|entry| {
        finding(
            entry,
            Matter::Temporary,
            None,
            true,
            "a write to this path's settings did not end".to_owned(),
        )
    });
    partial.chain(removed).chain(replaced).chain(foreign).chain(temporary).collect()
}

/// Files of this path that peers asked to be deleted. Those that are gone are forgotten.
fn kept_from_deletion(dir: &Path, id: &StorageId, kept: &Kept) -> Vec<Finding> {
    let mut found = Vec::new();
    for one in kept.list().into_iter().filter(|one| one.path == *id) {
        let entry = layout::file(dir, one.sector, one.kind);
        if entry.exists() {
            let ago = one.asked.elapsed().unwrap_or_default().as_secs();
            let reason = format!("a peer asked {ago} s ago to delete it; {}", one.why);
            let file = Some((one.sector, one.kind));
            found.push(finding(entry, Matter::KeptFromDeletion, file, false, reason));
        } else {
            kept.forget(id, one.sector, one.kind);
        }
    }
    found
}

fn finding(
    entry: PathBuf,
    matter: Matter,
    file: Option<(SectorId, FileType)>,
    offered: bool,
    reason: String,
) -> Finding {
    let bytes = disk::usage(&entry).unwrap_or(0);
    let age_s = newest(&entry).map_or(0, |at| at.elapsed().unwrap_or_default().as_secs());
    Finding { entry, matter, file, bytes, age_s, offered, reason }
}

/// When an entry, or anything directly in it, last changed.
pub(super) fn newest(entry: &Path) -> Option<SystemTime> {
    let changed = |path: &Path| fs::symlink_metadata(path).and_then(|found| found.modified()).ok();
    let inside = fs::read_dir(entry).into_iter().flatten().flatten().filter_map(|one| changed(&one.path()));
    inside.chain(changed(entry)).max()
}

async fn blocking(job: impl FnOnce() -> Result<(), StoreError> + Send + 'static) -> Result<(), StoreError> {
    tokio::task::spawn_blocking(job).await.unwrap_or(Err(StoreError::Lost { what: "cleaning up" }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::arriving::Arrived;

    /// Between the survey and the deletion a fetch may have gone on with it to its end.
    #[test]
    fn what_has_come_whole_since_it_was_found_is_not_cleaned_up() {
        let dir = tempfile::tempdir().expect("a directory");
        let (sector, kind) = (SectorId::new(1000, 1), FileType::Sealed);
        let entry = layout::arriving(dir.path(), sector, kind);
        let place = Arriving::claim(dir.path(), sector, kind).expect("free");
        fs::write(place.data(), "whole").expect("written");
        let noted = Arrived {
            holder: "a".to_owned(),
            url: "http://a/remote".to_owned(),
            files: vec![(String::new(), 5)],
            etag: None,
            moves: true,
            declared: false,
        };
        place.set_arrived(&noted).expect("noted");
        let data = place.data();
        drop(place);
        clean_partial(dir.path(), &entry, (sector, kind)).expect_err("it is whole");
        assert_eq!(fs::read(&data).expect("there"), b"whole");
        // The deletion of its source is still owed.
        fs::remove_file(&data).expect("put in its place");
        clean_partial(dir.path(), &entry, (sector, kind)).expect_err("a debt");
        assert!(entry.join("arrived.json").exists());
        fs::write(&data, "half").expect("written");
        clean_partial(dir.path(), &entry, (sector, kind)).expect("a remainder");
        assert!(!entry.exists());
    }
}

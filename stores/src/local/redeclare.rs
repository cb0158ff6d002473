//! What declaring a path again would change, told before anything is done.
//!
//! Reads the disk and asks the index; changes neither, but for type directories that are missing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sealtasks::{FileType, FileTypes, SectorDecl, SectorId, StorageId};

use super::{Contents, Local, LocalPath, OPEN_DEADLINE, Scan};
use crate::error::StoreError;
use crate::index::IndexError;
use crate::layout;

/// The difference between a path's disk and what the index knows of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedeclareDiff {
    /// Files on the disk that the index does not know: they would be declared. By sector.
    pub declared: Vec<SectorDecl>,
    /// Files that the index knows and the disk does not have: with `drop_missing` they would be dropped. By sector.
    pub dropped: Vec<SectorDecl>,
    /// Sectors whose files are known as they lie.
    pub unchanged: usize,
    /// Whether the files that would be declared are primary copies: the path is one for storing. In another one those are
    /// that were moved there and whose sources may not be deleted yet.
    pub primary: bool,
    /// Entries that are no sector files; left alone.
    pub foreign: Vec<PathBuf>,
    /// Leftovers of interrupted fetches; left alone.
    pub partial: Vec<PathBuf>,
}

impl RedeclareDiff {
    /// Whether declaring the path again, `drop_missing` included, would change nothing in the index.
    pub fn is_empty(&self) -> bool {
        self.declared.is_empty() && self.dropped.is_empty()
    }
}

impl Local {
    /// What [`Local::redeclare`] would do, to all open paths or to one. Files may come and go before it is done.
    ///
    /// # Errors
    /// When the path is not open, its file is damaged, it hangs, or the index refuses.
    pub async fn redeclare_diff(
        &self,
        id: Option<&StorageId>,
    ) -> Result<Vec<(StorageId, RedeclareDiff)>, StoreError> {
        let mut diffs = Vec::new();
        for path in self.paths().into_iter().filter(|path| id.is_none_or(|id| *id == path.id)) {
            diffs.push((path.id.clone(), self.diff_of(&path).await?));
        }
        match id {
            Some(id) if diffs.is_empty() => Err(StoreError::NotOpen { id: id.clone() }),
            _ => Ok(diffs),
        }
    }

    /// Files that were fetched to this path but never declared, so that their sources still stand for them, and may have
    /// changed since. They are not declared from the disk: whoever next wants them here asks the source. One of which no
    /// other copy is known stands for itself.
    ///
    /// # Errors
    /// When the index does not answer.
    pub(super) async fn untold(
        &self,
        id: &StorageId,
        scan: &Scan,
    ) -> Result<BTreeMap<SectorId, FileTypes>, StoreError> {
        let mut untold: BTreeMap<SectorId, FileTypes> = BTreeMap::new();
        for (sector, kind) in &scan.untold {
            let stands_elsewhere = match self.index.find(*sector, (*kind).into(), None).await {
                // It is being made again somewhere, and its source may have come back.
                Err(IndexError::Kept { .. }) => true,
                holders => {
                    let holders = holders?;
                    !holders.is_empty() && !holders.iter().any(|holder| holder.id == *id)
                }
            };
            if stands_elsewhere {
                tracing::warn!(path = %id, %sector, %kind, "fetched, but never declared: its source still stands for it");
                let of = untold.entry(*sector).or_default();
                *of = *of | (*kind).into();
            }
        }
        Ok(untold)
    }

    async fn diff_of(&self, path: &LocalPath) -> Result<RedeclareDiff, StoreError> {
        let open = self.path(&path.id)?;
        let Contents { stanza, scan, .. } = self.read_again(&open).await?;
        let known: BTreeMap<SectorId, FileTypes> =
            self.index.files(&path.id).await?.into_iter().map(pair).collect();
        let there: BTreeMap<SectorId, FileTypes> = scan.files.iter().copied().map(pair).collect();
        let untold = self.untold(&path.id, &scan).await?;
        let declared = missing_in(&untold, &missing_in(&known, &there).into_iter().map(pair).collect());
        let (dir, missing) = (path.dir.clone(), missing_in(&there, &known));
        let look = move || Ok(without_unsure(&dir, missing));
        let dropped = open.look(OPEN_DEADLINE, "looking for missing files", look).await?;
        let same = |(sector, types): &(&SectorId, &FileTypes)| known.get(sector) == Some(types);
        Ok(RedeclareDiff {
            unchanged: there.iter().filter(same).count(),
            primary: stanza.can_store,
            foreign: scan.foreign,
            partial: scan.partial,
            declared,
            dropped,
        })
    }
}

/// Those of which the disk says that they are not there; of the others nobody knows, and they are not dropped.
fn without_unsure(dir: &Path, missing: Vec<SectorDecl>) -> Vec<SectorDecl> {
    let gone = |sector: SectorId, kind: &FileType| {
        layout::file(dir, sector, *kind).try_exists().is_ok_and(|there| !there)
    };
    let sure = |decl: SectorDecl| SectorDecl {
        types: decl.types.iter().filter(|kind| gone(decl.sector, kind)).collect(),
        ..decl
    };
    missing.into_iter().map(sure).filter(|decl| !decl.types.is_empty()).collect()
}

fn pair(decl: SectorDecl) -> (SectorId, FileTypes) {
    (decl.sector, decl.types)
}

/// The files of `all` that are not in `known`.
fn missing_in(known: &BTreeMap<SectorId, FileTypes>, all: &BTreeMap<SectorId, FileTypes>) -> Vec<SectorDecl> {
    let rest = |(sector, types): (&SectorId, &FileTypes)| SectorDecl {
        sector: *sector,
        types: types.difference(known.get(sector).copied().unwrap_or_default()),
    };
    all.iter().map(rest).filter(|decl| !decl.types.is_empty()).collect()
}

//! Copies that are older than what a later attempt has made of them elsewhere. They lie on disk, and nobody is to take one
//! for the file: they are listed nowhere as long as another copy is known, whatever scans find.
//!
//! Few at any time, and most indexes have none: whoever declares looks here only where there is one.

use std::collections::{BTreeMap, BTreeSet};

use sealtasks::{FileType, FileTypes, SectorDecl, SectorId, SectorStorageInfo, StorageId};

use super::held::Kind;
use super::table::Table;
use super::{IndexChange, MemIndex};
use crate::index::IndexError;

/// Which they are, by sector.
#[derive(Default)]
pub(super) struct Superseded {
    copies: BTreeMap<SectorId, BTreeSet<(FileType, StorageId)>>,
    /// Counts changes.
    changes: u64,
}

impl Superseded {
    pub(super) fn is_empty(&self) -> bool {
        self.copies.is_empty()
    }

    fn of(&self, sector: SectorId) -> impl Iterator<Item = &(FileType, StorageId)> {
        self.copies.get(&sector).into_iter().flatten()
    }

    fn types(&self, id: &StorageId, sector: SectorId) -> FileTypes {
        self.of(sector).filter(|(_, path)| path == id).map(|(kind, _)| *kind).collect()
    }

    fn add(&mut self, id: &StorageId, sector: SectorId, types: FileTypes) {
        let copies = self.copies.entry(sector).or_default();
        let fresh = types.iter().filter(|kind| copies.insert((*kind, id.clone()))).count();
        self.changes += fresh as u64;
    }

    pub(super) fn take(&mut self, id: &StorageId, sector: SectorId, types: FileTypes) {
        let Some(copies) = self.copies.get_mut(&sector) else { return };
        let before = copies.len();
        copies.retain(|(kind, path)| path != id || !types.contains(*kind));
        self.changes += (before - copies.len()) as u64;
        if copies.is_empty() {
            self.copies.remove(&sector);
        }
    }
}

impl Table {
    /// What of these files is to be listed in a path. One that was just brought or made there is no older copy any more; one
    /// that a scan found, or a snapshot tells of, is none as long as nobody else has the file.
    pub(super) fn listable(
        &mut self,
        id: &StorageId,
        files: &[(SectorDecl, Kind)],
    ) -> Vec<(SectorDecl, Kind)> {
        let mut listable = Vec::with_capacity(files.len());
        for (decl, kind) in files {
            let old = self.superseded.types(id, decl.sector).intersection(decl.types);
            let hidden = match kind {
                Kind::Declared { .. } => {
                    self.superseded.take(id, decl.sector, old);
                    FileTypes::NONE
                }
                Kind::Found { .. } | Kind::Restored { .. } => {
                    old.iter().filter(|one| self.is_elsewhere(id, decl.sector, *one)).collect()
                }
            };
            let types = decl.types.difference(hidden);
            if !types.is_empty() {
                listable.push((SectorDecl { types, ..*decl }, *kind));
            }
        }
        listable
    }

    /// Takes older copies out again that were listed for want of another one, now that these are known.
    pub(super) fn hide_older(&mut self, id: &StorageId, files: &[(SectorDecl, Kind)]) {
        for (decl, _) in files {
            let newer = decl.types.difference(self.superseded.types(id, decl.sector));
            let older =
                self.superseded.of(decl.sector).filter(|(kind, path)| newer.contains(*kind) && path != id);
            for (kind, path) in older.cloned().collect::<Vec<_>>() {
                // A path that is not attached lists nothing.
                let _ = self.take_out(&path, decl.sector, kind.into());
            }
        }
    }

    fn is_elsewhere(&self, id: &StorageId, sector: SectorId, kind: FileType) -> bool {
        let here = |path: &StorageId| path == id || self.superseded.types(path, sector).contains(kind);
        self.held(sector).any(|(held, path)| held.any().contains(kind) && !here(&path.info.id))
    }
}

impl MemIndex {
    /// Takes copies out of the index that are older than what another path has of the file: no scan lists them again as long
    /// as another one is known. A path that is not attached may have some, too.
    pub fn supersede_copies(&self, id: &StorageId, sector: SectorId, types: FileTypes) {
        let mut table = self.write();
        // A path that is not attached lists nothing. What a rebuild has not made is no older copy of what it makes.
        if matches!(table.take_out(id, sector, types), Err(IndexError::Kept { .. })) {
            return;
        }
        table.superseded.add(id, sector, types);
        self.content_changed(|| IndexChange::Files { id: id.clone(), sectors: vec![sector] });
    }

    /// The older copies of a sector's files in a path.
    pub fn superseded_in(&self, id: &StorageId, sector: SectorId) -> FileTypes {
        self.read().superseded.types(id, sector)
    }

    /// The older copies of a file that are listed nowhere, in paths that somebody has attached.
    pub fn older_copies(&self, sector: SectorId, kind: FileType) -> Vec<SectorStorageInfo> {
        let table = self.read();
        let unlisted = |(_, id): &(FileType, StorageId)| {
            let listed = table.held(sector).any(|(held, at)| at.info.id == *id && held.any().contains(kind));
            let (_, path) = table.path(id).filter(|(_, path)| path.confirmed && !listed)?;
            Some(path.place(sector, kind.into()))
        };
        table.superseded.of(sector).filter(|(one, _)| *one == kind).filter_map(unlisted).collect()
    }

    /// A sector's older copies that are listed nowhere, by path, attached or not.
    pub fn older_of(&self, sector: SectorId) -> BTreeMap<StorageId, FileTypes> {
        let table = self.read();
        let mut older: BTreeMap<StorageId, FileTypes> = BTreeMap::new();
        for (kind, id) in table.superseded.of(sector) {
            if !table.held(sector).any(|(held, at)| at.info.id == *id && held.any().contains(*kind)) {
                let types = older.entry(id.clone()).or_default();
                *types = *types | (*kind).into();
            }
        }
        older
    }

    /// Older copies in attached paths of files that nobody else has, as far as is known or remembered: they are listed as soon as
    /// their paths are scanned.
    pub fn stranded(&self) -> Vec<(SectorId, FileType, StorageId)> {
        let table = self.read();
        let is_stranded = |sector: SectorId, kind: FileType, id: &StorageId| {
            table.path(id).is_some_and(|(_, path)| path.confirmed)
                && !table.held(sector).any(|(held, _)| held.any().contains(kind))
        };
        let mut stranded = Vec::new();
        for (sector, copies) in &table.superseded.copies {
            let of_sector = copies.iter().filter(|(kind, id)| is_stranded(*sector, *kind, id));
            stranded.extend(of_sector.map(|(kind, id)| (*sector, *kind, id.clone())));
        }
        stranded
    }

    /// All older copies, and how often there was a change of them.
    pub fn superseded(&self) -> (u64, Vec<(SectorId, FileType, StorageId)>) {
        let table = self.read();
        let of_sector = |(sector, copies): (&SectorId, &BTreeSet<(FileType, StorageId)>)| {
            let sector = *sector;
            copies.iter().map(move |(kind, path)| (sector, *kind, path.clone())).collect::<Vec<_>>()
        };
        (table.superseded.changes, table.superseded.copies.iter().flat_map(of_sector).collect())
    }

    /// How often there was a change of older copies.
    pub fn superseded_changes(&self) -> u64 {
        self.read().superseded.changes
    }
}

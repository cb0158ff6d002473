//! What the index tells those who share its process, beyond what it tells everyone.

use std::collections::BTreeMap;

use sealtasks::{
    FileTypes, FsStat, SectorDecl, SectorId, SectorSize, SectorStorageInfo, StorageId, StorageInfo,
};
use serde::{Deserialize, Serialize};

use super::held::{Held, Kind};
use super::path::PathSlot;
use super::table::Table;
use super::{IndexChange, MemIndex};
use crate::index::IndexError;

/// A path as the index sees it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathView {
    /// What was attached: id, URLs, settings.
    pub info: StorageInfo,
    /// The last reported fullness.
    pub stat: FsStat,
    /// Milliseconds since the last heartbeat.
    pub heartbeat_age_ms: u64,
    /// What the last heartbeat said is wrong, if anything.
    pub error: Option<String>,
    /// Whether new files may be sent there as far as health goes.
    pub healthy: bool,
    /// How many sectors have files there.
    pub sectors: usize,
    /// Whether it was attached since the index was made; else it is only remembered.
    pub confirmed: bool,
    /// While its owner declares what lies there: milliseconds since it last did; `None` = that is done. Owners that follow
    /// Lotus never say that it is.
    pub declaring_ms: Option<u64>,
    /// Its URLs that failed when they were last asked.
    pub troubles: Vec<UrlTrouble>,
}

/// The files of one sector in one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldFiles {
    /// The path.
    pub id: StorageId,
    /// What was declared to lie there.
    pub types: FileTypes,
    /// Which of them are primary copies.
    pub primary: FileTypes,
    /// What a snapshot said to lie there and nobody has declared since.
    pub unconfirmed: FileTypes,
}

/// A holder of a sector's files, as briefly as it can be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The path.
    pub id: &'a StorageId,
    /// Which of the asked-for files were declared to lie there.
    pub types: FileTypes,
    /// Which of them are primary copies.
    pub primary: FileTypes,
    /// Which of the asked-for files are only remembered.
    pub unconfirmed: FileTypes,
    /// The path's own weight.
    pub weight: u64,
}

impl<'a> Place<'a> {
    fn of(held: Held, path: &'a PathSlot, types: FileTypes) -> Option<Self> {
        let place = Self {
            id: &path.info.id,
            types: held.types().intersection(types),
            primary: held.primary().intersection(types),
            unconfirmed: held.unconfirmed().intersection(types),
            weight: path.info.stanza.weight,
        };
        (!(place.types | place.unconfirmed).is_empty()).then_some(place)
    }
}

/// Files of one sector that two or more paths claim to have the primary copy of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrimaryConflict {
    /// The sector.
    pub sector: SectorId,
    /// The files.
    pub types: FileTypes,
    /// The paths with a primary copy of any of them, by id.
    pub paths: Vec<StorageId>,
}

/// A URL that failed when it was last asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlTrouble {
    /// The path it serves.
    pub id: StorageId,
    /// The base URL.
    pub url: String,
    /// The first failure since it last answered, in unix milliseconds.
    pub since_ms: u64,
    /// The last failure, in unix milliseconds.
    pub tried_ms: u64,
    /// What went wrong then.
    pub why: String,
    /// It has failed for [`super::URL_DEAD_MS`] and is named to nobody until it answers.
    pub set_aside: bool,
}

impl MemIndex {
    /// The answer of [`crate::Index::find`].
    pub fn search(
        &self,
        sector: SectorId,
        types: FileTypes,
        fetch: Option<SectorSize>,
    ) -> Vec<SectorStorageInfo> {
        self.search_in(&self.read(), sector, types, fetch)
    }

    pub(super) fn search_in(
        &self,
        table: &Table,
        sector: SectorId,
        types: FileTypes,
        fetch: Option<SectorSize>,
    ) -> Vec<SectorStorageInfo> {
        let mut found = table.holders(sector, types);
        found.sort_by(|one, other| other.weight.cmp(&one.weight).then_with(|| one.id.cmp(&other.id)));
        if let Some(size) = fetch {
            found.extend(table.fetch_targets(sector, types, size, self.now()));
        }
        found
    }

    /// Tells `each` holder of any of `types` of many sectors, in the order of the sectors. Several times as fast as one
    /// question each; the index is locked meanwhile, so ask for thousands at most.
    pub fn locate_many(
        &self,
        sectors: &[SectorId],
        types: FileTypes,
        mut each: impl FnMut(SectorId, Place<'_>),
    ) {
        self.read().held_many(sectors, |sector, held, path| {
            if let Some(place) = Place::of(held, path, types) {
                each(sector, place);
            }
        });
    }

    /// Every path with the files in it, remembered ones included, as Lotus's `StorageList`.
    pub fn list(&self) -> BTreeMap<StorageId, Vec<SectorDecl>> {
        let table = self.read();
        let decl = |(sector, held): (SectorId, Held)| SectorDecl { sector, types: held.any() };
        let decls = |slot| table.sectors(slot).into_iter().map(decl).collect();
        table.paths().map(|(slot, path)| (path.info.id.clone(), decls(slot))).collect()
    }

    /// Every path, by id.
    pub fn paths(&self) -> Vec<PathView> {
        let (table, now) = (self.read(), self.now());
        table.paths().map(|(slot, path)| path.view(now, table.count(slot))).collect()
    }

    /// One path.
    pub fn path_view(&self, id: &StorageId) -> Option<PathView> {
        let (table, now) = (self.read(), self.now());
        table.path(id).map(|(slot, path)| path.view(now, table.count(slot)))
    }

    /// Where the files of one sector lie, by path id.
    pub fn sector_files(&self, sector: SectorId) -> Vec<HeldFiles> {
        let table = self.read();
        let held_files = table.held(sector).map(|(held, path)| HeldFiles {
            id: path.info.id.clone(),
            types: held.types(),
            primary: held.primary(),
            unconfirmed: held.unconfirmed(),
        });
        let mut files: Vec<_> = held_files.collect();
        files.sort_by(|one, other| one.id.cmp(&other.id));
        files
    }

    /// The declared files in one path with the primary ones among them, by sector.
    pub fn path_files(&self, id: &StorageId) -> Vec<(SectorDecl, FileTypes)> {
        let table = self.read();
        let Some((slot, _)) = table.path(id) else { return Vec::new() };
        let sure = table.sectors(slot).into_iter().filter(|(_, held)| !held.types().is_empty());
        sure.map(|(sector, held)| (SectorDecl { sector, types: held.types() }, held.primary())).collect()
    }

    /// The files that are only remembered to lie in one path, by sector.
    pub fn unconfirmed_files(&self, id: &StorageId) -> Vec<SectorDecl> {
        let table = self.read();
        table.path(id).map(|(slot, _)| table.unconfirmed(slot)).unwrap_or_default()
    }

    /// The types of a sector that more than one path claims to have the primary copy of.
    pub fn conflict_of(&self, sector: SectorId) -> FileTypes {
        self.read().conflict(sector)
    }

    /// How many sectors there are conflicts of, and the first `most` of them, by sector.
    pub fn conflicts(&self, most: usize) -> (usize, Vec<PrimaryConflict>) {
        let table = self.read();
        let conflict = |sector: SectorId| {
            let types = table.conflict(sector);
            let claims =
                table.held(sector).filter(|(held, _)| !held.primary().intersection(types).is_empty());
            let mut paths: Vec<_> = claims.map(|(_, path)| path.info.id.clone()).collect();
            paths.sort();
            PrimaryConflict { sector, types, paths }
        };
        // A path that is gone claims nothing, though its files may not be swept away yet.
        let disputed = || table.doubled().filter(|sector| !table.conflict(*sector).is_empty());
        (disputed().count(), disputed().take(most).map(conflict).collect())
    }

    /// Whoever asked a path's base URL tells whether it answered, or why not.
    pub fn url_asked(&self, id: &StorageId, url: &str, failure: Option<String>) {
        let now = self.now();
        let mut table = self.write();
        let mut remembered = false;
        // A path that is gone has no URLs.
        let known = table.with_path(id, |path| remembered = path.url_asked(url, failure, now));
        let change = || IndexChange::Path(id.clone());
        match known {
            Ok(()) if remembered => self.content_changed(change),
            Ok(()) => self.changed(change),
            Err(_) => {}
        }
    }

    /// URLs that failed when they were last asked, by path.
    pub fn url_troubles(&self) -> Vec<UrlTrouble> {
        self.read().paths().flat_map(|(_, path)| path.troubles()).collect()
    }

    /// A path of a snapshot; one that is attached already stays as it is. Nobody is told: it counts once it is attached.
    pub(crate) fn remember_path(
        &self,
        info: StorageInfo,
        stat: FsStat,
        silent: &[SilentUrl],
    ) -> Result<(), IndexError> {
        let (mut table, id) = (self.write(), info.id.clone());
        table.restore(info, stat)?;
        table.with_path(&id, |path| silent.iter().for_each(|url| path.remember_silent(url)))
    }

    /// A snapshot of so many sectors is about to be remembered.
    pub(crate) fn expect_files(&self, count: usize) {
        self.write().expect(count);
    }

    /// Files of a snapshot with their primary marks; what was declared knows better.
    pub(crate) fn remember_files(
        &self,
        id: &StorageId,
        files: &[(SectorDecl, FileTypes)],
    ) -> Result<(), IndexError> {
        let kinds: Vec<_> =
            files.iter().map(|(decl, primary)| (*decl, Kind::Restored { primary: *primary })).collect();
        self.write().declare(id, &kinds)
    }

    /// What a snapshot keeps of one path: everything, confirmed or not, with the primary marks, in no
    /// order.
    pub(crate) fn memory_of(&self, id: &StorageId) -> Option<(StorageInfo, Vec<SilentUrl>, Vec<Remembered>)> {
        let table = self.read();
        let (slot, path) = table.path(id)?;
        let kept =
            |(sector, held): (_, Held)| Remembered { sector, types: held.any(), primary: held.marked() };
        Some((path.info.clone(), path.silent_urls(), table.sectors_unsorted(slot).map(kept).collect()))
    }

    /// The ids of all paths.
    pub(crate) fn path_ids(&self) -> Vec<StorageId> {
        self.read().paths().map(|(_, path)| path.info.id.clone()).collect()
    }
}

/// A URL that has not answered, as a snapshot keeps it: since when, and when it was last asked, in the index's milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SilentUrl {
    pub(crate) url: String,
    pub(crate) since_ms: u64,
    pub(crate) tried_ms: u64,
}

/// One sector's files in one path as a snapshot keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Remembered {
    pub(crate) sector: SectorId,
    pub(crate) types: FileTypes,
    pub(crate) primary: FileTypes,
}

//! Where the simulated files lie and how full the simulated disks are.

use std::collections::BTreeMap;

use sealtasks::{AcquireMode, AttemptId, FileType, FileTypes, SectorId, SectorRef, SpaceTable, StorageId};

use super::cluster::SimPath;
use crate::{FetchStep, PathBytes, PathFacts, Plan};

/// All disks and what lies on them.
#[derive(Debug, Default)]
pub(super) struct Files {
    disks: BTreeMap<StorageId, Disk>,
    /// Size and places of each file; a file without a place is not here.
    files: BTreeMap<(SectorId, FileType), File>,
}

#[derive(Debug)]
pub(super) struct Disk {
    pub(super) facts: PathFacts,
    pub(super) capacity: u64,
    used: u64,
    pub(super) peak: u64,
    /// Bytes that live attempts were promised and have not written.
    held: BTreeMap<AttemptId, u64>,
    /// Seen by the scheduler.
    pub(super) is_there: bool,
    /// Bytes of others that fill it for a while.
    pub(super) clutter: u64,
}

#[derive(Debug)]
struct File {
    bytes: u64,
    places: Vec<StorageId>,
}

impl Files {
    /// 2^50 bytes: room for thousands of sectors.
    const AMPLE: u64 = 1 << 50;

    pub(super) fn new(paths: &[SimPath]) -> Self {
        let disk = |path: &SimPath| Disk {
            facts: path.facts.clone(),
            capacity: path.capacity,
            used: 0,
            peak: 0,
            held: BTreeMap::new(),
            is_there: true,
            clutter: 0,
        };
        let disks = paths.iter().map(|path| (path.facts.id.clone(), disk(path))).collect();
        Self { disks, files: BTreeMap::new() }
    }

    pub(super) fn disks(&self) -> impl Iterator<Item = (&StorageId, &Disk)> {
        self.disks.iter()
    }

    pub(super) fn paths(&self) -> Vec<StorageId> {
        self.disks.keys().cloned().collect()
    }

    /// Every file that lies somewhere.
    pub(super) fn known(&self) -> Vec<(SectorId, FileType)> {
        self.files.keys().copied().collect()
    }

    /// Every disk is there, healthy, and has more room than all files need.
    pub(super) fn heal(&mut self) {
        for disk in self.disks.values_mut() {
            (disk.is_there, disk.clutter, disk.facts.healthy) = (true, 0, true);
            disk.capacity = Self::AMPLE;
        }
    }

    pub(super) fn disk_mut(&mut self, path: &StorageId) -> Option<&mut Disk> {
        self.disks.get_mut(path)
    }

    pub(super) fn places(&self, sector: SectorId, kind: FileType) -> Vec<StorageId> {
        self.files.get(&(sector, kind)).map_or_else(Vec::new, |file| file.places.clone())
    }

    /// What the path's owner would report now; `None`: it is detached or unknown.
    pub(super) fn report(&self, path: &StorageId) -> Option<PathFacts> {
        let disk = self.disks.get(path).filter(|disk| disk.is_there)?;
        let mut facts = disk.facts.clone();
        let taken = disk.held.values().fold(disk.used, |sum, held| sum.saturating_add(*held));
        let taken = taken.saturating_add(disk.clutter);
        facts.available = i64::try_from(disk.capacity.saturating_sub(taken)).unwrap_or(i64::MAX);
        facts.covers = disk.held.keys().copied().collect();
        Some(facts)
    }

    /// The owner of each path of the plan sets room aside.
    pub(super) fn hold(&mut self, attempt: AttemptId, plan: &Plan) {
        for (path, bytes) in parts(plan) {
            if let Some(disk) = self.disks.get_mut(path) {
                *disk.held.entry(attempt).or_default() += bytes;
                disk.note_peak();
            }
        }
    }

    /// What of the plan's room has not been written.
    pub(super) fn holds(&self, attempt: AttemptId) -> Vec<PathBytes> {
        let held = self.disks.iter().filter_map(|(path, disk)| Some((path, *disk.held.get(&attempt)?)));
        held.map(|(path, bytes)| PathBytes { path: path.clone(), bytes }).collect()
    }

    /// The room that was set aside is free again.
    pub(super) fn let_go(&mut self, attempt: AttemptId, plan: &Plan) {
        for (path, _) in parts(plan) {
            if let Some(disk) = self.disks.get_mut(path) {
                disk.held.remove(&attempt);
            }
        }
    }

    /// A fetch is over: the file is where the plan wanted it.
    pub(super) fn fetched(&mut self, attempt: AttemptId, sector: SectorId, step: &FetchStep) {
        if let Some(disk) = self.disks.get_mut(&step.to)
            && let Some(held) = disk.held.get_mut(&attempt)
        {
            *held = held.saturating_sub(step.bytes);
        }
        if step.mode == AcquireMode::Move {
            for from in step.from.iter().filter(|from| **from != step.to) {
                self.remove(sector, step.kind, from);
            }
        }
        self.put(sector, step.kind, step.bytes, &step.to);
    }

    /// A file lies in a path.
    pub(super) fn put(&mut self, sector: SectorId, kind: FileType, bytes: u64, path: &StorageId) {
        let file = self.files.entry((sector, kind)).or_insert(File { bytes, places: Vec::new() });
        if !file.places.contains(path) {
            let bytes = file.bytes;
            file.places.push(path.clone());
            if let Some(disk) = self.disks.get_mut(path) {
                disk.used = disk.used.saturating_add(bytes);
                disk.note_peak();
            }
        }
    }

    fn remove(&mut self, sector: SectorId, kind: FileType, path: &StorageId) {
        let Some(file) = self.files.get_mut(&(sector, kind)) else { return };
        let before = file.places.len();
        file.places.retain(|place| place != path);
        let is_last = file.places.is_empty();
        if file.places.len() < before
            && let Some(disk) = self.disks.get_mut(path)
        {
            disk.used = disk.used.saturating_sub(file.bytes);
        }
        if is_last {
            self.files.remove(&(sector, kind));
        }
    }

    /// Deletes every copy of these files. Returns the paths that have more room now.
    pub(super) fn drop_all(&mut self, sector: SectorId, kinds: FileTypes) -> Vec<StorageId> {
        let mut freed = Vec::new();
        for kind in kinds.iter() {
            for path in self.places(sector, kind) {
                self.remove(sector, kind, &path);
                freed.push(path);
            }
        }
        freed
    }

    /// The sector's files take what they take once it is finished. Returns the paths that have more room now.
    pub(super) fn finalize(&mut self, sector: SectorRef) -> Vec<StorageId> {
        let mut freed = Vec::new();
        for kind in FileType::ALL {
            let Some(file) = self.files.get_mut(&(sector.id, kind)) else { continue };
            let after = SpaceTable::Finalized.bytes(kind.into(), sector.proof.sector_size());
            let less = file.bytes.saturating_sub(after);
            file.bytes -= less;
            for path in &file.places {
                if let Some(disk) = self.disks.get_mut(path).filter(|_| less > 0) {
                    disk.used = disk.used.saturating_sub(less);
                    freed.push(path.clone());
                }
            }
        }
        freed
    }
}

impl Disk {
    fn note_peak(&mut self) {
        let held: u64 = self.held.values().fold(0, |sum, held| sum.saturating_add(*held));
        self.peak = self.peak.max(self.used.saturating_add(held));
    }
}

/// The paths of a plan, each with its bytes; a path may come more than once.
pub(super) fn parts(plan: &Plan) -> impl Iterator<Item = (&StorageId, u64)> {
    let fetched = plan.fetch.iter().map(|step| (&step.to, step.bytes));
    fetched.chain(plan.allocate.iter().map(|step| (&step.path, step.bytes)))
}

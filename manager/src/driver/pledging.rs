//! Sectors that the manager pledges by itself: the facts are counted here, `pipeline::Pledging` decides.

use std::collections::{BTreeMap, BTreeSet};

use pipeline::{Hindrance, PathRoom, Pledging, Rest, SectorRecord, SectorState, take_room};
use rpc::api::PledgeOptions;
use rpc::pipelining::PledgingView;
use sealtasks::{ActorId, FileType, FileTypes, PathType, SealingPurpose, SectorId, StorageId, TaskType};
use stores::PathView;

use super::Driver;
use super::fleet::Worker;
use super::input::{Busy, Sector};
use super::threads::takes_new;
use crate::answers::check_pledge;
use crate::state::ReservedSpace;

/// What a sector takes while it is sealed.
pub(super) const SEALING: FileTypes = FileTypes::UNSEALED.union(FileTypes::SEALED).union(FileTypes::CACHE);
/// What stays of it.
const STORED: FileTypes = FileTypes::SEALED.union(FileTypes::CACHE);

impl Driver {
    /// Pledges what is missing in the pipeline, one after the other, as long as nothing stands against it.
    pub(super) fn keep_pipeline(&mut self) {
        if self.shared.sealing.keep_in_pipeline == 0 || !std::mem::take(&mut self.pledging_due) {
            return;
        }
        // Each pledge counts as a sector before PC1, of which there may be few: this ends soon.
        while let Some(miner) = self.next_to_pledge() {
            match self.new_sector(miner, self.shared.sealing.stop_at, SectorRecord::pledge) {
                Ok(sector) => {
                    tracing::info!(sector = %sector.id, "pledged to keep the pipeline full");
                    self.advance(sector.id);
                }
                Err(error) => return tracing::error!(%error, "no sector can be pledged"),
            }
        }
    }

    /// The miner of whose sectors the fewest are in the pipeline, of those that another is pledged for now.
    fn next_to_pledge(&self) -> Option<ActorId> {
        let may = |miner: &ActorId| {
            let options = PledgeOptions { miner: Some(*miner), ..PledgeOptions::default() };
            check_pledge(&self.shared, options).is_ok()
        };
        let facts = |miner| (miner, self.pledging_facts(miner));
        let mut all: Vec<_> = self.shared.miners.all().filter(may).map(facts).collect();
        all.retain(|(_, facts)| facts.hindrance().is_none());
        all.iter().min_by_key(|(_, facts)| facts.in_pipeline).map(|(miner, _)| *miner)
    }

    /// Each miner's sectors are counted for themselves; what they wait for, PC1 and room, is one for all.
    fn pledging_facts(&self, miner: ActorId) -> Pledging {
        let settings = &self.shared.sealing;
        let mut facts = Pledging {
            keep: settings.keep_in_pipeline,
            parked_max: settings.parked_max,
            paused: self.pledging_paused,
            ..Pledging::default()
        };
        let (mut to_seal, mut to_store) = (BTreeMap::<ActorId, u64>::new(), BTreeSet::new());
        for (id, sector) in &self.sectors {
            match sector.record.rest() {
                _ if sector.record.state() == SectorState::Proving => continue,
                Some(Rest::WaitsForData | Rest::NotStarted) => continue,
                // They keep what they take for sealing.
                Some(Rest::StoppedAfterPc2 | Rest::StoppedAfterC1) => {}
                Some(Rest::NeedsOperator) if id.miner == miner => {
                    facts.parked = facts.parked.saturating_add(1)
                }
                Some(Rest::NeedsOperator) => {}
                None if self.is_before_pc1(sector) => facts.before_pc1 = facts.before_pc1.saturating_add(1),
                None => {}
            }
            facts.in_pipeline = facts.in_pipeline.saturating_add(u32::from(id.miner == miner));
            let waiting = to_seal.entry(id.miner).or_default();
            *waiting = waiting.saturating_add(u64::from(self.is_before_pc1(sector)));
            if sector.record.stop_after().is_none() {
                to_store.insert(*id);
            }
        }
        let offering = |task: TaskType| {
            let may = |worker: &&Worker| worker.enabled && worker.tasks.contains(&task) && takes_new(worker);
            let workers = self.workers.values().filter(may);
            u32::try_from(workers.count()).unwrap_or(u32::MAX)
        };
        facts.workers = (offering(TaskType::AddPiece), offering(TaskType::PreCommit1));
        // Only where nothing else stands in the way is the room counted: that takes its time.
        if facts.hindrance().is_none() {
            // What others' sectors need is taken from the paths for this miner's, too, where one of these admits them: some of it may
            // lie there.
            let (sealing, storing) =
                (self.beside(miner, PathType::Sealing), self.beside(miner, PathType::Storage));
            to_store.retain(|id: &SectorId| storing.contains(&id.miner));
            to_seal.retain(|other, _| sealing.contains(other));
            let to_seal = to_seal.into_values().fold(1, u64::saturating_add);
            let mut paths = self.rooms(miner, SealingPurpose::New, STORED);
            let size = self.shared.miner.sector_size;
            let mut take = |what, count| (take_room(&mut paths, what, size, count), count);
            // First what must end up there, whatever is begun.
            let moved = to_store.difference(&self.stored_where_sealed()).count() as u64;
            let new = u64::from(settings.stop_at.is_none());
            facts.storage = take((PathType::Storage, STORED), moved.saturating_add(new));
            facts.sealing = take((PathType::Sealing, SEALING), to_seal);
        }
        facts
    }

    /// The miners whose sectors some path for this use admits that admits this one's, too.
    fn beside(&self, miner: ActorId, path_type: PathType) -> BTreeSet<ActorId> {
        let is_for = |path: &PathView| match path_type {
            PathType::Sealing => path.info.stanza.can_seal,
            PathType::Storage => path.info.stanza.can_store,
        };
        let all = self.shared.index.paths().into_iter();
        let paths: Vec<_> = all.filter(|path| is_for(path) && takes_from(path, miner)).collect();
        let admits = |other: &ActorId| *other == miner || paths.iter().any(|path| takes_from(path, *other));
        self.shared.miners.all().filter(admits).collect()
    }

    /// Sectors whose replica lies, or is being made, in a path that also stores: it stays there.
    fn stored_where_sealed(&self) -> BTreeSet<SectorId> {
        let index = &self.shared.index;
        let stores = |path: &PathView| {
            let stanza = &path.info.stanza;
            stanza.can_store && stanza.filters.accepted(STORED) == STORED
        };
        let paths: BTreeSet<StorageId> =
            index.paths().into_iter().filter(stores).map(|path| path.info.id).collect();
        let has_replica = |id: &SectorId| {
            let mut held = index.sector_files(*id).into_iter();
            held.any(|held| held.types.contains(FileType::Sealed) && paths.contains(&held.id))
        };
        let open = self.sectors.iter().filter(|(_, sector)| sector.record.state() != SectorState::Proving);
        let mut found: BTreeSet<SectorId> = open.map(|(id, _)| *id).filter(has_replica).collect();
        for (task, open) in self.open_attempts() {
            let is_made =
                |space: &ReservedSpace| space.types.contains(FileType::Sealed) && paths.contains(&space.path);
            if open.reservations.iter().any(is_made) {
                found.insert(task.sector.id);
            }
        }
        found
    }

    /// Whether PreCommit1 of this sector has not got a place yet.
    fn is_before_pc1(&self, sector: &Sector) -> bool {
        let bound = match sector.busy {
            Busy::Task(task) => self.tasks.get(&task).is_some_and(|task| task.open.is_some()),
            Busy::Free | Busy::Asking | Busy::Until(_) | Busy::File(_) | Busy::Stage => false,
        };
        let labels = sector.record.state() == SectorState::PreCommit1 && bound;
        sector.record.progress().pc1.is_none() && !labels
    }

    /// The paths that take files of the miner's sectors that begin, and what of them; of sectors that are stored, `stored`.
    pub(super) fn rooms(&self, miner: ActorId, purpose: SealingPurpose, stored: FileTypes) -> Vec<PathRoom> {
        let room = |path: PathView| {
            let stanza = &path.info.stanza;
            let taken = |may: bool, types| if may { stanza.filters.accepted(types) } else { FileTypes::NONE };
            PathRoom {
                free: u64::try_from(path.stat.available).unwrap_or(0),
                seals: taken(stanza.can_seal && self.path_takes(&path.info.id, purpose), SEALING),
                stores: taken(stanza.can_store, stored),
            }
        };
        self.shared.index.paths().into_iter().filter(|path| takes_from(path, miner)).map(room).collect()
    }

    /// How it stands, in words; with several miners of each of them.
    pub(crate) fn pledging_view(&self) -> PledgingView {
        let miners = &self.shared.miners;
        let mut all = self.pledging_view_of(miners.first);
        for other in &miners.others {
            let view = self.pledging_view_of(*other);
            if all.waits_for.is_empty() || view.waits_for.is_empty() {
                (all.waits_for, all.change) = (String::new(), String::new());
            }
            all.keep = all.keep.saturating_add(view.keep);
            all.in_pipeline = all.in_pipeline.saturating_add(view.in_pipeline);
            all.parked = all.parked.saturating_add(view.parked);
            all.summary = format!("{}; {}", all.summary, view.summary);
        }
        all
    }

    fn pledging_view_of(&self, miner: ActorId) -> PledgingView {
        let facts = self.pledging_facts(miner);
        let hindrance = facts.hindrance();
        let options = PledgeOptions { miner: Some(miner), ..PledgeOptions::default() };
        let chain = check_pledge(&self.shared, options).err().filter(|_| hindrance.is_none());
        let Pledging { keep, in_pipeline, parked, paused, .. } = facts;
        let (waits_for, (summary, change)) = match (chain, hindrance) {
            (Some(error), _) => ("chain", (error.to_string(), String::new())),
            (None, Some(hindrance)) => (hindrance.word(), words(hindrance, &facts)),
            (None, None) => {
                let summary = format!(
                    "{in_pipeline} of {keep} sectors are in the pipeline; the next is pledged at once"
                );
                ("", (summary, String::new()))
            }
        };
        let summary = match self.shared.miners.others.is_empty() {
            true => summary,
            false => format!("f0{}: {summary}", miner.get()),
        };
        PledgingView { keep, in_pipeline, parked, paused, waits_for: waits_for.to_owned(), summary, change }
    }
}

/// Whether files of new sectors of this miner may come to lie there.
fn takes_from(path: &PathView, miner: ActorId) -> bool {
    let stanza = &path.info.stanza;
    path.healthy && path.confirmed && stanza.weight > 0 && stanza.filters.accepts_miner(miner)
}

/// What stands in the way, and what would change it.
fn words(hindrance: Hindrance, facts: &Pledging) -> (String, String) {
    let Pledging { keep, in_pipeline, parked, parked_max, before_pc1, sealing, storage, .. } = facts;
    let (summary, change) = match hindrance {
        Hindrance::Off => (
            "the manager pledges no sectors by itself".to_owned(),
            "set [sealing] keep_in_pipeline in config.toml and start the manager again",
        ),
        Hindrance::Paused => {
            ("pledging is paused by an operator".to_owned(), "`sealyard sectors pledge --resume`")
        }
        Hindrance::Full => (
            format!("{in_pipeline} sectors are in the pipeline, and {keep} are to be there"),
            "it goes on when one of them is done",
        ),
        Hindrance::Parked => (
            format!("{parked} sectors wait for an operator, more than {parked_max}"),
            "`sealyard sectors list` shows them; remove the cause, then `sealyard sectors retry` them",
        ),
        Hindrance::NoWorker => (
            "no worker that is here takes both AddPiece and PreCommit1 between them".to_owned(),
            "start a worker that does, or see `sealyard workers list`",
        ),
        Hindrance::Pc1Busy => (
            format!("{before_pc1} sectors are on their way to PC1 and have no place there yet"),
            "it goes on when PC1 of one of them starts; more workers that take PC1 make it faster",
        ),
        Hindrance::NoSealingSpace => (
            format!("paths for sealing have room for {} sectors, and {} need it", sealing.0, sealing.1),
            "attach a path for sealing, or free one; see `sealyard storage list`",
        ),
        Hindrance::NoStorageSpace => (
            format!(
                "paths for storing have room for {} sectors, and {} need it to be finalized",
                storage.0, storage.1
            ),
            "attach a path for storing, or free one; see `sealyard storage list`",
        ),
    };
    (summary, change.to_owned())
}

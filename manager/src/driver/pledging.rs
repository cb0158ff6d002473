//! Sectors that the manager pledges by itself: the facts are counted here, `pipeline::Pledging` decides.

use pipeline::{Hindrance, Pledging, Rest, SectorRecord, SectorState};
use rpc::pipelining::PledgingView;
use sealtasks::{FileTypes, PathType, SpaceTable, TaskType};

use super::Driver;
use super::fleet::Worker;
use super::input::{Busy, Sector};
use super::threads::takes_new;
use crate::answers::check_pledge;

/// What a sector takes while it is sealed.
const SEALING: FileTypes = FileTypes::UNSEALED.union(FileTypes::SEALED).union(FileTypes::CACHE);
/// What stays of it.
const STORED: FileTypes = FileTypes::SEALED.union(FileTypes::CACHE);

impl Driver {
    /// Pledges what is missing in the pipeline, one after the other, as long as nothing stands against it.
    pub(super) fn keep_pipeline(&mut self) {
        if self.shared.sealing.keep_in_pipeline == 0 || !std::mem::take(&mut self.pledging_due) {
            return;
        }
        // Each pledge counts as a sector before PC1, of which there may be few: this ends soon.
        while self.pledging_facts().hindrance().is_none() {
            if check_pledge(&self.shared, Default::default()).is_err() {
                return;
            }
            match self.new_sector(self.shared.sealing.stop_at, SectorRecord::pledge) {
                Ok(sector) => {
                    tracing::info!(sector = %sector.id, "pledged to keep the pipeline full");
                    self.advance(sector.id);
                }
                Err(error) => return tracing::error!(%error, "no sector can be pledged"),
            }
        }
    }

    fn pledging_facts(&self) -> Pledging {
        let settings = &self.shared.sealing;
        let mut facts = Pledging {
            keep: settings.keep_in_pipeline,
            parked_max: settings.parked_max,
            paused: self.pledging_paused,
            ..Pledging::default()
        };
        let (mut to_seal, mut to_store) = (1_u64, u64::from(settings.stop_at.is_none()));
        for sector in self.sectors.values() {
            match sector.record.rest() {
                _ if sector.record.state() == SectorState::Proving => continue,
                Some(Rest::WaitsForData | Rest::NotStarted) => continue,
                // They keep what they take for sealing.
                Some(Rest::StoppedAfterPc2 | Rest::StoppedAfterC1) => {}
                Some(Rest::NeedsOperator) => facts.parked = facts.parked.saturating_add(1),
                None if self.is_before_pc1(sector) => facts.before_pc1 = facts.before_pc1.saturating_add(1),
                None => {}
            }
            facts.in_pipeline = facts.in_pipeline.saturating_add(1);
            to_seal = to_seal.saturating_add(u64::from(self.is_before_pc1(sector)));
            to_store = to_store.saturating_add(u64::from(sector.record.stop_after().is_none()));
        }
        let offering = |task: TaskType| {
            let may = |worker: &&Worker| worker.enabled && worker.tasks.contains(&task) && takes_new(worker);
            let workers = self.workers.values().filter(may);
            u32::try_from(workers.count()).unwrap_or(u32::MAX)
        };
        facts.workers = (offering(TaskType::AddPiece), offering(TaskType::PreCommit1));
        facts.sealing = (self.room(PathType::Sealing), to_seal);
        facts.storage = (self.room(PathType::Storage), to_store);
        facts
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

    /// How many sectors' files find room on paths of this kind; each must fit one path as a whole.
    fn room(&self, kind: PathType) -> u64 {
        let (table, types) = match kind {
            PathType::Sealing => (SpaceTable::Sealing, SEALING),
            PathType::Storage => (SpaceTable::Finalized, STORED),
        };
        let each = table.bytes(types, self.shared.miner.sector_size).max(1);
        let miner = self.shared.miner.actor;
        let usable = self.shared.index.paths().into_iter().filter(|path| {
            let stanza = &path.info.stanza;
            let serves = match kind {
                PathType::Sealing => stanza.can_seal && self.path_takes_new(&path.info.id),
                PathType::Storage => stanza.can_store,
            };
            serves && path.healthy && path.confirmed && stanza.filters.accepts_miner(miner)
        });
        usable.fold(0, |sum, path| sum.saturating_add(u64::try_from(path.stat.available).unwrap_or(0) / each))
    }

    /// How it stands, in words.
    pub(crate) fn pledging_view(&self) -> PledgingView {
        let facts = self.pledging_facts();
        let hindrance = facts.hindrance();
        let chain = check_pledge(&self.shared, Default::default()).err().filter(|_| hindrance.is_none());
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
        PledgingView { keep, in_pipeline, parked, paused, waits_for: waits_for.to_owned(), summary, change }
    }
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

//! Files of removed sectors: offered when paths are surveyed, and deleted one by one when a clean-up names them, each by a
//! permit that is durable before. Never: touches a file itself, or one of a sector that is not removed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chain::Allocation;
use pipeline::{RandomnessSource, SectorRecord};
use rpc::ApiError;
use rpc::api::ApiResult;
use rpc::storage::PathHost;
use sealtasks::{
    CleanedEntry, FileMeasure, FileType, FileTypes, Finding, Matter, PathOrder, PathReport, PathSurvey,
    SectorDecl, SectorId, StorageId,
};
use stores::{LockOwner, LockWant};

use crate::driver::{CLEANED_UP, Driver, Input, Named, although, named_by};
use crate::service::Service;
use crate::workers::chain_of;

/// A declared file of a removed sector, by the entry that a survey names.
struct Removed {
    entry: PathBuf,
    sector: SectorId,
    file: FileType,
    path: StorageId,
    /// Why it is shown alone, and never deleted.
    keep: Option<String>,
}

/// Who may need the files of a sector.
enum Standing {
    /// Nobody else: no chain knows it.
    Offline,
    /// Perhaps its chain.
    OnChain,
    /// It was known by a file alone.
    Told,
}

impl Standing {
    fn of(record: &SectorRecord) -> Self {
        match record.source() {
            _ if record.is_told() => Self::Told,
            RandomnessSource::Lotus => Self::OnChain,
            RandomnessSource::Offline | RandomnessSource::Rehearsal => Self::Offline,
        }
    }
}

impl Service {
    /// Adds the declared files of removed sectors to a path's findings.
    pub(crate) async fn add_removed(
        &self,
        path: &mut PathSurvey,
        declared: &[(SectorDecl, FileTypes)],
    ) -> ApiResult<()> {
        for Removed { entry, sector, file, keep, .. } in
            self.removed_in(&path.id, &path.dir, declared).await?
        {
            path.findings.push(Finding {
                entry,
                matter: Matter::RemovedSector,
                file: Some((sector, file)),
                bytes: 0,
                age_s: 0,
                offered: keep.is_none(),
                reason: format!(
                    "sector {} was removed; `sealyard sectors status {} --log` shows when and by whom{}",
                    self.0.name(sector),
                    self.0.name(sector),
                    keep.map(|why| format!("; {why}")).unwrap_or_default()
                ),
            });
        }
        Ok(())
    }

    async fn removed_in(
        &self,
        path: &StorageId,
        dir: &Path,
        declared: &[(SectorDecl, FileTypes)],
    ) -> ApiResult<Vec<Removed>> {
        let sectors: Vec<SectorId> = declared.iter().map(|(decl, _)| decl.sector).collect();
        let removed: Vec<(SectorId, Standing)> = self
            .view(move |driver| {
                let removed =
                    sectors.into_iter().filter_map(|sector| Some((sector, driver.removed(sector)?)));
                removed.map(|(sector, record)| (sector, Standing::of(record))).collect()
            })
            .await?;
        let mut keep = BTreeMap::new();
        for (sector, standing) in removed {
            let why = match standing {
                Standing::Told => Some("it was never stored here, and this may be its original".to_owned()),
                Standing::OnChain => self.on_chain(sector).await.err(),
                Standing::Offline => None,
            };
            keep.insert(sector, why);
        }
        let files = declared.iter().filter_map(|(decl, _)| Some((decl, keep.get(&decl.sector)?.clone())));
        let each = |(decl, keep): (&SectorDecl, Option<String>)| {
            let (sector, path, dir) = (decl.sector, path.clone(), dir.to_owned());
            decl.types.iter().map(move |file| {
                let entry = dir.join(file.name()).join(sector.to_string());
                Removed { entry, sector, file, path: path.clone(), keep: keep.clone() }
            })
        };
        Ok(files.flat_map(each).collect())
    }

    /// Refuses where removing this sector would cost money: something of it is on chain, or may be on its way there. The messages
    /// that its record named before the chain was asked: one that is named later was sent meanwhile.
    pub(crate) async fn check_nothing_on_chain(&self, sector: SectorId) -> ApiResult<Named> {
        let known = move |driver: &Driver| {
            driver.record(sector).map(|record| (Standing::of(record), named_by(record)))
        };
        let Some((standing, named)) = self.view(known).await? else {
            // One that is not here is refused for that.
            return Ok(Named::default());
        };
        // Files of one that was only told of are never deleted.
        if !matches!(standing, Standing::OnChain) {
            return Ok(named);
        }
        let refused = |why: String| although(self.0.name(sector), &why);
        if let Some(message) = self.open_message(sector).await? {
            return Err(refused(format!("message {message} of it may be on its way to the chain")));
        }
        self.on_chain(sector).await.map_err(refused)?;
        Ok(named)
    }

    /// The error says why files of this sector are needed, in words: it lives on its chain, or nobody can tell.
    async fn on_chain(&self, sector: SectorId) -> Result<(), String> {
        match self.0.chain.allocation(sector).await {
            Ok(Allocation::Free | Allocation::Spent) => Ok(()),
            Ok(Allocation::PreCommitted) => {
                Err("it is pre-committed on chain, and unless it is proven its deposit is lost".to_owned())
            }
            Ok(Allocation::Proven) => Err(
                "it is proven on chain, and without its files it is faulty, which costs a fee every day, until it is \
                 terminated"
                    .to_owned(),
            ),
            Err(error) => Err(format!("whether it lives on its chain is not known: {}", chain_of(&error))),
        }
    }

    /// Deletes what a clean-up names of removed sectors, and leaves the rest of it to be done.
    pub(crate) async fn without_removed(
        &self,
        host: &PathHost,
        order: PathOrder,
    ) -> ApiResult<(PathOrder, Vec<CleanedEntry>)> {
        let PathOrder::CleanUp { mut entries, mut old } = order else { return Ok((order, Vec::new())) };
        // Which directory is which path, only the process that has them open knows.
        let PathReport::Surveyed(surveys) = self.hand_order(host.clone(), PathOrder::Survey).await? else {
            return Ok((PathOrder::CleanUp { entries, old }, Vec::new()));
        };
        let mut cleaned = Vec::new();
        for survey in surveys {
            let declared = self.0.index.path_files(&survey.id);
            for one in self.removed_in(&survey.id, &survey.dir, &declared).await? {
                let Some(at) = entries.iter().position(|entry| *entry == one.entry) else { continue };
                let entry = entries.swap_remove(at);
                let size = self.measure(host, vec![(one.path.clone(), one.sector, one.file)]).await;
                let gone = self.discard(host, &one).await;
                let kept = gone.err().map(|error| error.to_string());
                let freed = size.first().filter(|_| kept.is_none());
                cleaned.push(CleanedEntry { entry, bytes: freed.map_or(0, |size| size.bytes), kept });
            }
            old.extend(self.old_in(&survey).await?);
        }
        old.retain(|entry| entries.contains(entry));
        Ok((PathOrder::CleanUp { entries, old }, cleaned))
    }

    /// The findings that are older than what there is of their files elsewhere, and need not be matched file by file: copies
    /// that tasks have left behind, and what made room for another file of a sector that is sealed and stored, which needs no
    /// layers any more. Only the manager knows which they are.
    async fn old_in(&self, survey: &PathSurvey) -> ApiResult<Vec<PathBuf>> {
        let replaced = survey.findings.iter().filter(|found| found.matter == Matter::Replaced);
        let mut stored: Vec<SectorId> = replaced.filter_map(|found| Some(found.file?.0)).collect();
        if !stored.is_empty() {
            stored = self
                .view(move |driver| {
                    stored.retain(|sector| driver.is_stored(*sector));
                    stored
                })
                .await?;
        }
        let is_old = |found: &&Finding| match (found.matter, found.file) {
            (Matter::NotInIndex, Some((sector, kind))) => {
                self.0.index.superseded_in(&survey.id, sector).contains(kind)
            }
            (Matter::Replaced, Some((sector, _))) => stored.contains(&sector),
            _ => false,
        };
        Ok(survey.findings.iter().filter(is_old).map(|found| found.entry.clone()).collect())
    }

    /// The sizes and ages of files in paths of one process; none when it does not tell.
    pub(crate) async fn measure(
        &self,
        host: &PathHost,
        files: Vec<(StorageId, SectorId, FileType)>,
    ) -> Vec<FileMeasure> {
        if files.is_empty() {
            return Vec::new();
        }
        match self.hand_order(host.clone(), PathOrder::Measure { files }).await {
            Ok(PathReport::Measured(found)) => found,
            Ok(_) => Vec::new(),
            // A worker of the version before.
            Err(error) => {
                tracing::warn!(%error, "sizes of files are not told");
                Vec::new()
            }
        }
    }

    async fn discard(&self, host: &PathHost, one: &Removed) -> ApiResult<()> {
        let Removed { sector, file, path, keep, .. } = one;
        if let Some(why) = keep {
            return Err(ApiError::refused(format!(
                "MGR191: {file} of the removed sector {} is not deleted: {why}",
                self.0.name(*sector)
            )));
        }
        let want = LockWant { sector: *sector, read: FileTypes::NONE, write: (*file).into() };
        let owner = LockOwner { owner: "operator".to_owned(), reason: "clean-up".to_owned() };
        // Whoever reads the file now reads it to its end.
        let _lock = self.0.locks.lock(want, owner).await.map_err(crate::service::refusal)?;
        let permitted = (*sector, *file, path.clone());
        self.ask(|reply| Input::PermitRemoval { file: permitted, reply }).await?;
        let reason = CLEANED_UP.to_owned();
        let order = PathOrder::Discard { sector: *sector, file: *file, path: path.clone(), reason };
        self.hand_order(host.clone(), order).await.map(drop)
    }
}

//! Files of removed sectors: offered when paths are surveyed, and deleted one by one when a clean-up names them, each by a
//! permit that is durable before. Never: touches a file itself, or one of a sector that is not removed.

use std::path::{Path, PathBuf};

use rpc::api::ApiResult;
use rpc::storage::PathHost;
use sealtasks::{
    CleanedEntry, FileType, FileTypes, Finding, Matter, PathOrder, PathReport, PathSurvey, SectorDecl,
    SectorId, StorageId,
};
use stores::{LockOwner, LockWant};

use crate::driver::{CLEANED_UP, Input};
use crate::service::Service;

/// A declared file of a removed sector, by the entry that a survey names.
struct Removed {
    entry: PathBuf,
    sector: SectorId,
    file: FileType,
    path: StorageId,
}

impl Service {
    /// Adds the declared files of removed sectors to a path's findings.
    pub(crate) async fn add_removed(
        &self,
        path: &mut PathSurvey,
        declared: &[(SectorDecl, FileTypes)],
    ) -> ApiResult<()> {
        for Removed { entry, sector, file, .. } in self.removed_in(&path.id, &path.dir, declared).await? {
            path.findings.push(Finding {
                entry,
                matter: Matter::RemovedSector,
                file: Some((sector, file)),
                bytes: 0,
                age_s: 0,
                offered: true,
                reason: format!(
                    "sector {} was removed; `sealyard sectors status {} --log` shows when and by whom",
                    sector.number, sector.number
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
        let mut sectors: Vec<SectorId> = declared.iter().map(|(decl, _)| decl.sector).collect();
        let removed = self
            .view(move |driver| {
                sectors.retain(|sector| driver.is_removed(*sector));
                sectors
            })
            .await?;
        let files = declared.iter().filter(|(decl, _)| removed.contains(&decl.sector));
        let each = |(decl, _): &(SectorDecl, FileTypes)| {
            let (sector, path, dir) = (decl.sector, path.clone(), dir.to_owned());
            decl.types.iter().map(move |file| {
                let entry = dir.join(file.name()).join(sector.to_string());
                Removed { entry, sector, file, path: path.clone() }
            })
        };
        Ok(files.flat_map(each).collect())
    }

    /// Deletes what a clean-up names of removed sectors, and leaves the rest of it to be done.
    pub(crate) async fn without_removed(
        &self,
        host: &PathHost,
        order: PathOrder,
    ) -> ApiResult<(PathOrder, Vec<CleanedEntry>)> {
        let PathOrder::CleanUp { mut entries } = order else { return Ok((order, Vec::new())) };
        // Which directory is which path, only the process that has them open knows.
        let PathReport::Surveyed(surveys) = self.hand_order(host.clone(), PathOrder::Survey).await? else {
            return Ok((PathOrder::CleanUp { entries }, Vec::new()));
        };
        let mut cleaned = Vec::new();
        for survey in surveys {
            let declared = self.0.index.path_files(&survey.id);
            for one in self.removed_in(&survey.id, &survey.dir, &declared).await? {
                let Some(at) = entries.iter().position(|entry| *entry == one.entry) else { continue };
                let entry = entries.swap_remove(at);
                let gone = self.discard(host, &one).await;
                let kept = gone.err().map(|error| error.to_string());
                cleaned.push(CleanedEntry { entry, bytes: 0, kept });
            }
        }
        Ok((PathOrder::CleanUp { entries }, cleaned))
    }

    async fn discard(&self, host: &PathHost, one: &Removed) -> ApiResult<()> {
        let Removed { sector, file, path, .. } = one;
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

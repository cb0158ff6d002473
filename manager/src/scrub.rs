//! Scrubbing a sector: the workers that hold its files compute their commitments again, and what they find is kept. It holds
//! no locks, so that nothing ever waits for it: files of a sector that is being worked on are left out, and a verdict on
//! files that were worked on meanwhile is not believed. Never: touches a file itself.

use rpc::storage::ScrubResult;
use rpc::{ApiResult, SectorName};
use sealtasks::{FileType, FileTypes, ScrubOrder, ScrubVerdict, ScrubbedFile, SectorId, StorageId};
use stores::LockWant;

use crate::driver::{Input, Scrubbable};
use crate::service::{Service, refusal};

/// The files that have a commitment.
const SCRUBBED: FileTypes = FileTypes::UNSEALED.union(FileTypes::SEALED);

const WORKED_ON: &str = "the sector is being worked on";
const CHANGED: &str = "the sector was worked on meanwhile; scrub it again";

impl Service {
    /// Scrubs the files of one sector, path after path.
    pub(crate) async fn scrub(&self, sector: SectorName) -> ApiResult<Vec<ScrubResult>> {
        let id = self.sector_id(sector).await?;
        let Some(Scrubbable { sector, input, busy, .. }) = self.scrubbable(id).await? else {
            return Err(self.0.no_sector(id));
        };
        let mut results = Vec::new();
        for (path, types) in self.scrubbed_files(id) {
            let left_out = |why: &str| left_out(types, why);
            let (host, found) = if busy || self.in_use(id) {
                (String::new(), left_out(WORKED_ON))
            } else {
                let order = ScrubOrder { sector, path: path.clone(), input };
                self.scrub_there(order, types).await?
            };
            let at_ms = self.0.state.now_ms();
            results.extend(found.iter().map(|one| ScrubResult {
                sector: id,
                file: one.file,
                path: path.clone(),
                host: host.clone(),
                at_ms,
                verdict: one.verdict,
                detail: one.detail.clone(),
            }));
            let place = (path, host);
            self.ask(|reply| Input::Scrubbed { sector: id, place, found, reply }).await?;
        }
        Ok(results)
    }

    /// Has the worker that holds them look at the files in one path. Why it could not is told of each of them.
    async fn scrub_there(
        &self,
        order: ScrubOrder,
        types: FileTypes,
    ) -> ApiResult<(String, Vec<ScrubbedFile>)> {
        let id = order.sector.id;
        let path = order.path.clone();
        let (wanted, proof) = (path.clone(), order.sector.proof);
        let begun = self.ask(|reply| Input::BeginScrub { path: wanted, proof, reply }).await;
        // Its memory is held until it has answered.
        let worker = match begun {
            Ok(found) => found,
            Err(error) => return Ok((String::new(), left_out(types, &error.to_string()))),
        };
        let (before, files) = (self.scrubbable(id).await?, self.scrubbed_files(id));
        let found = worker.api.scrub(order).await;
        let after = self.scrubbable(id).await?;
        let same = before == after && files == self.scrubbed_files(id) && !self.in_use(id);
        Ok((
            worker.name.clone(),
            match found {
                Ok(found) if same => found.into_iter().filter(|one| types.contains(one.file)).collect(),
                Ok(_) => left_out(types, CHANGED),
                Err(error) => left_out(types, &error.to_string()),
            },
        ))
    }

    async fn scrubbable(&self, id: SectorId) -> ApiResult<Option<Scrubbable>> {
        self.view(move |driver| driver.scrubbable(id)).await
    }

    /// Somebody writes its files, as a move does.
    fn in_use(&self, sector: SectorId) -> bool {
        let want = LockWant { sector, read: SCRUBBED.union(FileTypes::CACHE), write: FileTypes::NONE };
        !self.0.locks.in_the_way(want).is_empty()
    }

    fn scrubbed_files(&self, sector: SectorId) -> Vec<(StorageId, FileTypes)> {
        let held = self.0.index.sector_files(sector).into_iter();
        held.map(|held| (held.id, held.types.intersection(SCRUBBED)))
            .filter(|(_, types)| !types.is_empty())
            .collect()
    }

    /// What was last found.
    pub(crate) async fn scrubs(&self, sector: Option<SectorName>) -> ApiResult<Vec<ScrubResult>> {
        let sector = match sector {
            Some(name) => Some(self.sector_id(name).await?),
            None => None,
        };
        self.0.state.scrubs(sector).await.map_err(refusal)
    }
}

fn left_out(types: FileTypes, why: &str) -> Vec<ScrubbedFile> {
    let one = |file: FileType| ScrubbedFile { file, verdict: ScrubVerdict::LeftOut, detail: why.to_owned() };
    types.iter().map(one).collect()
}

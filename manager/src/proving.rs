//! Whether stored sectors can still be proven: the hosts that hold their files prove them. It holds no lock, so that nothing
//! ever waits for it: a sector that is being worked on is told as such, and a fault that was found while its files changed
//! is not believed. Never: judges a file by anything but a proof of it; sends anything to a chain.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt as _};
use rpc::proving::{ProvingApi, ProvingCopy, ProvingState, ProvingView, ProvingWish};
use rpc::{ApiError, ApiResult};
use sealtasks::{
    CHALLENGES, CHALLENGES_MAX, FileType, FileTypes, SectorId, SectorNumber, SectorRef, SectorSize,
    StorageId, VanillaInput, challenges,
};
use stores::{CopyOutcome, LockWant, ProvenCopy};
use tokio::time::{Instant, timeout_at};

use crate::driver::{Driver, Input, Order};
use crate::repo::random_bytes;
use crate::service::{Service, refusal};

/// What is read to prove a sector.
const PROVEN: FileTypes = FileTypes::SEALED.union(FileTypes::CACHE);

/// Sectors of one `CheckProvable` that are proven at once, and how long all of them may take: Lotus's `ParallelCheckLimit` and
/// `PartitionCheckTimeout`.
const AT_ONCE: usize = 32;
const PARTITION_MAX: Duration = Duration::from_secs(20 * 60);

const NOBODY: &str = "no host could be asked for its files; check it again";
const CHANGED: &str = "its files changed meanwhile; check it again";

#[async_trait]
impl ProvingApi for Service {
    async fn check_provable(&self, wish: ProvingWish) -> ApiResult<ProvingView> {
        let ProvingWish { sector, challenges } = wish;
        self.prove(self.sector_id(sector).await?, challenges).await
    }

    async fn replicas_in(&self, path: StorageId) -> ApiResult<Vec<SectorId>> {
        let index = &self.0.index;
        if index.path_view(&path).is_none() {
            return Err(ApiError::refused(format!(
                "MGR199: there is no storage path {path}; `sealyard storage list` shows them"
            )));
        }
        let sure = index.path_files(&path).into_iter().map(|(decl, _)| decl);
        let all = sure.chain(index.unconfirmed_files(&path));
        let of_replicas = all.filter(|decl| !decl.types.intersection(PROVEN).is_empty());
        let sectors: BTreeSet<SectorId> = of_replicas.map(|decl| decl.sector).collect();
        Ok(sectors.into_iter().collect())
    }

    async fn unheld(&self) -> ApiResult<Vec<SectorId>> {
        let mut unheld = Vec::new();
        for miner in self.0.miners.all() {
            unheld.extend(self.compare(miner).await?);
        }
        Ok(unheld)
    }

    async fn not_provable(&self, sectors: Vec<SectorRef>) -> ApiResult<Vec<(SectorNumber, String)>> {
        let until = Instant::now() + PARTITION_MAX;
        let asked = sectors.into_iter().map(|SectorRef { id, .. }| async move {
            let why = match timeout_at(until, self.prove(id, CHALLENGES)).await {
                Ok(Ok(view)) if view.state == ProvingState::Good => return None,
                Ok(Ok(view)) => format!("{}: {}", view.state.words(), view.detail),
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("not proven within {} minutes", PARTITION_MAX.as_secs() / 60),
            };
            Some((id.number, why))
        });
        Ok(stream::iter(asked).buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await)
    }
}

/// Challenges on which sectors were found to be bad: others may miss what is wrong with a large one.
#[derive(Default)]
pub(crate) struct Failed(Mutex<BTreeMap<SectorId, BTreeSet<u64>>>);

impl Failed {
    /// Sectors that it is remembered of; of more, an earlier one is forgotten.
    const MAX: usize = 4096;

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SectorId, BTreeSet<u64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, id: SectorId) -> BTreeSet<u64> {
        self.lock().get(&id).cloned().unwrap_or_default()
    }

    /// What came of these challenges: a sector that answers them is not held to them any more.
    fn note(&self, view: &ProvingView, challenges: &[u64]) {
        let (mut failed, challenges) = (self.lock(), challenges.iter().copied().collect::<BTreeSet<_>>());
        match view.state {
            ProvingState::Bad if !view.copies.is_empty() => {
                if failed.len() >= Self::MAX && !failed.contains_key(&view.sector) {
                    failed.pop_first();
                }
                failed.insert(view.sector, challenges);
            }
            ProvingState::Good
                if failed.get(&view.sector).is_some_and(|held| held.is_subset(&challenges)) =>
            {
                failed.remove(&view.sector);
            }
            _ => {}
        }
    }
}

impl Service {
    /// The same as was found to be bad before is asked of it, if it was.
    pub(crate) async fn prove_once_more(&self, id: SectorId) -> ApiResult<ProvingView> {
        self.prove_by(id, CHALLENGES, self.0.failed_proofs.of(id)).await
    }

    async fn prove(&self, id: SectorId, count: usize) -> ApiResult<ProvingView> {
        self.prove_by(id, count, BTreeSet::new()).await
    }

    /// By so many challenges that nobody could prepare for, and by these.
    async fn prove_by(&self, id: SectorId, count: usize, also: BTreeSet<u64>) -> ApiResult<ProvingView> {
        if self.0.rehearses() {
            return Err(ApiError::refused("MGR194: a rehearsal's files hold nothing that could be proven"));
        }
        let before = self.view(move |driver| driver.scrubbable(id)).await?;
        let Some(known) = before.clone() else {
            return Err(self.0.no_sector(id));
        };
        let held = self.held(id);
        let paths = held.iter().map(|(path, _)| path.clone()).collect();
        let view =
            |state, detail: String| ProvingView { sector: id, state, detail, paths, copies: Vec::new() };
        let Some(sealed) = known.input.sealed else {
            return Ok(view(ProvingState::NotSealed, "it has no CommR yet".to_owned()));
        };
        if let Some(why) = self.worked_on(id, known.busy) {
            return Ok(view(ProvingState::Locked, why));
        }
        let mut view = match missing(&held) {
            Some(why) => view(ProvingState::Bad, why),
            None => {
                let size = known.sector.proof.sector_size();
                let fresh = unforeseen(size, count)?;
                // First what must not be cut off.
                let mut challenges: Vec<u64> = also.iter().copied().collect();
                challenges.extend(fresh.into_iter().filter(|one| !also.contains(one)));
                challenges.truncate(CHALLENGES_MAX);
                let input = VanillaInput { sealed, challenges };
                let view = match self.0.remote.prove_copies(known.sector, &input).await {
                    Ok(copies) => judged(view(ProvingState::Unknown, NOBODY.to_owned()), copies),
                    Err(error) => view(ProvingState::Unknown, sealtasks::chain(&error)),
                };
                self.0.failed_proofs.note(&view, &input.challenges);
                view
            }
        };
        let same = before == self.view(move |driver| driver.scrubbable(id)).await? && held == self.held(id);
        if view.state == ProvingState::Bad && (!same || self.worked_on(id, false).is_some()) {
            (view.state, view.detail) = (ProvingState::Locked, CHANGED.to_owned());
        }
        if same && count >= CHALLENGES {
            self.trust(id, &view).await?;
        }
        Ok(view)
    }

    /// What has answered as many challenges as anybody asks by itself is the sector's replica, whoever made it.
    async fn trust(&self, sector: SectorId, view: &ProvingView) -> ApiResult<()> {
        let good = view.copies.iter().filter(|copy| copy.state == ProvingState::Good);
        let proven: Vec<_> = good.flat_map(|copy| [copy.sealed.clone(), copy.cache.clone()]).collect();
        let doubted = self.view(Driver::doubtful).await?.remove(&sector).unwrap_or_default();
        if doubted.iter().any(|path| proven.contains(path)) {
            return self.ask(|reply| Input::Order(Order::Trust { sector, proven, reply })).await;
        }
        Ok(())
    }

    /// Which path has which of its files; those that are only remembered from before a restart count.
    pub(crate) fn held(&self, sector: SectorId) -> Vec<(StorageId, FileTypes)> {
        let held = self.0.index.sector_files(sector).into_iter();
        held.map(|held| (held.id, held.types.union(held.unconfirmed).intersection(PROVEN)))
            .filter(|(_, types)| !types.is_empty())
            .collect()
    }

    /// Who does something with the files, if anybody does.
    pub(crate) fn worked_on(&self, sector: SectorId, busy: bool) -> Option<String> {
        let want = LockWant { sector, read: PROVEN, write: FileTypes::NONE };
        let owner = self.0.locks.in_the_way(want).into_iter().next();
        owner
            .map(|owner| format!("{} has its files ({})", owner.owner, owner.reason))
            .or_else(|| busy.then(|| "it is being worked on".to_owned()))
    }
}

/// Why nobody can have both files, as far as the index knows.
pub(crate) fn missing(held: &[(StorageId, FileTypes)]) -> Option<String> {
    let has = |kind| held.iter().any(|(_, types)| types.contains(kind));
    let absent = |kind: FileType| format!("no storage path has its {kind} {}", noun(kind));
    [FileType::Sealed, FileType::Cache].into_iter().find(|kind| !has(*kind)).map(absent)
}

const fn noun(kind: FileType) -> &'static str {
    if kind.is_directory() { "directory" } else { "file" }
}

/// What follows from what came of each copy: a bad one is told even where another one is good. Without any the view stays
/// as it is.
fn judged(mut view: ProvingView, copies: Vec<ProvenCopy>) -> ProvingView {
    view.copies = copies.into_iter().map(copy).collect();
    let of = |state| view.copies.iter().find(|copy| copy.state == state);
    let first = [ProvingState::Bad, ProvingState::Good, ProvingState::Unknown, ProvingState::Away];
    if let Some(told) = first.into_iter().find_map(of) {
        let detail = match told.state {
            ProvingState::Good => String::new(),
            _ => format!("{} [in {}]", told.detail, told.sealed),
        };
        (view.state, view.detail) = (told.state, detail);
    }
    view
}

fn copy(copy: ProvenCopy) -> ProvingCopy {
    let ProvenCopy { sealed, cache, url, outcome } = copy;
    let (state, detail) = match outcome {
        CopyOutcome::Proven => (ProvingState::Good, String::new()),
        CopyOutcome::Faulty(why) => (ProvingState::Bad, why),
        CopyOutcome::Away(why) => (ProvingState::Away, why),
        CopyOutcome::Untold(why) => (ProvingState::Unknown, why),
    };
    ProvingCopy { sealed, cache, url, state, detail }
}

/// Challenges that nobody could prepare for.
fn unforeseen(size: SectorSize, count: usize) -> ApiResult<Vec<u64>> {
    let mut state = u64::from_le_bytes(random_bytes().map_err(refusal)?);
    // SplitMix64.
    Ok(challenges(size, count, || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }))
}

#[cfg(test)]
mod tests;

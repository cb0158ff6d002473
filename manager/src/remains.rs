//! What is left of a sector whose replica is lost in part, or is there and proven to be bad: set aside before it is sealed
//! again, so that what takes its place is new throughout. Never: deletes a file, nor touches those of a sector that may be
//! good or that nobody here knows.

use std::collections::BTreeSet;
use std::time::Duration;

use rpc::pipelining::Lost;
use rpc::proving::{ProvingCopy, ProvingState, ProvingView};
use rpc::storage::PathHost;
use rpc::{ApiError, ApiResult, SectorName};
use sealtasks::{FileType, FileTypes, PathOrder, SectorId, StorageId};

use crate::service::Service;

impl Service {
    /// The paths whose files are a sector's replica as far as the index knows, and are proven to be none. None: it is good, or
    /// something of it is missing, so that there is nothing to prove.
    ///
    /// # Errors
    /// It is not known whether it is good, or some of it is.
    pub(crate) async fn proven_bad(
        &self,
        sector: SectorId,
        lost: Option<&Lost>,
    ) -> ApiResult<Vec<StorageId>> {
        let told = lost.cloned();
        let seems_whole = self.view(move |driver| driver.seems_whole(sector, told.as_ref())).await?;
        if !seems_whole {
            return Ok(Vec::new());
        }
        let view = self.prove_once_more(sector).await?;
        let found = bad_paths(&view, &self.held(sector), self.0.name(sector));
        found.map_err(|why| {
            ApiError::refused(format!(
                "MGR198: sector {} is not sealed again, and nothing of it was touched: {why}",
                self.0.name(sector)
            ))
        })
    }

    /// Sets aside what is left, if nothing else is in the way of sealing it again.
    ///
    /// # Errors
    /// When it is in use, or its path cannot be told to; a part may be set aside then.
    pub(crate) async fn set_remains_aside(
        &self,
        sector: SectorId,
        lost: Option<&Lost>,
        bad: &[StorageId],
    ) -> ApiResult<()> {
        let told = (lost.cloned(), bad.to_vec());
        let look = move || {
            let (told, bad) = told.clone();
            self.view(move |driver| driver.remains(sector, told.as_ref(), &bad))
        };
        let left = look().await?.iter().fold(FileTypes::NONE, |all, (_, types)| all | *types);
        if left.is_empty() {
            return Ok(());
        }
        let lock = self.claim(sector, left, "set aside, since it is sealed again".to_owned())?;
        // Until it was locked somebody may have changed it.
        let remains = look().await?;
        let paths: Vec<String> = remains.iter().map(|(path, _)| path.to_string()).collect();
        let (own, name) = (self.clone(), self.0.name(sector));
        let work = async move {
            for (path, types) in remains {
                own.set_aside(sector, types.intersection(left), path).await?;
            }
            Ok(())
        };
        within(SET_ASIDE_LIMIT, lock, work).await.unwrap_or_else(|| {
            Err(ApiError::refused(format!(
                "MGR193: sector {name} is not sealed again: what is left of it in path {} was not set aside within {} s; its disk \
                 may hang, look at that host. Should that end, it is set aside then; until it has, the sector's files are locked \
                 (`sealyard storage locks`). Ask again afterwards",
                paths.join(", "),
                SET_ASIDE_LIMIT.as_secs()
            )))
        })
    }

    async fn set_aside(&self, sector: SectorId, types: FileTypes, path: StorageId) -> ApiResult<()> {
        let order = PathOrder::SetAside { sector, types, path: path.clone() };
        self.hand_order(PathHost::Owner(path.clone()), order).await.map(drop).map_err(|error| {
            ApiError::refused(format!(
                "MGR193: sector {} is not sealed again: path {path} has {types} of it, which is not its whole replica \
                 and could not be set aside: {error}; move it away by hand, and `sealyard storage redeclare` forgets it",
                self.0.name(sector)
            ))
        })
    }
}

/// How long an operator waits until what is left of a sector is set aside: some renames, once nobody is at work on the files.
const SET_ASIDE_LIMIT: Duration = Duration::from_secs(120);

/// What comes of `work` within `limit`; `None`: it goes on behind the caller, who may end meanwhile. What it `holds` is let go
/// when it has ended: a rename that comes late must not find another file in its place.
async fn within<T: Send + 'static>(
    limit: Duration,
    holds: impl Send + 'static,
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let working = tokio::spawn(async move {
        let done = work.await;
        drop(holds);
        done
    });
    // One that panics has told so, and lets go what it holds.
    tokio::time::timeout(limit, working).await.ok()?.ok()
}

/// Where a replica lies that was proven to be bad, if nothing else lies anywhere. The error: why it may not be given up.
fn bad_paths(
    view: &ProvingView,
    held: &[(StorageId, FileTypes)],
    number: SectorName,
) -> Result<Vec<StorageId>, String> {
    let check = format!("`sealyard proving check {number}` shows all");
    let advice = match view.state {
        // Without a copy: one of its files is not there any more.
        ProvingState::Good | ProvingState::NotSealed => return Ok(Vec::new()),
        ProvingState::Bad if view.copies.is_empty() => return Ok(Vec::new()),
        ProvingState::Bad => {
            "move the bad files away by hand, and `sealyard storage redeclare --drop-missing`"
        }
        ProvingState::Locked => "try again when that is over",
        ProvingState::Away | ProvingState::Unknown => "try again when its host can prove them",
    };
    if view.state != ProvingState::Bad {
        let paths: Vec<String> = view.paths.iter().map(ToString::to_string).collect();
        let (words, paths) = (view.state.words(), paths.join(", "));
        return Err(format!(
            "whether its files in path {paths} are good is not known now: {words}: {}; {advice}; {check}",
            view.detail
        ));
    }
    let is_bad = |copy: &&ProvingCopy| copy.state == ProvingState::Bad;
    if let Some(copy) = view.copies.iter().find(|copy| !is_bad(copy)) {
        let words = copy.state.words();
        return Err(format!(
            "one copy of it is bad ({}), and another one, in path {}, is told as {words}: {}; {advice}; {check}",
            view.detail, copy.sealed, copy.detail
        ));
    }
    // A host proves one copy, whichever of its paths it finds first.
    for kind in [FileType::Sealed, FileType::Cache] {
        let of = |copy: &ProvingCopy| {
            if kind == FileType::Sealed { copy.sealed.clone() } else { copy.cache.clone() }
        };
        let proven: BTreeSet<StorageId> = view.copies.iter().map(of).collect();
        let mut lies = held.iter().filter(|(_, types)| types.contains(kind)).map(|(path, _)| path);
        if let Some(path) = lies.find(|path| !proven.contains(*path)) {
            return Err(format!(
                "one copy of it is bad ({}), and path {path} has another {kind} of it that nobody has proven; {advice}; \
                 {check}",
                view.detail
            ));
        }
    }
    Ok(held.iter().map(|(path, _)| path.clone()).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use stores::{LockOwner, LockWant, SectorLocks};

    use super::*;

    const REPLICA: FileTypes = FileTypes::SEALED.union(FileTypes::CACHE);

    fn path(name: &str) -> StorageId {
        name.parse().expect("an id")
    }

    fn judged(state: ProvingState, copies: &[(&str, &str, ProvingState)]) -> ProvingView {
        let copy = |(sealed, cache, state): &(&str, &str, ProvingState)| ProvingCopy {
            sealed: path(sealed),
            cache: path(cache),
            url: "http://host/remote".to_owned(),
            state: *state,
            detail: format!("it is {}", state.words()),
        };
        let (detail, paths) = (state.words().to_owned(), vec![path("p")]);
        let copies = copies.iter().map(copy).collect();
        ProvingView { sector: SectorId::new(1000, 1), state, detail, paths, copies }
    }

    #[tokio::test]
    async fn what_hangs_keeps_its_lock_and_not_its_caller() {
        let locks = SectorLocks::new(Arc::new(|| 0));
        let want = LockWant { sector: SectorId::new(1000, 1), read: FileTypes::NONE, write: REPLICA };
        let owner = || LockOwner { owner: "operator".to_owned(), reason: "a test".to_owned() };
        let lock = || locks.try_lock(want, owner()).expect("something is asked for");
        let (ends, ended) = tokio::sync::oneshot::channel();
        let hanging = async move { ended.await.is_ok() };
        assert_eq!(within(Duration::from_millis(1), lock().expect("free"), hanging).await, None);
        assert!(lock().is_none(), "a rename may still come");
        ends.send(()).expect("it waits still");
        let freed = async {
            while lock().is_none() {
                tokio::task::yield_now().await;
            }
        };
        freed.await;
        assert_eq!(within(SET_ASIDE_LIMIT, lock().expect("free"), async { 7 }).await, Some(7));
        assert!(lock().is_some());
    }

    #[test]
    fn only_what_is_proven_to_be_bad_throughout_is_given_up() {
        use ProvingState::{Away, Bad, Good, Locked, NotSealed, Unknown};
        let name = SectorName::from(sealtasks::SectorNumber::new(1));
        let told = |view: &ProvingView, held: &[(StorageId, FileTypes)]| bad_paths(view, held, name);
        let all = [(path("p"), REPLICA)];
        for state in [Good, NotSealed] {
            assert_eq!(told(&judged(state, &[]), &all), Ok(Vec::new()), "{state:?}");
        }
        assert_eq!(told(&judged(Bad, &[]), &all), Ok(Vec::new()), "a file of it is not there");
        for state in [Locked, Away, Unknown] {
            let why = told(&judged(state, &[]), &all).expect_err("refused");
            assert!(why.contains("path p") && why.contains(state.words()), "{why}");
        }
        assert_eq!(told(&judged(Bad, &[("p", "p", Bad)]), &all), Ok(vec![path("p")]));
        let apart = [(path("p"), FileTypes::SEALED), (path("q"), FileTypes::CACHE)];
        assert_eq!(told(&judged(Bad, &[("p", "q", Bad)]), &apart), Ok(vec![path("p"), path("q")]));
        for other in [Good, Away, Unknown] {
            let both = [(path("p"), REPLICA), (path("q"), REPLICA)];
            let why = told(&judged(Bad, &[("p", "p", Bad), ("q", "q", other)]), &both).expect_err("refused");
            assert!(why.contains("path q") && why.contains(other.words()), "{why}");
        }
        for held in [REPLICA, FileTypes::SEALED, FileTypes::CACHE] {
            let both = [(path("p"), REPLICA), (path("q"), held)];
            let why = told(&judged(Bad, &[("p", "p", Bad)]), &both).expect_err("refused");
            assert!(why.contains("path q") && why.contains("nobody has proven"), "{why}");
        }
    }
}

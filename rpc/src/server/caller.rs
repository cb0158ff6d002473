//! Who makes the call that is being answered: which methods a worker's own token opens, and what a handler can learn of
//! its caller. Never: decides whose results are whose.

use std::future::Future;

use crate::token::{Grant, Permission, Scope};

/// The methods of a manager that a worker's own token opens, besides `Filecoin.Return…`: joining, its state, and the
/// sector index. Reading the rest, pledging, other workers, tokens and the manager's own paths are not among them.
pub const WORKER_METHODS: [&str; 29] = [
    "Filecoin.ActorAddress",
    "Filecoin.ActorSectorSize",
    "Filecoin.AuthVerify",
    "Filecoin.Session",
    "Filecoin.StorageAttach",
    "Filecoin.StorageAuthVerify",
    "Filecoin.StorageBestAlloc",
    "Filecoin.StorageDeclareSector",
    "Filecoin.StorageDetach",
    "Filecoin.StorageDropSector",
    "Filecoin.StorageFindSector",
    "Filecoin.StorageInfo",
    "Filecoin.StorageList",
    "Filecoin.StorageLock",
    "Filecoin.StorageReportHealth",
    "Filecoin.StorageTryLock",
    "Filecoin.Version",
    "Filecoin.WorkerConnect",
    "Sealyard.AttemptOpen",
    "Sealyard.CanReach",
    "Sealyard.FetchToken",
    "Sealyard.Hello",
    "Sealyard.StorageDeclareBatch",
    "Sealyard.StorageDeed",
    "Sealyard.DeclareFiles",
    "Sealyard.DeclaredAll",
    "Sealyard.StorageFiles",
    "Sealyard.VerifyToken",
    "Sealyard.WorkerState",
];

/// Returns have one name per task.
const RETURNS: [&str; 2] = ["Filecoin.Return", "Sealyard.Return"];

tokio::task_local! {
    static CALLER: Grant;
}

/// What the caller of the API method that is being answered may do; `None` for a call within this process.
pub fn caller() -> Option<Grant> {
    CALLER.try_with(Clone::clone).ok()
}

/// Runs `work` for this caller.
pub(super) async fn called_by<T>(grant: Option<Grant>, work: impl Future<Output = T>) -> T {
    match grant {
        Some(grant) => CALLER.scope(grant, work).await,
        None => work.await,
    }
}

/// Whether `grant` opens the method `name`, which asks for `permission`.
pub(super) fn opens(grant: &Grant, name: &str, permission: Permission) -> bool {
    let returns = || RETURNS.iter().any(|prefix| name.starts_with(prefix));
    match grant.scope {
        None => grant.has(permission),
        Some(Scope::Worker { .. }) => WORKER_METHODS.contains(&name) || returns(),
        // Neither opens an API; the worker that is called turns its own call token into permissions.
        Some(Scope::Fetch(_) | Scope::Lotus(_) | Scope::Call { .. }) => false,
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_workers_token_opens_its_methods_and_no_others() {
        let worker = Grant { permissions: vec![], scope: Some(Scope::Worker { id: Uuid::nil() }) };
        for name in ["Filecoin.ReturnFetch", "Sealyard.Return", "Filecoin.StorageFindSector"] {
            assert!(opens(&worker, name, Permission::Admin), "{name}");
        }
        for name in ["Filecoin.AuthNew", "Filecoin.PledgeSector", "Filecoin.StorageAddLocal", "Sealyard.Jobs"]
        {
            assert!(!opens(&worker, name, Permission::Read), "{name}");
        }
        let call = Grant { permissions: vec![], scope: Some(Scope::Call { worker: Uuid::nil() }) };
        assert!(!opens(&call, "Filecoin.Version", Permission::Read));
    }
}

//! Files that a repair has made on this machine, declared to the manager of its operator. Never: makes or moves a file; whether
//! the sectors are back does not depend on it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rpc::error::chain;
use rpc::storage::PathHost;
use sealtasks::{ActorId, FileTypes, PathOrder, PathReport, SectorDecl, StorageId};
use tokio::time::timeout;

use crate::connect::Connection;
use crate::show::talk;

/// So long whoever has the path may take to look at all that lies there.
const DECLARED_MAX: Duration = Duration::from_secs(600);

/// A directory for results.
pub struct Stored {
    /// Its id as a storage path.
    pub id: StorageId,
    /// The directory.
    pub dir: PathBuf,
    /// What the repair knows to lie there.
    pub files: Vec<SectorDecl>,
}

/// Whoever has this directory open for the operator's manager, that one itself or a worker, declares the new files; where nobody
/// has, the operator hears how a manager gets them.
pub async fn hand_over(repo: &Path, miner: ActorId, stored: Stored) {
    let (id, dir) = (&stored.id, stored.dir.display());
    match declared(repo, miner, &stored).await {
        Some(Ok(())) => talk!("{dir} is attached, and its files are declared"),
        Some(Err(why)) => talk!(
            "warning: {dir} is attached, and not all of its files are declared: {why}; `sealyard storage redeclare --id {id}` \
             declares them"
        ),
        None => {
            talk!("the sectors are in {dir}; this gives them to your manager:");
            talk!("  sealyard storage attach {dir}");
        }
    }
}

/// `None`: nobody has it open for a manager of this miner.
async fn declared(repo: &Path, miner: ActorId, stored: &Stored) -> Option<Result<(), String>> {
    let connection = Connection::discover(repo).ok()?;
    connection.manager.miners().await.ok().filter(|miners| miners.contains(miner))?;
    let paths = connection.storage.storage_paths().await.ok()?;
    let path = paths.into_iter().find(|path| path.id == stored.id.to_string())?;
    let is_open = match &path.local {
        // Another directory may have the same id, copied.
        Some(open) => Path::new(open).canonicalize().is_ok_and(|open| open == stored.dir),
        None => !path.workers.is_empty(),
    };
    if !is_open {
        return None;
    }
    let Ok(done) = timeout(DECLARED_MAX, redeclare(&connection, stored)).await else {
        return Some(Err(format!("no answer within {} s", DECLARED_MAX.as_secs())));
    };
    Some(done)
}

async fn redeclare(connection: &Connection, Stored { id, files, .. }: &Stored) -> Result<(), String> {
    let order = PathOrder::Redeclare { id: Some(id.clone()), drop_missing: false };
    match connection.storage.path_order(PathHost::Owner(id.clone()), order).await {
        Ok(PathReport::Redeclared(_)) => {}
        Ok(other) => return Err(format!("the answer was {other:?}")),
        Err(error) => return Err(chain(&error)),
    }
    let listed = connection.manager.storage_files(id.clone()).await.map_err(|error| chain(&error))?;
    let is_listed = |file: &&SectorDecl| {
        let same = listed.iter().filter(|decl| decl.sector == file.sector);
        let types = same.fold(FileTypes::NONE, |all, decl| all | decl.types);
        types.intersection(file.types) == file.types
    };
    match files.iter().filter(|file| !is_listed(file)).count() {
        0 => Ok(()),
        missing => Err(format!(
            "{missing} sectors are not listed there; another directory may be open under the same id"
        )),
    }
}

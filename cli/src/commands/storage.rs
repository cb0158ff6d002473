//! `storage attach|list|find|locks`, and where the other `storage` commands are.

use std::path::{Path, PathBuf};

use rpc::WorkerApi;
use rpc::api_info::{ApiInfo, Transport};
use rpc::client::WorkerClient;
use sealtasks::{NewPath, StorageId};
use serde_json::json;
use stores::{StorageMeta, StoreError};

use super::operate::miners;
use super::{storage_balance as balance, storage_care as care, storage_scrub as scrub, storage_transfers};
use crate::args::{FindArgs, ListWhat, StorageAttachArgs, StorageCommand};
use crate::connect::{Connection, expand, rpc_failure};
use crate::exit::{Code, Failure, Outcome};
use crate::show::{self, line, print_json, print_storage, talk};
use crate::tls;

/// `storage …`.
pub async fn storage(repo: &Path, command: &StorageCommand) -> Outcome {
    let discover = || Connection::discover(repo);
    match command {
        StorageCommand::Attach(args) => attach(repo, args).await,
        StorageCommand::Detach(args) => care::detach(&discover()?, args).await,
        StorageCommand::Redeclare(args) => care::redeclare(&discover()?, args).await,
        StorageCommand::List(args) => match args.what {
            Some(ListWhat::Sectors(list)) => list_sectors(&discover()?, list.json || args.json).await,
            None => {
                let connection = discover()?;
                let paths = connection.storage.storage_paths().await.map_err(rpc_failure)?;
                if args.json {
                    return print_json(&paths);
                }
                connection.mark_rehearsal().await?;
                print_storage(&paths)
            }
        },
        StorageCommand::Find(args) => find(&discover()?, args).await,
        StorageCommand::Locks(args) => {
            let connection = discover()?;
            let locked = connection.storage.lock_table().await.map_err(rpc_failure)?;
            let now_ms = crate::clock::now_ms();
            if args.json {
                print_json(&locked)
            } else {
                show::print_locks(&locked, &miners(&connection).await?, now_ms)
            }
        }
        StorageCommand::Move(args) => care::move_sector(&discover()?, args).await,
        StorageCommand::Balance(args) => balance::balance(&discover()?, args).await,
        StorageCommand::Transfers(args) => storage_transfers::transfers(&discover()?, args).await,
        StorageCommand::Scrub(args) => scrub::scrub(&discover()?, args).await,
        StorageCommand::Cleanup(args) => care::cleanup(&discover()?, args).await,
    }
}

/// `storage find` and `find`. Nothing found is no error: the sector has no files.
pub async fn find(connection: &Connection, args: &FindArgs) -> Outcome {
    let places = connection.storage.sector_places(args.number).await.map_err(rpc_failure)?;
    let found = show::FoundSector::from(places);
    if args.json {
        return print_json(&found);
    }
    if found.places.is_empty() {
        talk!("sector {} has no files in any storage path", args.number);
    }
    if found.rehearsal {
        line("REHEARSAL: these files are empty, and no chain will ever know the sector")?;
    }
    show::print_find(&found.places)?;
    show::print_around(&found)
}

/// `storage list sectors`: paths for storing first, then by id, sector and type.
async fn list_sectors(connection: &Connection, json: bool) -> Outcome {
    let mut paths = connection.storage.storage_paths().await.map_err(rpc_failure)?;
    paths.sort_by(|a, b| b.can_store.cmp(&a.can_store).then_with(|| a.id.cmp(&b.id)));
    let miners = miners(connection).await?;
    let mut rows = Vec::new();
    if !json {
        show::print_stored_head()?;
    }
    for (at, path) in paths.iter().enumerate() {
        let mut after = None;
        loop {
            let page = stored_page(connection, &path.id, after).await?;
            let Some(last) = page.last().map(|stored| stored.sector) else { break };
            after = Some(last);
            if json {
                rows.extend(
                    page.iter().map(|stored| json!({ "path": path.id, "urls": path.urls, "stored": stored })),
                );
            } else {
                show::print_stored(path, at, &page, &miners)?;
            }
        }
    }
    if json { print_json(&rows) } else { Ok(()) }
}

/// The next sectors in a path.
pub(super) async fn stored_page(
    connection: &Connection,
    path: &str,
    after: Option<sealtasks::SectorId>,
) -> Result<Vec<rpc::storage::StoredSector>, Failure> {
    let id: StorageId =
        path.parse().map_err(|error: sealtasks::IdError| Failure::from_error(Code::Failed, &error))?;
    let page = connection.storage.stored_sectors(id, after, rpc::storage::STORED_PAGE_MAX);
    page.await.map_err(rpc_failure)
}

async fn attach(repo: &Path, args: &StorageAttachArgs) -> Outcome {
    if let Some(worker) = &args.worker {
        return care::attach_on_worker(&Connection::discover(repo)?, worker, args).await;
    }
    let path = expand(&args.path)?;
    // The daemon is found before anything is written, so that a mistake leaves no half-made path behind.
    let owner = Owner::find(repo, args)?;
    if args.init {
        if path.exists() && !path.is_dir() {
            return Err(Failure::new(Code::Storage, format!("{}: this is no directory", path.display()))
                .advise("give a directory, existing or new"));
        }
        init(&path, args)?;
    }
    let path = usable_directory(&path)?;
    if owner.has(&path).await? {
        return Err(Failure::new(Code::Storage, format!("{} is attached already", path.display()))
            .advise("`sealyard storage list` shows every path"));
    }
    owner.add(path.clone()).await?;
    let id = StorageMeta::read(&path).map_err(|error| Failure::from_error(Code::Storage, &error))?.id;
    if args.json {
        print_json(&json!({ "id": id, "path": path }))
    } else {
        line(&format!("attached {id} ({})", path.display()))
    }
}

/// The directory by its one true name.
fn usable_directory(path: &Path) -> Result<PathBuf, Failure> {
    let unusable = |why: &str| Failure::new(Code::Storage, format!("{}: {why}", path.display()));
    let make_one = "give an existing storage path, or make one with --init and --seal, --store or both";
    let found = path.canonicalize().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => unusable("there is no such directory").advise(make_one),
        _ => unusable(&error.to_string()),
    })?;
    if !found.is_dir() {
        return Err(unusable("this is no directory").advise(make_one));
    }
    if !found.join(stores::META_FILE).exists() {
        return Err(unusable("this is no storage path: it has no sectorstore.json").advise(make_one));
    }
    Ok(found)
}

/// Whose path it becomes.
enum Owner {
    Manager(Connection),
    Worker(Box<WorkerClient>),
}

impl Owner {
    fn find(repo: &Path, args: &StorageAttachArgs) -> Result<Self, Failure> {
        match &args.worker_repo {
            None => Ok(Self::Manager(Connection::from_repo(repo)?)),
            Some(repo) => Ok(Self::Worker(Box::new(worker_client(&expand(repo)?)?))),
        }
    }

    /// Whether it has this very directory open.
    async fn has(&self, path: &Path) -> Result<bool, Failure> {
        let open = match self {
            Self::Manager(connection) => connection.manager.storage_local().await,
            Self::Worker(worker) => worker.storage_local().await,
        };
        let open = open.map_err(rpc_failure)?;
        Ok(open.into_values().any(|dir| dir.canonicalize().is_ok_and(|dir| dir == path)))
    }

    async fn add(&self, path: PathBuf) -> Outcome {
        let added = match self {
            Self::Manager(connection) => connection.manager.storage_add_local(path).await,
            Self::Worker(worker) => worker.storage_add_local(path).await,
        };
        added.map_err(|error| match error {
            rpc::ApiError::Remote { .. } | rpc::ApiError::Refused { .. } => {
                Failure::from_error(Code::Storage, &error)
            }
            other => rpc_failure(other),
        })
    }
}

/// The worker whose repo this is.
pub fn worker_client(repo: &Path) -> Result<WorkerClient, Failure> {
    let unreadable = |error: rpc::repo_files::RepoFileError| Failure::from_error(Code::Repo, &error);
    let address = rpc::repo_files::read_api(repo).map_err(unreadable)?.ok_or_else(|| {
        Failure::new(Code::Unreachable, format!("no worker runs in {}", repo.display()))
            .advise("start it with `sealyard worker run`, or name its repo with --worker-repo")
    })?;
    let token = rpc::repo_files::read_token(repo).map_err(unreadable)?;
    let damaged = |error: rpc::api_info::ApiInfoError| Failure::from_error(Code::Repo, &error);
    let info: ApiInfo = address.parse().map_err(damaged)?;
    let url = info.rpc_url(Transport::Http).map_err(damaged)?;
    let trust = tls::trust(|| tls::workers_authorities(repo))?;
    WorkerClient::trusting(&url, token, Transport::Http, &trust, &rpc::Mark::default())
        .map_err(|error| Failure::from_error(Code::Setting, &error))
}

/// Writes `sectorstore.json` into a new path.
fn init(path: &Path, args: &StorageAttachArgs) -> Outcome {
    let new = settings(args)?;
    stores::new_path(path, &new).map_err(|error: StoreError| Failure::from_error(Code::Storage, &error))
}

/// The settings of a path that is to be made.
pub(super) fn settings(args: &StorageAttachArgs) -> Result<NewPath, Failure> {
    if !(args.seal || args.store) {
        return Err(Failure::new(Code::Usage, "a new storage path must be used for something")
            .advise("add --seal, --store or both"));
    }
    Ok(NewPath {
        weight: args.weight,
        max_storage: args.max_storage.as_deref().map_or(Ok(0), parse_bytes)?,
        keep_free: args.keep_free.as_deref().map_or(Ok(0), parse_bytes)?,
        can_seal: args.seal,
        can_store: args.store,
        groups: args.groups.clone(),
        allow_to: args.allow_to.clone(),
    })
}

/// `10TiB`, `512MiB`, `1000000`: bytes.
pub fn parse_bytes(text: &str) -> Result<u64, Failure> {
    const UNITS: [(&str, u32); 7] =
        [("EiB", 60), ("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];
    let trimmed = text.trim();
    let (digits, shift) = UNITS
        .iter()
        .find_map(|(unit, shift)| trimmed.strip_suffix(unit).map(|digits| (digits.trim(), *shift)))
        .unwrap_or((trimmed, 0));
    let count = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(1 << shift));
    count.ok_or_else(|| {
        Failure::new(Code::Usage, format!("{text:?} is no size"))
            .advise("write for example 10TiB, 512GiB or a number of bytes")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units_and_bounded() {
        assert_eq!(parse_bytes("10TiB").ok(), Some(10 << 40));
        assert_eq!(parse_bytes("512 MiB").ok(), Some(512 << 20));
        assert_eq!(parse_bytes("77").ok(), Some(77));
        for bad in ["", "TiB", "1.5TiB", "-1", "100EiB", "1TB"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }
}

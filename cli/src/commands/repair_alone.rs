//! `repair run` on one machine: a manager and a worker of their own in this process, over the two directories that are given.
//! What they know lies in the directory for sealing, so that another start goes on. Never: touches another manager's repo.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chain::recovery::Metadata;
use clap::Parser;
use manager::{Config, InitOptions, Repo};
use nix::sys::statvfs::statvfs;
use rpc::ApiResult;
use sealtasks::{FileTypes, NewPath, SectorId, SpaceTable, StorageId};
use stores::{META_FILE, StorageMeta};
use tokio::task::JoinHandle;

use super::declaring::{self, Stored};
use super::rebuild::{Plan, run};
use crate::args::{RepairRunArgs, RunArgs, TlsArgs};
use crate::connect::{Connection, expand, rpc_failure};
use crate::exit::{Code, Failure, Outcome};
use crate::show::talk;

/// Between two looks at a manager that starts.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long it may take to start, and to stop.
const START_MAX: Duration = Duration::from_secs(120);
/// The preference of both paths; each is the only one of its kind.
const WEIGHT: u64 = 10;
/// Where the repo keeps data that is given.
const STAGING: &str = "staging";
/// What a lost sector that is back consists of.
const REPLICA: FileTypes = FileTypes::SEALED.union(FileTypes::CACHE);

/// The two directories, by their true names.
struct Place {
    temp: PathBuf,
    result: PathBuf,
    /// The repo of the manager.
    repo: PathBuf,
}

/// Does what the plan says, here.
pub async fn repair(own_repo: &Path, args: &RepairRunArgs, mut plan: Plan, metadata: &Metadata) -> Outcome {
    let place = Place::make(args, metadata)?;
    plan.anew = Some(place.anew());
    check_paths(&place, metadata)?;
    check_space(&place, args, &plan, metadata)?;
    if !place.repo.exists() {
        Repo::init(&place.repo, InitOptions::new(metadata.miner, metadata.size))
            .map_err(|error| Failure::from_error(Code::Repo, &error))?;
    }
    let mut manager = start(&place.repo)?;
    let connection = match connect(&place.repo, &mut manager).await? {
        Some(connection) => connection,
        None => return Err(Failure::new(Code::Failed, "stopped; started again, it begins")),
    };
    let outcome = tokio::select! {
        outcome = seal(&connection, &place, plan) => outcome,
        ended = &mut manager => {
            ended.map_err(|error| Failure::from_error(Code::Failed, &error))??;
            return Err(Failure::new(Code::Failed, "stopped; started again, it goes on where it was"));
        }
    };
    let stored = stored(&connection, &place).await;
    if let Err(error) = connection.manager.shutdown().await {
        talk!("warning: the manager of this repair could not be told to end: {}", rpc::error::chain(&error));
    } else if tokio::time::timeout(START_MAX, manager).await.is_err() {
        talk!("warning: the manager of this repair did not end within {} s", START_MAX.as_secs());
    }
    // Those that are back are, whatever became of others; and what becomes of the paths changes nothing of that.
    match stored {
        Ok(stored) => {
            for path in stored {
                declaring::hand_over(own_repo, metadata.miner, path).await;
            }
        }
        Err(error) => talk!(
            "warning: what lies in {} is declared to nobody: {}",
            place.result.display(),
            rpc::error::chain(&error)
        ),
    }
    outcome
}

/// The directories for results, with what lies there.
async fn stored(connection: &Connection, place: &Place) -> ApiResult<Vec<Stored>> {
    let mut stored = Vec::new();
    for (id, dir) in connection.manager.storage_local().await? {
        if dir != place.sealing() {
            let files = connection.manager.storage_files(id.clone()).await?;
            stored.push(Stored { id, dir, files });
        }
    }
    Ok(stored)
}

impl Place {
    fn make(args: &RepairRunArgs, metadata: &Metadata) -> Result<Self, Failure> {
        let made = |given: &str| {
            let path = expand(given)?;
            let unusable =
                |error: std::io::Error| Failure::new(Code::Storage, format!("{}: {error}", path.display()));
            std::fs::create_dir_all(&path).map_err(unusable)?;
            path.canonicalize().map_err(unusable)
        };
        let (temp, result) = (made(&args.sealing_temp)?, made(&args.sealing_result)?);
        if temp.starts_with(&result) || result.starts_with(&temp) {
            return Err(Failure::new(Code::Usage, "--sealing-temp and --sealing-result lie in one another")
                .advise("give two directories beside each other"));
        }
        let repo = temp.join(format!("repair-f0{}", metadata.miner.get()));
        Ok(Self { temp, result, repo })
    }

    /// How an operator has everything of the repair begin anew.
    fn anew(&self) -> String {
        format!("remove {} and {} to begin from nothing", self.repo.display(), self.sealing().display())
    }

    /// Where sealing happens: beside the repo, so that neither is taken for the other.
    fn sealing(&self) -> PathBuf {
        self.temp.join("sealing")
    }
}

/// A manager with a worker of its own, in this process.
fn start(repo: &Path) -> Result<JoinHandle<Outcome>, Failure> {
    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        run: RunArgs,
    }
    let words = ["run", "--listen", "127.0.0.1:0", "--offline"];
    let alone = Alone::try_parse_from(words).map_err(|error| Failure::from_error(Code::Failed, &error))?;
    // What the environment says is for another manager; whom it has us believe holds for the pieces' servers.
    let tls = TlsArgs { tls_cert: None, tls_key: None, ca_file: None };
    let args = RunArgs { advertise: None, api: None, tls, ..alone.run };
    // The address of the life before would be taken for this one's; while another process has the repo it is that one's.
    let held = Repo::open(repo).map_err(|error| Failure::from_error(Code::Repo, &error))?;
    rpc::repo_files::remove_api(repo).map_err(|error| Failure::from_error(Code::Repo, &error))?;
    drop(held);
    let repo = repo.to_owned();
    Ok(tokio::spawn(async move { super::run::run(&repo, &args).await }))
}

/// `None`: it was told to stop.
async fn connect(repo: &Path, manager: &mut JoinHandle<Outcome>) -> Result<Option<Connection>, Failure> {
    let begun = tokio::time::Instant::now();
    loop {
        if manager.is_finished() {
            manager.await.map_err(|error| Failure::from_error(Code::Failed, &error))??;
            return Ok(None);
        }
        if let Ok(connection) = Connection::from_repo(repo)
            && connection.manager.version().await.is_ok()
        {
            return Ok(Some(connection));
        }
        if begun.elapsed() > START_MAX {
            let text = format!("the manager of this repair did not start within {} s", START_MAX.as_secs());
            return Err(Failure::new(Code::Failed, text));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn seal(connection: &Connection, place: &Place, plan: Plan) -> Outcome {
    let mut open = connection.manager.storage_local().await.map_err(rpc_failure)?;
    for (dir, can_seal) in [(place.sealing(), true), (place.result.clone(), false)] {
        let new = NewPath {
            weight: WEIGHT,
            max_storage: 0,
            keep_free: 0,
            can_seal,
            can_store: !can_seal,
            groups: Vec::new(),
            allow_to: Vec::new(),
        };
        if !dir.join(META_FILE).exists() {
            stores::new_path(&dir, &new).map_err(|error| Failure::from_error(Code::Storage, &error))?;
        }
        if open.remove(&path_id(&dir)?).is_none() {
            connection.manager.storage_add_local(dir).await.map_err(rpc_failure)?;
        }
    }
    for (id, dir) in open {
        leave(connection, id, dir).await?;
    }
    run(connection, plan).await
}

/// A directory that an earlier start was given for the result, and this one is not: what lies there stays known, so that it is
/// not sealed again.
async fn leave(connection: &Connection, id: StorageId, dir: PathBuf) -> Outcome {
    let held = connection.manager.storage_files(id).await.map_err(rpc_failure)?.len();
    if held > 0 {
        talk!(
            "note: {} holds {held} sectors of this repair from an earlier start, and may get more; what is to lie \
             elsewhere takes another --sealing-temp",
            dir.display()
        );
        return Ok(());
    }
    talk!("{} is no part of this repair any more: nothing of it lies there", dir.display());
    connection.manager.storage_detach_local(dir).await.map_err(rpc_failure)
}

/// Refuses directories that are storage paths for something else already: where it may be sealed into the result's path, what
/// turns out wrong would lie where a good sector belongs.
fn check_paths(place: &Place, metadata: &Metadata) -> Outcome {
    for (dir, seals) in [(place.sealing(), true), (place.result.clone(), false)] {
        if !dir.join(META_FILE).exists() {
            continue;
        }
        let read = StorageMeta::read(&dir).and_then(|meta| meta.validate(&dir));
        let (_, stanza) = read.map_err(|error| Failure::from_error(Code::Storage, &error))?;
        let needed = REPLICA.union(FileTypes::UNSEALED);
        let fits = (stanza.can_seal, stanza.can_store) == (seals, !seals)
            && stanza.filters.accepted(needed) == needed
            && stanza.filters.accepts_miner(metadata.miner);
        if !fits {
            let text = format!(
                "{} is a storage path (CanSeal {}, CanStore {}); this needs one that only {}, and takes sealed, cache and \
                 unsealed files of {}",
                dir.display(),
                stanza.can_seal,
                stanza.can_store,
                if seals { "seals" } else { "stores" },
                metadata.miner
            );
            return Err(Failure::new(Code::Storage, text).advise(
                "give another directory by --sealing-result or --sealing-temp, a new one for example",
            ));
        }
    }
    Ok(())
}

/// Says what is needed, and refuses before anything is begun where it is not there. What an earlier start has written counts
/// as there.
fn check_space(place: &Place, args: &RepairRunArgs, plan: &Plan, metadata: &Metadata) -> Outcome {
    let at_once = u64::from(args.parallel).min(plan.sectors() as u64);
    let scratch = SpaceTable::Sealing.bytes(REPLICA.union(FileTypes::UNSEALED), metadata.size) * at_once;
    let with_data = plan.with_data() as u64;
    // What is given for the sectors under way waits beside them.
    let waiting = metadata.size.bytes() * at_once.min(with_data);
    check_staging(place, waiting)?;
    let scratch = scratch + waiting;
    let stored = SpaceTable::Finalized.bytes(REPLICA, metadata.size) * plan.sectors() as u64
        + SpaceTable::Finalized.bytes(FileTypes::UNSEALED, metadata.size) * with_data;
    talk!(
        "space needed: {} in {} ({at_once} sectors of {} at once), {} in {}",
        size(scratch),
        place.temp.display(),
        metadata.size,
        size(stored),
        place.result.display()
    );
    let device = |path: &Path| std::fs::metadata(path).map(|found| found.dev());
    let sealing = used(&place.sealing()) + used(&place.repo.join(STAGING));
    let there = stored_already(place, plan, metadata);
    let needs = if device(&place.temp)? == device(&place.result)? {
        vec![(&place.temp, scratch + stored, sealing + there)]
    } else {
        vec![(&place.temp, scratch, sealing), (&place.result, stored, there)]
    };
    for (path, needed, used) in needs {
        let vfs = statvfs(path.as_path()).map_err(std::io::Error::from)?;
        let free = vfs.blocks_available().saturating_mul(vfs.fragment_size());
        if free.saturating_add(used) < needed {
            let text = format!(
                "{}: {} are needed, {} are free and {} are used by this repair",
                path.display(),
                size(needed),
                size(free),
                size(used)
            );
            return Err(Failure::new(Code::Storage, text)
                .advise("make room, lower --parallel, or give other directories by --sealing-temp and --sealing-result"));
        }
    }
    Ok(())
}

/// So much data waits at once at most, whatever room there is.
fn check_staging(place: &Place, waiting: u64) -> Outcome {
    let most = match place.repo.exists() {
        true => Config::read(&place.repo).map_err(|error| Failure::from_error(Code::Setting, &error))?,
        false => Config::default(),
    };
    let most = most.sealing.staging_max;
    if waiting <= most {
        return Ok(());
    }
    let text =
        format!("the pieces of the sectors under way take {}, and {} may wait", size(waiting), size(most));
    let config = place.repo.join("config.toml");
    Err(Failure::new(Code::Setting, text)
        .advise(format!("lower --parallel, or raise [sealing] staging_max_gib in {}", config.display())))
}

/// Bytes of these sectors in the result's directory.
fn stored_already(place: &Place, plan: &Plan, metadata: &Metadata) -> u64 {
    let of = |number| {
        let name = SectorId { miner: metadata.miner, number }.to_string();
        let kinds = REPLICA.union(FileTypes::UNSEALED).iter();
        kinds.map(|kind| used(&place.result.join(kind.name()).join(&name))).sum::<u64>()
    };
    plan.numbers().map(of).sum()
}

/// Bytes of a file, or of all that lies below a directory; what cannot be read is not counted.
fn used(path: &Path) -> u64 {
    let Ok(found) = std::fs::symlink_metadata(path) else { return 0 };
    if !found.is_dir() {
        return found.blocks().saturating_mul(512);
    }
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    entries.flatten().map(|entry| used(&entry.path())).sum()
}

/// Bytes in the largest unit that leaves four digits, rounded up.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..0x40_0000 => format!("{} KiB", bytes.div_ceil(1 << 10)),
        0x40_0000..0x1_0000_0000 => format!("{} MiB", bytes.div_ceil(1 << 20)),
        _ => format!("{} GiB", bytes.div_ceil(1 << 30)),
    }
}

fn path_id(dir: &Path) -> Result<StorageId, Failure> {
    let meta = StorageMeta::read(dir).map_err(|error| Failure::from_error(Code::Storage, &error))?;
    meta.id.parse().map_err(|error: sealtasks::IdError| Failure::from_error(Code::Storage, &error))
}

//! The daily questions: workers, jobs, sectors, and pledging.

use rpc::extension::SectorDetail;
use rpc::operator::{Removal, WorkerMode};
use rpc::{Miners, SectorName};
use sealtasks::{ActorId, SectorId, SectorNumber};
use serde::Serialize;
use serde_json::json;

use super::{control, data_cid, pipelining, proving, rebuild, unsealing};
use crate::args::{
    ListArgs, SealingCommand, SectorStateArgs, SectorsCommand, SectorsListArgs, WorkersCommand,
};
use crate::connect::{Connection, rpc_failure};
use crate::exit::{Code, Failure, Outcome};
use crate::show::{
    line, mark_rehearsal, print_jobs, print_json, print_sector, print_sectors, print_state, print_workers,
    state_of,
};

/// `workers …`.
pub async fn workers(connection: &Connection, command: &WorkersCommand) -> Outcome {
    match command {
        WorkersCommand::List(args) => list_workers(connection, *args).await,
        WorkersCommand::JoinCommand { tasks, json } => {
            super::auth::join_command(connection, tasks, *json).await
        }
        WorkersCommand::Cordon(args) => control::set_mode(connection, args, WorkerMode::Cordoned).await,
        WorkersCommand::Drain(args) => control::drain(connection, args).await,
        WorkersCommand::Enable(args) => control::set_mode(connection, args, WorkerMode::Open).await,
        WorkersCommand::Disable(args) => control::set_mode(connection, args, WorkerMode::Disabled).await,
        WorkersCommand::Caps(args) => control::caps(connection, args).await,
    }
}

/// `sealing …`.
pub async fn sealing(connection: &Connection, command: &SealingCommand) -> Outcome {
    match command {
        SealingCommand::Workers(args) => list_workers(connection, *args).await,
        SealingCommand::Jobs { all, json } => jobs(connection, *all, *json).await,
        SealingCommand::Why(args) => super::explain::why(connection, args).await,
        SealingCommand::SchedDiag(args) => super::explain::sched_diag(connection, args).await,
        SealingCommand::Durations(args) => super::explain::durations(connection, *args).await,
        SealingCommand::Abort(args) => control::abort(connection, args).await,
        SealingCommand::Priority(args) => control::priority(connection, args).await,
        SealingCommand::DataCid(args) => data_cid::print_data_cid(args).await,
    }
}

/// `sectors …`.
pub async fn sectors(connection: &Connection, command: &SectorsCommand) -> Outcome {
    match command {
        SectorsCommand::Pledge(args) => pipelining::pledge(connection, args).await,
        SectorsCommand::AddPiece(args) => pipelining::add_piece(connection, args).await,
        SectorsCommand::StartSeal { number, json } => {
            pipelining::start_sealing(connection, *number, *json).await
        }
        SectorsCommand::UpdateState(args) => pipelining::update_state(connection, args).await,
        SectorsCommand::List(args) => {
            let mut details = all_sectors(connection).await?;
            details.retain(|detail| is_listed(detail, args));
            if args.json { print_json(&details) } else { print_sectors(&details, &miners(connection).await?) }
        }
        SectorsCommand::Status { number, log, json } => {
            let detail = connection.manager.sector_detail(*number).await.map_err(rpc_failure)?;
            if *json { print_json(&detail) } else { print_sector(&detail, *log) }
        }
        SectorsCommand::State(args) => sector_state(connection, args).await,
        SectorsCommand::Unseal(args) => unsealing::unseal(connection, args).await,
        SectorsCommand::ReadPiece(args) => unsealing::read_piece(connection, args).await,
        SectorsCommand::ReleaseUnsealed(args) => unsealing::release(connection, args).await,
        SectorsCommand::Remove { number, really_do_it, although_on_chain, json } => {
            let removal = if *although_on_chain { Removal::AlthoughOnChain } else { Removal::UnlessOnChain };
            remove(connection, *number, (*really_do_it, removal), *json).await
        }
        SectorsCommand::Rebuild(args) => rebuild::run_numbers(connection, args).await,
        SectorsCommand::Retry { number, json } => {
            connection.manager.retry_sector(*number).await.map_err(rpc_failure)?;
            if *json {
                return print_json(&json!({ "sector": number }));
            }
            line(&format!(
                "sector {number} is tried again; `sealyard sectors status {number}` shows how it goes"
            ))
        }
    }
}

/// Without flags every sector is. With one, those under way, or with `--offline` those that are through, by kind.
fn is_listed(detail: &SectorDetail, args: &SectorsListArgs) -> bool {
    if !args.rebuild && !args.offline && args.sealing {
        return true;
    }
    let kind = if detail.rebuilt { args.rebuild } else { args.sealing };
    kind && (detail.state == "Proving") == args.offline
}

/// `sectors state`.
async fn sector_state(connection: &Connection, args: &SectorStateArgs) -> Outcome {
    let usage = |text: String| Failure::new(Code::Usage, text);
    let miner: ActorId = args.miner.parse().map_err(|error| usage(format!("{}: {error}", args.miner)))?;
    let ours = miners(connection).await?;
    if !ours.contains(miner) {
        let ours: Vec<String> = ours.all().map(|miner| miner.to_string()).collect();
        let text = format!("this manager is {}'s, and knows no sector of {miner}", ours.join(" and "));
        return Err(Failure::new(Code::Unknown, text));
    }
    let sector = SectorId { miner, number: SectorNumber::new(args.number) };
    let number = ours.name(sector);
    let detail = connection.manager.sector_detail(sector.into()).await.map_err(rpc_failure)?;
    if args.offline && detail.state != "Proving" {
        let text = format!("sector {number} is under way, in {}; leave --offline out", state_of(&detail));
        return Err(Failure::new(Code::Unknown, text));
    }
    let places = connection.storage.sector_places(sector.into()).await.map_err(rpc_failure)?;
    let found = crate::show::FoundSector::from(places);
    if args.json {
        return print_json(&json!({ "sector": detail, "found": found }));
    }
    print_state(&detail, &found)
}

async fn remove(
    connection: &Connection,
    sector: SectorName,
    (really_do_it, removal): (bool, Removal),
    json: bool,
) -> Outcome {
    if !really_do_it {
        let detail = connection.manager.sector_detail(sector).await.map_err(rpc_failure)?;
        let text =
            format!("sector {sector} ({}) is not removed: nothing would bring it back", state_of(&detail));
        return Err(Failure::new(Code::Usage, text).advise("add --really-do-it if that is what you want"));
    }
    connection.operator.remove_sector(sector, removal, super::control::by()).await.map_err(rpc_failure)?;
    if json {
        return print_json(&json!({ "sector": sector, "state": "Removed" }));
    }
    line(&format!("sector {sector} is removed; `sealyard storage cleanup` offers its files"))
}

async fn list_workers(connection: &Connection, args: ListArgs) -> Outcome {
    let overview = connection.manager.overview().await.map_err(rpc_failure)?;
    if args.json {
        return print_json(&overview.workers);
    }
    mark_rehearsal(&overview)?;
    print_workers(&overview.workers)
}

async fn jobs(connection: &Connection, all: bool, json: bool) -> Outcome {
    let mut jobs = connection.manager.jobs().await.map_err(rpc_failure)?;
    if !all {
        jobs.retain(|job| job.ended_ms == 0);
    }
    if json {
        print_json(&jobs)
    } else {
        print_jobs(&jobs, &miners(connection).await?, crate::clock::now_ms())
    }
}

/// Every sector with its details, by miner and number.
pub async fn all_sectors(connection: &Connection) -> Result<Vec<SectorDetail>, crate::exit::Failure> {
    let mut details = Vec::new();
    for sector in connection.manager.sectors().await.map_err(rpc_failure)? {
        details.push(connection.manager.sector_detail(sector.into()).await.map_err(rpc_failure)?);
    }
    Ok(details)
}

/// The miners that the manager serves.
pub async fn miners(connection: &Connection) -> Result<Miners, Failure> {
    connection.manager.miners().await.map_err(rpc_failure)
}

/// `info --json`.
#[derive(Serialize)]
struct Info {
    /// The one that the manager was made for.
    miner: String,
    /// All.
    miners: Vec<String>,
    sector_size: Option<sealtasks::SectorSize>,
    chain: String,
    workers: usize,
    paths: usize,
    sectors: std::collections::BTreeMap<String, u64>,
    alerts: Vec<rpc::extension::AlertView>,
    /// On chain, and in no storage path; `null`: not known now.
    on_chain_only: Option<Vec<SectorName>>,
}

/// `info`.
pub async fn info(connection: &Connection, args: ListArgs) -> Outcome {
    // What the chain says now is among the alerts then.
    let on_chain_only = proving::unheld(connection).await;
    let overview = connection.manager.overview().await.map_err(rpc_failure)?;
    let mut states = std::collections::BTreeMap::new();
    for detail in all_sectors(connection).await? {
        *states.entry(state_of(&detail)).or_insert(0) += 1;
    }
    let info = Info {
        miner: overview.miner,
        miners: super::miners::named(&miners(connection).await?),
        sector_size: overview.sector_size,
        chain: overview.chain,
        workers: overview.workers.len(),
        paths: overview.paths.len(),
        sectors: states,
        alerts: overview.alerts,
        on_chain_only,
    };
    if args.json {
        return print_json(&info);
    }
    let size = info.sector_size.map(|size| size.to_string()).unwrap_or_default();
    line(&format!("Miner: {} ({size} sectors)", crate::show::paint::blue(&info.miners.join(", "))))?;
    line(&format!("Chain: {}", info.chain))?;
    if !info.alerts.is_empty() {
        line(&format!("! {}", crate::show::paint::red(&format!("{} active alerts", info.alerts.len()))))?;
    }
    for alert in &info.alerts {
        line(&format!("        {} {}: {}", alert.system, alert.subject, alert.text))?;
    }
    line("Sectors:")?;
    line(&format!("        Total: {}", info.sectors.values().sum::<u64>()))?;
    for (state, count) in &info.sectors {
        line(&format!("        {state}: {count}"))?;
    }
    line(&format!("Workers: {}", info.workers))?;
    line(&format!("Storage paths: {}", info.paths))
}

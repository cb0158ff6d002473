//! `repair run` and `sectors rebuild`: has lost sectors sealed again by the running manager, so many at once, and waits for
//! each. Started again it goes on with what is under way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::time::Duration;

use chain::recovery::{FILE_SIZE_MAX, LostSector, Metadata, parse, sector_numbers};
use rpc::ApiError;
use rpc::explain::WaitsFor;
use rpc::pipelining::Lost;
use rpc::subject::Subject;
use sealtasks::{SectorId, SectorNumber, SectorRef};
use serde::Serialize;

use crate::args::RepairRunArgs;
use crate::connect::{Connection, rpc_failure};
use crate::exit::{Code, Failure, Outcome};
use crate::show::{line, print_json, talk};

/// Between two looks at sectors that are under way.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// So many sectors are named in the last line; each has a line of its own before it.
const NAMED_MAX: usize = 20;

/// What came of one sector.
#[derive(Serialize)]
struct Ended {
    sector: u64,
    /// Why it is not back; empty: it is.
    why: String,
}

/// `repair run`.
pub async fn run_file(connection: &Connection, args: &RepairRunArgs) -> Outcome {
    let metadata = read(&args.sectors_recovery_metadata)?;
    let usage = |error: &dyn std::error::Error| Failure::new(Code::Usage, error.to_string());
    let mut wanted: BTreeSet<SectorNumber> = metadata.sectors.iter().map(|sector| sector.number).collect();
    if !args.numbers.is_empty() {
        let named = sector_numbers(&args.numbers).map_err(|error| usage(&error))?;
        if let Some(missing) = named.iter().find(|number| !wanted.contains(*number)) {
            let file = args.sectors_recovery_metadata.display();
            return Err(Failure::new(Code::Unknown, format!("{file} has no sector {missing}")));
        }
        wanted = named.into_iter().collect();
    }
    let lost = metadata.sectors.iter().filter(|sector| wanted.contains(&sector.number));
    let jobs = lost.map(|sector| (sector.number, Some(lost_of(&metadata, sector)))).collect();
    run(connection, jobs, args.parallel, args.json).await
}

/// `sectors rebuild`: from the manager's own records.
pub async fn run_numbers(connection: &Connection, numbers: &[String], parallel: u32, json: bool) -> Outcome {
    let numbers = sector_numbers(numbers).map_err(|error| Failure::new(Code::Usage, error.to_string()))?;
    run(connection, numbers.into_iter().map(|number| (number, None)).collect(), parallel, json).await
}

fn read(path: &Path) -> Result<Metadata, Failure> {
    let unreadable = |text: String| Failure::new(Code::Setting, format!("{}: {text}", path.display()));
    let length = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if usize::try_from(length).map_or(true, |length| length > FILE_SIZE_MAX) {
        return Err(unreadable(format!("{length} bytes; at most {FILE_SIZE_MAX} are read")));
    }
    let text = std::fs::read(path).map_err(|error| unreadable(error.to_string()))?;
    parse(&text).map_err(|error| unreadable(error.to_string()))
}

/// What the manager is told of a sector; one with data needs its pieces, which are not taken yet.
fn lost_of(metadata: &Metadata, sector: &LostSector) -> Result<Lost, String> {
    if !sector.pieces.is_empty() || sector.unsealed.is_some() {
        return Err(format!(
            "it holds data in {} pieces, and only sectors of zeros are rebuilt yet",
            sector.pieces.len()
        ));
    }
    let id = SectorId { miner: metadata.miner, number: sector.number };
    Ok(Lost { sector: SectorRef { id, proof: sector.proof }, ticket: sector.ticket, sealed: sector.sealed })
}

type Job = (SectorNumber, Option<Result<Lost, String>>);

async fn run(connection: &Connection, mut jobs: VecDeque<Job>, parallel: u32, json: bool) -> Outcome {
    let all = jobs.len();
    let mut under_way = BTreeSet::new();
    let mut ended = BTreeMap::new();
    while !jobs.is_empty() || !under_way.is_empty() {
        while under_way.len() < usize::try_from(parallel).unwrap_or(1)
            && let Some((number, job)) = jobs.pop_front()
        {
            match begin(connection, number, job).await? {
                None if is_whole(connection, number).await? => {
                    talk!(
                        "sector {number}: nothing of it is lost as far as the index knows; nothing was done"
                    );
                    ended.insert(number, String::new());
                }
                None => {
                    under_way.insert(number);
                }
                Some(why) => end(&mut ended, number, why),
            }
        }
        let mut over = Vec::new();
        for number in &under_way {
            if let Some(why) = look(connection, *number).await? {
                over.push((*number, why));
            }
        }
        for (number, why) in over {
            under_way.remove(&number);
            end(&mut ended, number, why);
        }
        if !under_way.is_empty() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    let missing: Vec<u64> =
        ended.iter().filter(|(_, why)| !why.is_empty()).map(|(number, _)| number.get()).collect();
    if json {
        let ended = ended.into_iter().map(|(number, why)| Ended { sector: number.get(), why });
        print_json(&ended.collect::<Vec<_>>())?;
    } else {
        line(&format!("{} of {all} sectors are back, or were not lost", all - missing.len()))?;
    }
    if missing.is_empty() {
        return Ok(());
    }
    let named: Vec<String> = missing.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    let more = if missing.len() > NAMED_MAX { " …" } else { "" };
    let text = format!("{} of {all} sectors are not back: {}{more}", missing.len(), named.join(" "));
    Err(Failure::new(Code::Failed, text))
}

/// `Some`: it does not begin, and why.
async fn begin(
    connection: &Connection,
    number: SectorNumber,
    job: Option<Result<Lost, String>>,
) -> Result<Option<String>, Failure> {
    let lost = match job.transpose() {
        Ok(lost) => lost,
        Err(why) => return Ok(Some(why)),
    };
    match connection.pipeline.rebuild(number, lost).await {
        Ok(()) => Ok(None),
        Err(ApiError::Remote { message, .. }) => Ok(Some(message)),
        Err(error) => Err(rpc_failure(error)),
    }
}

/// Whether nothing began: what is sealed again has left this state when the manager answers.
async fn is_whole(connection: &Connection, number: SectorNumber) -> Result<bool, Failure> {
    let sector = connection.manager.sector_detail(number).await.map_err(rpc_failure)?;
    Ok(sector.state == "Proving")
}

/// `Some`: it is over; empty: the sector is back.
async fn look(connection: &Connection, number: SectorNumber) -> Result<Option<String>, Failure> {
    let sector = connection.manager.sector_detail(number).await.map_err(rpc_failure)?;
    if sector.state == "Proving" {
        return Ok(Some(String::new()));
    }
    let why = connection.manager.why(Subject::Number(number)).await.map_err(rpc_failure)?;
    let given_up = why.waits_for == WaitsFor::Operator;
    Ok(given_up.then_some(if sector.last_error.is_empty() { why.summary } else { sector.last_error }))
}

fn end(ended: &mut BTreeMap<SectorNumber, String>, number: SectorNumber, why: String) {
    if why.is_empty() {
        talk!("sector {number} is back");
    } else {
        talk!("sector {number} is not back: {why}");
    }
    ended.insert(number, why);
}

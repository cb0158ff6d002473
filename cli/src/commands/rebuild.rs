//! `repair run` and `sectors rebuild`: has lost sectors sealed again by the running manager, so many at once, and waits for
//! each. Started again it goes on with what is under way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::time::{Duration, Instant};

use chain::recovery::{ExportFailure, LostSector, Metadata, sector_numbers};
use pieces::commitment::combine;
use rpc::explain::WaitsFor;
use rpc::pipelining::{Lost, RoomWish};
use rpc::subject::Subject;
use rpc::{ApiError, Miners, SectorName};
use sealtasks::{ActorId, SectorId, SectorNumber, SectorRef, SectorSize, UnsealedCid};
use serde::Serialize;

use super::known::{Known, known};
use super::rebuild_room::check_room;
use super::rebuild_waiting::Waiting;
use super::refill::{Sources, hand_over, objection};
use super::worth::worth_it;
use crate::args::{RebuildArgs, RepairRunArgs};
use crate::connect::{Connection, rpc_failure};
use crate::exit::{Code, Failure, Outcome};
use crate::show::{brief, line, print_json, talk};

/// Between two looks at sectors that are under way.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between two beginnings of large sectors (filecoin-sealer-recover's ten minutes).
const STAGGER: Duration = Duration::from_secs(600);
/// What the manager says while a path may yet come back that could have what is sought; that ends by itself.
const MAY_BE_BACK: &str = "MGR159";
/// What it says of a path that has the sector's files and is not there.
const PATH_AWAY: [&str; 2] = ["MGR143", "MGR144"];
/// What the log of a sector ends with whose rebuild was given up.
const GIVEN_UP: &str = "put into Proving by the operator";
/// What the manager says of a sector whose new replica is not the old one.
const OTHER_REPLICA: &str = "sealed again it has CommR";
/// So many sectors are named in the last line; each has a line of its own before it.
const NAMED_MAX: usize = 20;

/// What came of one sector.
#[derive(Serialize)]
struct Ended {
    sector: SectorName,
    /// Why it is not back; empty: it is.
    why: String,
}

/// `repair run` and `recover`: here, or by the running manager.
pub async fn run_file(repo: &Path, args: &RepairRunArgs) -> Outcome {
    let connection = if args.manager { Some(Connection::discover(repo)?) } else { None };
    let Known { metadata, failed, file } = known(repo, args).await?;
    // What is said of a sector has one form from here on: that of the manager which does it.
    let miners = match &connection {
        Some(connection) => super::operate::miners(connection).await?,
        None => Miners { first: metadata.miner, others: Vec::new() },
    };
    let usage = |error: &dyn std::error::Error| Failure::new(Code::Usage, error.to_string());
    let untold = failed.iter().map(|failed| failed.number);
    let mut wanted: BTreeSet<SectorNumber> =
        metadata.sectors.iter().map(|sector| sector.number).chain(untold).collect();
    if !args.numbers.is_empty() {
        let named = sector_numbers(&args.numbers).map_err(|error| usage(&error))?;
        if let Some(missing) = named.iter().find(|number| !wanted.contains(*number)) {
            return Err(Failure::new(Code::Unknown, format!("{} has no sector {missing}", file.display())));
        }
        wanted = named.into_iter().collect();
    }
    let name = |number| miners.name(SectorId { miner: metadata.miner, number });
    let why = |why: &ExportFailure| format!("{}: {}", why.code(), sealtasks::chain(why));
    let mut failed: Vec<_> = failed.iter().map(|failed| (failed.number, why(&failed.why))).collect();
    let mut jobs = VecDeque::new();
    for sector in &metadata.sectors {
        match lost_of(&metadata, sector) {
            Ok(lost) if wanted.contains(&sector.number) => jobs.push_back((name(sector.number), Some(lost))),
            Ok(_) => {}
            Err(why) => failed.push((sector.number, why)),
        }
    }
    failed.retain(|(number, _)| wanted.contains(number));
    let mut failed = failed.into_iter().map(|(number, why)| (name(number), why)).collect();
    // A manager asks its own chain.
    if connection.is_none() {
        jobs = worth_it(repo, args.nosync, jobs, &mut failed).await?;
    }
    let sources = Sources::parse(&args.pieces)?;
    let stagger = stagger(args.stagger, metadata.size);
    let room = connection.is_some().then_some(metadata.size);
    let plan =
        Plan { jobs, failed, parallel: args.parallel, stagger, json: args.json, sources, room, anew: None };
    if plan.jobs.is_empty() {
        // Nothing is made for nothing.
        let all = plan.failed.len();
        return tell(over(plan.failed), all, plan.json);
    }
    if let Some(connection) = connection {
        return run(&connection, plan).await;
    }
    super::repair_alone::repair(repo, args, plan, &metadata).await
}

/// Between the beginnings of two sectors, unless the operator says otherwise.
fn stagger(seconds: Option<u64>, size: SectorSize) -> Duration {
    let default = if size >= SectorSize::GiB32 { STAGGER } else { Duration::ZERO };
    seconds.map_or(default, Duration::from_secs)
}

/// `sectors rebuild`: from the manager's own records.
pub async fn run_numbers(connection: &Connection, args: &RebuildArgs) -> Outcome {
    let jobs = named(&args.numbers)?.into_iter().map(|name| (name, None)).collect();
    let sources = Sources::parse(&args.pieces)?;
    let (parallel, stagger, failed) = (args.parallel, Duration::ZERO, Vec::new());
    run(
        connection,
        Plan { jobs, failed, parallel, stagger, json: args.json, sources, room: None, anew: None },
    )
    .await
}

/// `7`, `1-100`, `f02000/7`, or all of these behind a miner.
fn named(words: &[String]) -> Result<BTreeSet<SectorName>, Failure> {
    let usage = |error: &dyn std::error::Error| Failure::new(Code::Usage, error.to_string());
    let (miner, words) = match words.split_first() {
        Some((first, rest)) if !rest.is_empty() && first.parse::<ActorId>().is_ok() => {
            (first.parse().ok(), rest)
        }
        _ => (None, words),
    };
    let mut names = BTreeSet::new();
    for word in words {
        let (of, numbers) = match word.split_once('/') {
            None => (miner, word.as_str()),
            Some((of, numbers)) => (Some(of.parse::<ActorId>().map_err(|error| usage(&error))?), numbers),
        };
        let numbers = sector_numbers(&[numbers]).map_err(|error| usage(&error))?;
        names.extend(numbers.into_iter().map(|number| SectorName { miner: of, number }));
    }
    Ok(names)
}

/// What the manager is told of a sector.
fn lost_of(metadata: &Metadata, sector: &LostSector) -> Result<Lost, String> {
    check_unsealed(metadata.size, sector)?;
    let id = SectorId { miner: metadata.miner, number: sector.number };
    let sector_ref = SectorRef { id, proof: sector.proof };
    let pieces = sector.pieces.clone();
    Ok(Lost { sector: sector_ref, ticket: sector.ticket, sealed: sector.sealed, pieces })
}

/// What is sealed from other data has another CommR, which is known hours later.
fn check_unsealed(size: SectorSize, sector: &LostSector) -> Result<(), String> {
    let Some(stated) = sector.unsealed else { return Ok(()) };
    let made = combine(&sector.pieces, size).map_err(|error| format!("Pieces: {error}"))?;
    if made == stated.commitment() {
        return Ok(());
    }
    if sector.pieces.is_empty() {
        return Err("the file says that it holds data, and not in which pieces".to_owned());
    }
    let made = UnsealedCid::new(made);
    Err(format!(
        "UnsealedCID is {stated}, and its Pieces in this order make {made}; one of them is missing, in another place or has \
         another size, or UnsealedCID is wrong; mend the file and start again"
    ))
}

/// A sector, and what it is sealed from if the manager is to be told.
pub type Job = (SectorName, Option<Lost>);

/// What is sealed again, and how.
pub struct Plan {
    jobs: VecDeque<Job>,
    /// Of these too little is known, and why.
    failed: Vec<(SectorName, String)>,
    /// Sectors under way at once.
    parallel: u32,
    /// Between the beginnings of two of them, at least: all of PreCommit1 at the same stage wants the same at the same time.
    stagger: Duration,
    json: bool,
    sources: Sources,
    /// The size of sectors for which there must be room before the first one begins.
    room: Option<SectorSize>,
    /// How an operator has everything begin anew. With it, what waits for an operator is tried once more, since
    /// whoever starts this again wants that.
    pub anew: Option<String>,
}

impl Plan {
    /// How many sectors.
    pub fn sectors(&self) -> usize {
        self.jobs.len()
    }

    /// Their numbers.
    pub fn numbers(&self) -> impl Iterator<Item = SectorNumber> + '_ {
        self.jobs.iter().map(|(name, _)| name.number)
    }

    /// How many of them hold data.
    pub fn with_data(&self) -> usize {
        let holds = |(_, job): &&Job| matches!(job, Some(lost) if !lost.pieces.is_empty());
        self.jobs.iter().filter(holds).count()
    }
}

/// Does it by a manager, and waits for the end.
pub async fn run(connection: &Connection, plan: Plan) -> Outcome {
    let Plan { jobs, failed, parallel, stagger, json, sources, room, anew } = plan;
    let mut last_start: Option<Instant> = None;
    let mut under_way = BTreeMap::new();
    let mut ended = over(failed);
    let mut held_up = BTreeSet::new();
    let jobs = settled(connection, jobs, &mut ended).await?;
    let all = jobs.len() + ended.len();
    // Before hours of work, not behind them.
    let jobs = complete(connection, jobs, &sources, &mut ended).await?;
    if let Some(size) = room {
        // Their files were looked for: those of which nothing is lost take none.
        check_room(connection, room_wish(&jobs, parallel), size).await?;
    }
    let (mut jobs, under_way_before) = begun_first(connection, jobs).await;
    while !jobs.is_empty() || !under_way.is_empty() {
        while under_way.len() < usize::try_from(parallel).unwrap_or(1)
            && (last_start.is_none_or(|last| last.elapsed() >= stagger)
                || jobs.front().is_some_and(|(number, _)| under_way_before.contains(number)))
            && let Some((number, job)) = jobs.pop_front()
        {
            match begin(connection, number, job.clone(), &sources).await? {
                None if is_whole(connection, number).await? => {
                    talk!(
                        "sector {number}: nothing of it is lost: all of it is there and was proven; nothing was done"
                    );
                    ended.insert(number, String::new());
                }
                None => {
                    if anew.is_some() {
                        try_once_more(connection, number).await?;
                    }
                    if !under_way_before.contains(&number) {
                        last_start = Some(Instant::now());
                    }
                    under_way.insert(number, Waiting::new());
                }
                // The manager says for how long at most.
                Some(why) if why.contains(MAY_BE_BACK) => {
                    if held_up.insert(number) {
                        talk!("sector {number} waits: {why}");
                    }
                    jobs.push_front((number, job));
                    break;
                }
                Some(why) => end(&mut ended, number, advised(why, anew.as_deref())),
            }
        }
        let mut over = Vec::new();
        for (number, waiting) in &mut under_way {
            if let Some(why) = look(connection, *number, waiting).await? {
                over.push((*number, why));
            }
        }
        for (number, why) in over {
            under_way.remove(&number);
            end(&mut ended, number, advised(why, anew.as_deref()));
        }
        if !under_way.is_empty() || !jobs.is_empty() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    tell(ended, all, json)
}

/// What the operator of a repair can do about it, who has no manager to ask.
fn advised(why: String, anew: Option<&str>) -> String {
    match anew {
        Some(anew) if why.contains(OTHER_REPLICA) => {
            format!("{why}; mend the file and start again, or {anew}")
        }
        Some(anew) if PATH_AWAY.iter().any(|code| why.contains(code)) => {
            format!("{why}; bring it back and start again, or {anew}")
        }
        _ => why,
    }
}

/// Sums up; the exit code says whether all are back.
fn tell(ended: BTreeMap<SectorName, String>, all: usize, json: bool) -> Outcome {
    let missing: Vec<SectorName> =
        ended.iter().filter(|(_, why)| !why.is_empty()).map(|(number, _)| *number).collect();
    if json {
        let ended = ended.into_iter().map(|(number, why)| Ended { sector: number, why });
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

/// Those of which nothing is missing; of the others all that is.
async fn complete(
    connection: &Connection,
    jobs: VecDeque<Job>,
    sources: &Sources,
    ended: &mut BTreeMap<SectorName, String>,
) -> Result<VecDeque<Job>, Failure> {
    let mut kept = VecDeque::new();
    for (number, job) in jobs {
        match objection(connection, number, job.as_ref(), sources).await? {
            Some(why) => end(ended, number, why),
            None => kept.push_back((number, job)),
        }
    }
    Ok(kept)
}

/// What room is sought for.
fn room_wish(jobs: &VecDeque<Job>, at_once: u32) -> RoomWish {
    let lost = jobs.iter().filter_map(|(_, job)| job.as_ref());
    RoomWish { sectors: lost.map(|lost| (lost.sector.id, !lost.pieces.is_empty())).collect(), at_once }
}

/// Those that an earlier start has begun come first, and begin nothing now.
async fn begun_first(connection: &Connection, jobs: VecDeque<Job>) -> (VecDeque<Job>, BTreeSet<SectorName>) {
    let (mut first, mut others, mut begun) = (VecDeque::new(), VecDeque::new(), BTreeSet::new());
    for job in jobs {
        match connection.manager.sector_detail(job.0).await {
            Ok(known) if known.state != "Proving" => {
                begun.insert(job.0);
                first.push_back(job);
            }
            _ => others.push_back(job),
        }
    }
    first.append(&mut others);
    (first, begun)
}

/// `Some`: it does not begin, and why.
async fn begin(
    connection: &Connection,
    number: SectorName,
    lost: Option<Lost>,
    sources: &Sources,
) -> Result<Option<String>, Failure> {
    if let Some(why) = hand_over(connection, number, lost.as_ref(), sources).await? {
        return Ok(Some(why));
    }
    match connection.pipeline.rebuild(number, lost).await {
        Ok(()) => Ok(None),
        Err(ApiError::Remote { message, .. }) => Ok(Some(message)),
        Err(error) => Err(rpc_failure(error)),
    }
}

/// Each once, by the name that stays its own, whatever sectors of other miners come to have its number meanwhile: without its miner
/// where the manager has but this one. Whose number is unclear is none of them.
async fn settled(
    connection: &Connection,
    jobs: VecDeque<Job>,
    ended: &mut BTreeMap<SectorName, String>,
) -> Result<VecDeque<Job>, Failure> {
    let miners = super::operate::miners(connection).await?;
    let mut kept: VecDeque<Job> = VecDeque::new();
    for (SectorName { miner, number }, job) in jobs {
        let id = match miner {
            Some(miner) => SectorId { miner, number },
            None if miners.others.is_empty() => SectorId { miner: miners.first, number },
            None => match connection.manager.sector_detail(number.into()).await {
                Ok(sector) => sector.sector,
                Err(ApiError::Remote { message, .. }) => {
                    end(ended, number.into(), message);
                    continue;
                }
                Err(error) => return Err(rpc_failure(error)),
            },
        };
        let name = miners.name(id);
        // Named with its miner and without.
        if kept.iter().all(|(other, _)| *other != name) {
            kept.push_back((name, job));
        }
    }
    Ok(kept)
}

fn subject(SectorName { miner, number }: SectorName) -> Subject {
    miner.map_or(Subject::Number(number), |miner| Subject::Sector(SectorId { miner, number }))
}

/// Whether nothing began: what is sealed again has left this state when the manager answers.
async fn is_whole(connection: &Connection, number: SectorName) -> Result<bool, Failure> {
    let sector = connection.manager.sector_detail(number).await.map_err(rpc_failure)?;
    Ok(sector.state == "Proving")
}

/// Goes on with a sector that waits for an operator, unless it would become the same wrong replica again.
async fn try_once_more(connection: &Connection, number: SectorName) -> Outcome {
    let sector = connection.manager.sector_detail(number).await.map_err(rpc_failure)?;
    let why = connection.manager.why(subject(number)).await.map_err(rpc_failure)?;
    let stuck = why.waits_for == WaitsFor::Operator && !sector.last_error.is_empty();
    if !stuck || sector.last_error.contains(OTHER_REPLICA) {
        return Ok(());
    }
    talk!("sector {number} is tried once more; it failed before: {}", sector.last_error);
    connection.manager.retry_sector(number).await.map_err(rpc_failure)
}

/// `Some`: it is over; empty: the sector is back. Says what it waits for, where nobody works on it.
async fn look(
    connection: &Connection,
    number: SectorName,
    waiting: &mut Waiting,
) -> Result<Option<String>, Failure> {
    // In this order: what fails in between has its error in the second answer.
    let why = connection.manager.why(subject(number)).await.map_err(rpc_failure)?;
    let sector = connection.manager.sector_detail(number).await.map_err(rpc_failure)?;
    if sector.state == "Proving" {
        let step = sector.log.iter().rev().find(|(_, kind, _)| kind == "sector_stepped");
        let given_up = step.is_some_and(|(_, _, text)| text.starts_with(GIVEN_UP));
        return Ok(Some(if given_up { "it was given up by an operator".to_owned() } else { String::new() }));
    }
    if waiting.is_due(&why) {
        talk!("sector {number} waits: {}", brief(&why));
    }
    let given_up = why.waits_for == WaitsFor::Operator;
    Ok(given_up.then_some(if sector.last_error.is_empty() { why.summary } else { sector.last_error }))
}

/// Those that are not even begun.
fn over(failed: Vec<(SectorName, String)>) -> BTreeMap<SectorName, String> {
    let mut ended = BTreeMap::new();
    for (name, why) in failed {
        end(&mut ended, name, why);
    }
    ended
}

fn end(ended: &mut BTreeMap<SectorName, String>, number: SectorName, why: String) {
    if why.is_empty() {
        talk!("sector {number} is back");
    } else {
        talk!("sector {number} is not back: {why}");
    }
    ended.insert(number, why);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_sectors_are_staggered_unless_told_otherwise() {
        let minutes = |size| stagger(None, size).as_secs() / 60;
        let sizes = [SectorSize::KiB2, SectorSize::MiB512, SectorSize::GiB32, SectorSize::GiB64];
        assert_eq!(sizes.map(minutes), [0, 0, 10, 10]);
        assert_eq!(stagger(Some(3), SectorSize::GiB32), Duration::from_secs(3));
        assert_eq!(stagger(Some(0), SectorSize::GiB32), Duration::ZERO);
    }
}

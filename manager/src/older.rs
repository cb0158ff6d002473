//! Copies that are older than others and listed nowhere: what people are told of them, and what becomes of one when nobody
//! has a newer copy any more. Never: deletes or lists one itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use rpc::api::ApiResult;
use rpc::storage::OlderCopy;
use sealtasks::{FileType, FileTypes, PathOrder, SectorId, StorageId};

use crate::service::Service;

impl Service {
    /// A sector's older copies, by path, each with what is to be done about it.
    pub(crate) async fn older_copies(&self, sector: SectorId) -> ApiResult<Vec<OlderCopy>> {
        let older = self.0.index.older_of(sector);
        if older.is_empty() {
            return Ok(Vec::new());
        }
        let (mut servers, held) = (self.servers().await?, self.0.index.sector_files(sector));
        let copy = |(path, types): (StorageId, FileTypes)| {
            let among = |of: fn(&stores::HeldFiles) -> FileTypes| {
                let has = held.iter().filter(|held| !of(held).intersection(types).is_empty());
                has.map(|held| held.id.clone()).collect::<Vec<_>>()
            };
            let (there, remembered) = (among(|held| held.types), among(|held| held.unconfirmed));
            let workers = servers.remove(&path).unwrap_or_default();
            let remedy = remedy(&path, &workers, &there, &remembered);
            let newer: BTreeSet<StorageId> = there.into_iter().chain(remembered).collect();
            OlderCopy { path, workers, types, newer: newer.into_iter().collect(), remedy }
        };
        Ok(older.into_iter().map(copy).collect())
    }
}

fn remedy(path: &StorageId, workers: &[String], there: &[StorageId], remembered: &[StorageId]) -> String {
    let Some(host) = workers.first() else {
        return "nobody serves this path now: start the worker that has it to be offered the copy for deletion".to_owned();
    };
    if !there.is_empty() {
        let of = if host == "manager" { String::new() } else { format!(" --worker {host}") };
        return format!(
            "the newer one is in path {}; `sealyard storage cleanup{of}` offers this one for deletion",
            words(there)
        );
    }
    if !remembered.is_empty() {
        let ids = words(remembered);
        return format!(
            "the newer one was in path {ids} when the manager last ran: start whoever serves it; if it is lost for good, \
             `sealyard storage detach --id {} --really-do-it` forgets it, and this one is listed",
            remembered[0]
        );
    }
    format!(
        "nobody has a newer one any more: {host} is asked for this one in a while; `sealyard storage redeclare --id {path}` \
         lists it at once"
    )
}

fn words(paths: &[StorageId]) -> String {
    paths.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// An older copy, since when no newer one is known, and whether its owner has been asked for it.
type Waiting = BTreeMap<(SectorId, FileType, StorageId), (Instant, bool)>;

/// Asks whoever serves an older copy to declare it again once no newer one has been known for long, until the manager stops.
pub(crate) async fn ask_owners(service: Service) {
    let cancelled = service.0.cancelled.clone();
    let mut beat = tokio::time::interval(service.0.timing.look_around);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut waiting = Waiting::new();
    let asking = async {
        loop {
            beat.tick().await;
            ask_round(&service, &mut waiting).await;
        }
    };
    tokio::select! {
        () = cancelled.cancelled() => {}
        () = asking => {}
    }
}

async fn ask_round(service: &Service, waiting: &mut Waiting) {
    let stranded: BTreeSet<_> = service.0.index.stranded().into_iter().collect();
    waiting.retain(|one, _| stranded.contains(one));
    for one in stranded {
        waiting.entry(one).or_insert((Instant::now(), false));
    }
    let gone = service.0.timing.newer_gone;
    let due = waiting.iter().filter(|(_, (since, asked))| !asked && since.elapsed() >= gone);
    let mut due: Vec<_> = due.map(|(one, _)| one.clone()).collect();
    if due.is_empty() {
        return;
    }
    // Whoever works on a sector is about to make the file anew.
    let idle = service.view(move |driver| {
        due.retain(|(sector, ..)| !driver.is_worked_on(*sector));
        due
    });
    let Ok(due) = idle.await else { return };
    let paths: BTreeSet<StorageId> = due.iter().map(|(.., path)| path.clone()).collect();
    for path in paths {
        let order = PathOrder::Redeclare { id: Some(path.clone()), drop_missing: false };
        match service.hand_look(&path, order).await {
            Ok(_) => {
                tracing::warn!(%path, "scanned again: nobody has a newer copy of what it holds any more");
                // What is not listed now is not there.
                for one in due.iter().filter(|(.., of)| *of == path) {
                    waiting.entry(one.clone()).and_modify(|(_, asked)| *asked = true);
                }
            }
            Err(error) => {
                tracing::debug!(%path, %error, "its older copies are not declared yet");
                // A scan that takes long is not asked for again at every look.
                for one in due.iter().filter(|(.., of)| *of == path) {
                    waiting.entry(one.clone()).and_modify(|(since, _)| *since = Instant::now());
                }
            }
        }
    }
}

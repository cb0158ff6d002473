//! What a move still owes: the deletion of its source, where the source was away or refused. It is noted durably beside
//! the file and asked for again until it is done, no longer to be done, or a week has passed; where both copies lie where they
//! were and are listed as primary it is not given up for its age. A Lotus source, which has no exact deletion, is asked again only
//! when the file here is next wanted and is still all that came; else it is left alone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sealtasks::{FileType, SectorId, SectorStorageInfo, StorageId};

use super::Remote;
use super::bring::{both_count, discard};
use crate::error::StoreError;
use crate::fetch::arriving::{Arrived, Arriving};
use crate::layout;
use crate::local::chain;
use crate::space::FileKey;

/// Between two rounds.
const PERIOD: Duration = Duration::from_secs(30);
/// A debt this young is asked for in each round, an older one in every so many: about once an hour.
const YOUNG: Duration = Duration::from_secs(3600);
const OLD_ROUNDS: u64 = 120;
/// Older debts are given up, unless both copies count: a survey then shows the source as a file that its path does not list.
const AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// What came of asking a source to delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// It has been deleted, or has been replaced by another file since and does not count beside this one.
    Done,
    /// Its holder is away.
    Away,
    /// Its holder refuses.
    Refused,
}

impl Remote {
    /// Asks for the deletions that moves into the paths of this process still owe, now and then, until dropped.
    pub async fn settle_debts_for_ever(&self) {
        let mut beat = tokio::time::interval(PERIOD);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for round in 0_u64.. {
            beat.tick().await;
            let younger_than = if round.is_multiple_of(OLD_ROUNDS) { Duration::MAX } else { YOUNG };
            self.settle_debts(younger_than).await;
        }
    }

    /// Asks for those once that are younger than this. Returns how many were settled and how many are left.
    pub async fn settle_debts(&self, younger_than: Duration) -> (usize, usize) {
        let (mut settled, mut left) = (0, 0);
        // A host that is away is not waited for again in the same round.
        let mut away = BTreeSet::new();
        for path in self.local.paths() {
            let dir = path.dir.clone();
            let look = self.local.look(&path.dir, "looking for what moves owe", move || {
                let arrivals = layout::arrivals(&dir).into_iter();
                Ok(arrivals.filter(|(at, ..)| Arriving::is_debt(at, younger_than)).collect::<Vec<_>>())
            });
            // A path that hangs has its turn when it is back.
            let Ok(debts) = look.await else { continue };
            for (_, sector, kind) in debts {
                match self.settle(&path.id, sector, kind, &mut away).await {
                    Ok(true) => settled += 1,
                    Ok(false) => left += 1,
                    Err(error) => {
                        left += 1;
                        tracing::warn!(%sector, %kind, error = chain(&error), "the source of a move is not deleted yet");
                    }
                }
            }
        }
        if settled + left > 0 {
            tracing::info!(settled, left, "sources of finished moves that were still to be deleted");
        }
        (settled, left)
    }

    /// Whether nothing is owed for this file any more.
    async fn settle(
        &self,
        id: &StorageId,
        sector: SectorId,
        kind: FileType,
        away: &mut BTreeSet<String>,
    ) -> Result<bool, StoreError> {
        let turn = self.turn(sector, kind).await;
        let (dir, held) = (self.local.dir(id)?, Arc::clone(&turn));
        let at = dir.clone();
        let left = self.local.look(&at, "looking at what a move owes", move || {
            let Some(place) = Arriving::left(&dir, sector, kind)? else { return Ok(None) };
            let place = place.in_turn(held);
            let noted = place.arrived().filter(|noted| noted.moves && !place.data().exists());
            let owed = noted.map(|noted| (place.still_holds(&noted), place.age() > AGE_MAX, noted));
            Ok(owed.map(|owed| (Arc::new(place), owed)))
        });
        let result = match left.await {
            Ok(Some((place, (in_place, old, noted)))) => {
                self.settle_one(id, &noted, &place, Debt { in_place, old }, away).await
            }
            // It is settled, or somebody is at work on it.
            Ok(None) | Err(StoreError::Arriving { .. }) => Ok(true),
            Err(error) => Err(error),
        };
        drop(turn);
        self.forget_turns();
        result
    }

    async fn settle_one(
        &self,
        id: &StorageId,
        noted: &Arrived,
        place: &Arc<Arriving>,
        debt: Debt,
        away: &mut BTreeSet<String>,
    ) -> Result<bool, StoreError> {
        let (sector, kind) = place.file();
        let holders = self.index.find(sector, kind.into(), None).await?;
        let listed = holders.iter().any(|holder| holder.id == *id);
        if !debt.in_place
            && !debt.old
            && noted.declared
            && self.carry(id, noted, place.file(), &holders).await?
        {
            discard(Arc::clone(place)).await?;
            return Ok(false);
        }
        if !both_count(&holders, id, noted) && ((debt.old && (listed || noted.declared)) || !debt.in_place) {
            // The copy here has gone on its way: nothing is to be said of the source any more. The note of one that was
            // never declared stays as long as that lies here: by it no scan takes that for the file.
            tracing::warn!(%sector, %kind, url = noted.url, old = debt.old, "the source of a move is left alone");
            discard(Arc::clone(place)).await?;
            return Ok(true);
        }
        // Only an exact deletion can be repeated: the copy there may be another one by now.
        if noted.etag.is_none() || away.contains(host_of(&noted.url)) {
            return Ok(false);
        }
        if !holders.iter().any(|holder| holder.id == *id && holder.primary) {
            return Ok(false);
        }
        match self.delete_source(id, noted, (sector, kind), !noted.declared).await? {
            Settled::Done => discard(Arc::clone(place)).await.map(|()| true),
            Settled::Refused => Ok(false),
            Settled::Away => {
                away.insert(host_of(&noted.url).to_owned());
                Ok(false)
            }
        }
    }
}

impl Remote {
    /// Notes what is owed for a copy where that has gone from the path `id`, if it is another path of this process: it is asked
    /// for from there.
    async fn carry(
        &self,
        id: &StorageId,
        noted: &Arrived,
        (sector, kind): FileKey,
        holders: &[SectorStorageInfo],
    ) -> Result<bool, StoreError> {
        let is_source = |id: &StorageId| id.to_string() == noted.holder;
        let others = holders.iter().filter(|holder| holder.id != *id && !is_source(&holder.id));
        for holder in others.filter(|holder| holder.primary) {
            let Ok(dir) = self.local.dir(&holder.id) else { continue };
            let (at, noted) = (dir.clone(), noted.clone());
            let look = self.local.look(&at, "looking where a moved file has gone", move || {
                let there = Arriving::claim(&dir, sector, kind)?;
                // Something else is on its way there.
                if there.arrived().is_some() || there.plan().is_some() {
                    return Ok(false);
                }
                let is_there = there.still_holds(&noted);
                if is_there {
                    there.set_arrived(&noted)?;
                } else {
                    there.discard();
                }
                Ok(is_there)
            });
            if look.await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn host_of(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, rest)| rest).split('/').next().unwrap_or_default()
}

#[derive(Clone, Copy)]
struct Debt {
    /// The moved file lies where it was put, with all that came.
    in_place: bool,
    old: bool,
}

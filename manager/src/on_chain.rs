//! What the chain and this manager say of each other's sectors: held against each other soon after the start, about every hour,
//! and whenever somebody asks. What is at odds is an alert. Never: does anything about it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chain::{Allocation, Compared};
use pipeline::RandomnessSource;
use rpc::extension::AlertView;
use rpc::{ApiError, ApiResult};
use sealtasks::{ActorId, ChainEpoch, SectorId, SectorNumber, StorageId};

use crate::driver::Driver;
use crate::proving::missing;
use crate::service::{Service, refusal};

/// What its alerts are about: one for each of a miner's, since who takes them as Lotus's knows them by system and subject.
const SYSTEMS: [&str; 2] = ["chain-not-held", "chain-not-live"];
/// Workers that are there have attached their paths again so long after a start, and a node that is there has been heard of.
const FIRST_LOOK: Duration = Duration::from_secs(60);
/// One look at one miner's sectors takes no longer: it asks for 48 deadlines.
const LOOK_MAX: Duration = Duration::from_secs(600);
/// Sectors that an alert names; `proving check --json` has all that no path has.
const NAMED_MAX: usize = 20;
/// Sectors that the driver looks at in one turn.
const TURN: usize = 10_000;

/// What is at odds, by miner, as far as the chain has said it.
#[derive(Default)]
pub(crate) struct AtOdds(Mutex<BTreeMap<ActorId, Known>>);

#[derive(Default)]
struct Known {
    /// The moment at which what counts was asked: an answer to an earlier question says nothing any more.
    asked_at: u64,
    /// Sectors that are on chain and that no path has.
    not_held: Option<Finding>,
    /// Sectors that are proven here and not on chain.
    not_live: Option<Finding>,
}

struct Finding {
    text: String,
    since_ms: u64,
}

impl AtOdds {
    /// What operators must know.
    pub(crate) fn alerts(&self) -> Vec<AlertView> {
        let known = self.known();
        let of_miner = |(miner, known): (&ActorId, &Known)| {
            let alert = |(system, finding): (&str, &Option<Finding>)| {
                let Finding { text, since_ms } = finding.as_ref()?;
                let (system, subject) = (system.to_owned(), format!("f0{}", miner.get()));
                Some(AlertView { system, subject, text: text.clone(), since_ms: *since_ms })
            };
            let findings = SYSTEMS.into_iter().zip([&known.not_held, &known.not_live]);
            findings.filter_map(alert).collect::<Vec<_>>()
        };
        known.iter().flat_map(of_miner).collect()
    }

    /// The chain has said that this is at odds; `None`: nothing of that kind is.
    fn note(&self, miner: ActorId, asked_at: u64, now_ms: u64, [not_held, not_live]: [Option<String>; 2]) {
        let mut known = self.known();
        let known = known.entry(miner).or_default();
        if asked_at < known.asked_at {
            return;
        }
        known.asked_at = asked_at;
        for (finding, text) in [(&mut known.not_held, not_held), (&mut known.not_live, not_live)] {
            match (&finding, &text) {
                (Some(before), Some(text)) if before.text == *text => {}
                (_, Some(text)) => tracing::error!(%miner, "{text}"),
                (Some(before), None) => tracing::info!(%miner, was = before.text, "that is over"),
                (None, None) => {}
            }
            let since_ms = finding.as_ref().map_or(now_ms, |before| before.since_ms);
            *finding = text.map(|text| Finding { text, since_ms });
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<ActorId, Known>> {
        // Each finding is replaced as a whole, so what a panic leaves can be read.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks again and again until nothing is decided here any more. What the node does not say changes no alert.
pub(crate) async fn watch(service: Service) {
    let shared = &service.0;
    if shared.randomness != RandomnessSource::Lotus {
        return;
    }
    let every = shared.timing.on_chain_look;
    let looking = async {
        shared.recovered.cancelled().await;
        tokio::time::sleep(every.min(FIRST_LOOK)).await;
        loop {
            for miner in shared.miners.all() {
                let told = tokio::time::timeout(LOOK_MAX, service.compare(miner)).await;
                let told = told.unwrap_or_else(|_| {
                    Err(ApiError::refused(format!("not within {} s", LOOK_MAX.as_secs())))
                });
                if let Err(error) = told {
                    tracing::warn!(%miner, %error, "the chain has not said which sectors it has");
                }
            }
            tokio::time::sleep(every).await;
        }
    };
    tokio::select! {
        () = shared.standing.acting().cancelled() => {}
        () = looking => {}
    }
}

impl Service {
    /// Holds what the chain says of a miner's sectors against what is here, and notes what is at odds. Gives the sectors that are
    /// on chain and that no path has.
    pub(crate) async fn compare(&self, miner: ActorId) -> ApiResult<Vec<SectorId>> {
        let asked_at = self.0.moments.next();
        let doubtful = self.view(Driver::doubtful).await?;
        // Before the node is asked: what is proven meanwhile is none of its faults.
        let proven = self.proven(miner).await?;
        let of_miner = |number| SectorId { miner, number };
        let is_held = |number| {
            let sector = of_miner(number);
            self.is_held(sector, doubtful.get(&sector).map_or(&[], Vec::as_slice))
        };
        let numbers = proven.keys().copied().collect();
        let compared = self.0.chain.compared(miner, &is_held, numbers).await.map_err(refusal)?;
        let Compared { at, not_held, not_live } = compared;
        let not_held: Vec<_> = not_held.into_iter().map(of_miner).collect();
        // A node that is behind says nothing of what came later.
        let is_told = |number: &SectorNumber| proven.get(number).is_some_and(|since| *since <= at);
        let not_live: Vec<_> = not_live.into_iter().filter(is_told).map(of_miner).collect();
        let still = |driver: &Driver| not_live.into_iter().filter(|id| driver.is_proven(*id)).collect();
        let not_live = self.view(still).await?;
        let texts = [self.words_not_held(&not_held), self.words_not_live(not_live).await];
        self.0.at_odds.note(miner, asked_at, self.0.state.now_ms(), texts);
        Ok(not_held)
    }

    /// The miner's sectors that its chain should know to be proven, and since which height.
    async fn proven(&self, miner: ActorId) -> ApiResult<BTreeMap<SectorNumber, ChainEpoch>> {
        let mut proven = BTreeMap::new();
        let mut from = Some(SectorId { miner, number: SectorNumber::new(0) });
        while let Some(next) = from {
            let (found, rest) = self.view(move |driver| driver.proven_from(next, TURN)).await?;
            proven.extend(found);
            from = rest;
        }
        Ok(proven)
    }

    /// Whether some paths have all of its replica, but for what may be none in the doubtful ones. What is remembered counts.
    fn is_held(&self, sector: SectorId, doubtful: &[StorageId]) -> bool {
        let mut held = self.held(sector);
        held.retain(|(path, _)| !doubtful.contains(path));
        missing(&held).is_none()
    }

    fn words_not_held(&self, sectors: &[SectorId]) -> Option<String> {
        let named = sectors.iter().take(NAMED_MAX).map(|id| self.0.name(*id).to_string()).collect();
        let what = "on chain and in no storage path";
        Some(format!(
            "{}; attach the paths that have them, or bring them back: `sealyard repair export`, `repair run`",
            listed(sectors.len(), what, named)?
        ))
    }

    async fn words_not_live(&self, sectors: Vec<SectorId>) -> Option<String> {
        let mut named = Vec::new();
        for id in sectors.iter().take(NAMED_MAX) {
            let why = match self.0.chain.allocation(*id).await {
                Ok(Allocation::Proven) => " (it was terminated, or has expired)",
                Ok(Allocation::PreCommitted) => " (it is pre-committed, and not proven)",
                Ok(Allocation::Free | Allocation::Spent) => " (nothing is known of it there)",
                Err(_) => "",
            };
            named.push(format!("{}{why}", self.0.name(*id)));
        }
        let what = "proven here and not on chain";
        Some(format!(
            "{}; nothing is done about it: a reorganisation may have undone what proved them, or they are over; `sealyard \
             sectors status --log N` has their messages, `sealyard sectors remove N` takes one out that is over; then \
             `sealyard proving check` looks again at once",
            listed(sectors.len(), what, named)?
        ))
    }
}

/// How many sectors are so, and which; `None`: there are none.
fn listed(count: usize, what: &str, named: Vec<String>) -> Option<String> {
    let more = count.saturating_sub(named.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let are = if count == 1 { "sector is" } else { "sectors are" };
    (count > 0).then(|| format!("{count} {are} {what}: {}{more}", named.join(", ")))
}

//! Which manager a worker serves. It is told of one place, or of several in which the manager could be: where it is now and
//! where another one would take over. Each is asked who it is before anything else is said to it, and who was served last
//! stands in the journal: a manager that was taken over, an old copy of one, or a second one made from the same backup is
//! turned away by name, whatever it asks. A Lotus miner tells nothing of the kind and is served as before.
//! Never: joins a manager; see [`crate::registration`].

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::join_all;
use rpc::extension::Hello;
use rpc::versions::check_manager as check_version;
use rpc::{ApiError, ManagerApi, Mark, Permission};
use sealtasks::{ActorId, Reign, Relation, SectorSize};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::error::{WorkerError, chain};
use crate::journal::Journal;
use crate::registration::{MANAGER_RETRY, Status, StatusSink};
use crate::repo::Repo;

/// Places that a worker may be told of.
pub const MANAGERS_MAX: usize = 16;

/// A place among several answers all questions within this time, or counts as silent.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Between two looks at the other places while the manager answers.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// A place that answered, and is none, is asked again after a second, then after twice as long, at most after this.
const ASK_AGAIN_MOST: Duration = Duration::from_secs(30);

/// What a manager says of itself before a worker joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagerFacts {
    /// Its version for people.
    pub version: String,
    /// The miner.
    pub actor: ActorId,
    /// The miner's sector size.
    pub sector_size: SectorSize,
    /// The id of the token, when it is a worker's own.
    pub worker_token: Option<Uuid>,
}

/// A place where the manager could be.
pub struct Candidate {
    /// For people.
    pub url: String,
    /// The token to show there.
    pub token: String,
    /// A client for it alone.
    pub api: Arc<dyn ManagerApi>,
}

/// The places, and which of them has the manager.
pub struct Managers {
    candidates: Vec<Candidate>,
    /// Leads the worker's own client to the candidate with this number.
    lead: Box<dyn Fn(usize) + Send + Sync>,
    /// Tells everybody that is asked which manager is served; none before the first that says who it is.
    mark: Mark,
    status: StatusSink,
    choice: Mutex<Choice>,
    journal: OnceLock<Journal>,
}

#[derive(Default)]
struct Choice {
    /// Who is served in this life.
    chosen: Option<Chosen>,
    /// Of each candidate: how it last answered.
    doubts: Vec<Doubt>,
}

#[derive(Clone)]
struct Chosen {
    number: usize,
    reign: Option<Reign>,
    facts: ManagerFacts,
}

#[derive(Clone, Default)]
struct Doubt {
    /// Wrong answers in a row.
    times: u32,
    not_before: Option<Instant>,
    said: String,
}

impl Managers {
    /// These places, best first; `lead` turns the worker's client to one of them, and `mark` goes with all it says.
    pub fn new(
        candidates: Vec<Candidate>,
        mark: Mark,
        lead: impl Fn(usize) + Send + Sync + 'static,
        status: StatusSink,
    ) -> Self {
        let doubts = vec![Doubt::default(); candidates.len()];
        let choice = Mutex::new(Choice { chosen: None, doubts });
        Self { candidates, lead: Box::new(lead), mark, status, choice, journal: OnceLock::new() }
    }

    /// Whether there are several.
    pub fn are_several(&self) -> bool {
        self.candidates.len() > 1
    }

    /// Reads from the journal of a repo whom the worker served last. `leave` is the id of a manager that it is to serve no
    /// longer.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn recall(&self, repo: &Repo, leave: Option<Uuid>) -> Result<(), WorkerError> {
        let file = repo.dir().join(Journal::FILE_NAME);
        if !Path::new(&file).exists() {
            return Ok(());
        }
        let journal = Journal::open(&file)?;
        match journal.served()? {
            Some(served) if leave == Some(served.manager()) => journal.leave()?,
            Some(served) => self.mark.set(served),
            None => {}
        }
        Ok(())
    }

    /// Waits until one of the places has the manager, and turns to it.
    ///
    /// # Errors
    /// The only place there is answers, and has none that this worker could serve.
    pub async fn find(&self) -> Result<ManagerFacts, WorkerError> {
        loop {
            match self.settle().await {
                Ok(facts) => return Ok(facts),
                Err(WorkerError::Handshake { source: error @ ApiError::Unreachable { .. }, url, .. }) => {
                    (self.status)(Status::Waiting { url, reason: chain(&error) });
                }
                Err(error) if !self.are_several() => return Err(error),
                Err(error) => {
                    let url = self.candidates.iter().map(|known| known.url.as_str()).collect::<Vec<_>>();
                    (self.status)(Status::Waiting { url: url.join(" or "), reason: chain(&error) });
                }
            }
            tokio::time::sleep(MANAGER_RETRY).await;
        }
    }

    /// Watches over the choice until dropped: when the manager falls silent, or another one has taken over from it, the worker's
    /// client is led there. For a worker with several places.
    pub async fn attend(&self) {
        let mut pause = LOOK_EVERY;
        loop {
            tokio::time::sleep(pause).await;
            let number = self.choice.lock().await.chosen.as_ref().map(|chosen| chosen.number);
            let current = number.and_then(|number| self.candidates.get(number));
            let answers = match current {
                Some(current) => matches!(timeout(ANSWER_LIMIT, current.api.session()).await, Ok(Ok(_))),
                None => false,
            };
            let settled =
                if answers { self.look_for_a_successor().await } else { self.settle().await.map(drop) };
            pause = if settled.is_ok() { LOOK_EVERY } else { MANAGER_RETRY };
        }
    }

    /// Asks all places that are due, and turns to the best.
    async fn settle(&self) -> Result<ManagerFacts, WorkerError> {
        let mut choice = self.choice.lock().await;
        let all: Vec<usize> = (0..self.candidates.len()).collect();
        let (found, error) = self.ask(&mut choice, all).await;
        let current = choice.chosen.as_ref().map(|chosen| chosen.number);
        let rank =
            |found: &Chosen| (takeovers(found), Some(found.number) == current, usize::MAX - found.number);
        let Some(best) = found.into_iter().max_by_key(rank) else {
            return Err(error.unwrap_or(WorkerError::NoManager));
        };
        let facts = best.facts.clone();
        self.turn_to(&mut choice, best).await?;
        Ok(facts)
    }

    /// Asks the places that are not served, and turns to one that has taken over.
    async fn look_for_a_successor(&self) -> Result<(), WorkerError> {
        let mut choice = self.choice.lock().await;
        let Some(current) = choice.chosen.clone() else { return Ok(()) };
        let others = (0..self.candidates.len()).filter(|number| *number != current.number).collect();
        let (found, _) = self.ask(&mut choice, others).await;
        match found.into_iter().max_by_key(takeovers).filter(|best| takeovers(best) > takeovers(&current)) {
            Some(best) => self.turn_to(&mut choice, best).await,
            None => Ok(()),
        }
    }

    /// Those of the candidates that could be served, and why the last of the others could not.
    async fn ask(&self, choice: &mut Choice, numbers: Vec<usize>) -> (Vec<Chosen>, Option<WorkerError>) {
        let now = Instant::now();
        let is_due = |number: &usize| {
            let doubt = choice.doubts.get(*number);
            doubt.and_then(|doubt| doubt.not_before).is_none_or(|not_before| not_before <= now)
        };
        let due = numbers.into_iter().filter(is_due);
        let chosen = choice.chosen.as_ref();
        let asked: Vec<_> =
            join_all(due.map(|number| async move { (number, self.question(number, chosen).await) })).await;
        let (mut found, mut last) = (Vec::new(), None);
        for (number, answer) in asked {
            let Some(doubt) = choice.doubts.get_mut(number) else { continue };
            match answer {
                Ok(known) => {
                    *doubt = Doubt::default();
                    found.push(known);
                }
                Err(error) => {
                    self.note(number, doubt, &error);
                    last = Some(error);
                }
            }
        }
        (found, last)
    }

    /// One that does not answer may do so the next moment; one that answers wrongly is not asked as often.
    fn note(&self, number: usize, doubt: &mut Doubt, error: &WorkerError) {
        let silent = matches!(error, WorkerError::Handshake { source: ApiError::Unreachable { .. }, .. });
        doubt.times = if silent { 0 } else { doubt.times.saturating_add(1) };
        let pause = 1_u32.checked_shl(doubt.times.saturating_sub(1)).unwrap_or(u32::MAX);
        let pause = MANAGER_RETRY.saturating_mul(pause).min(ASK_AGAIN_MOST);
        doubt.not_before = (!silent && self.are_several()).then(|| Instant::now() + pause);
        let reason = chain(error);
        if self.are_several() && doubt.said != reason {
            let url = self.candidates.get(number).map(|known| known.url.clone()).unwrap_or_default();
            (self.status)(Status::PassedOver { url, reason: reason.clone() });
            doubt.said = reason;
        }
    }

    async fn question(&self, number: usize, chosen: Option<&Chosen>) -> Result<Chosen, WorkerError> {
        let Some(candidate) = self.candidates.get(number) else { return Err(WorkerError::NoManager) };
        let asked = self.facts_of(number, candidate, chosen.map(|chosen| &chosen.facts));
        if !self.are_several() {
            return asked.await;
        }
        let silent = |_| {
            let source = format!("no answer within {ANSWER_LIMIT:?}").into();
            let source = ApiError::Unreachable { url: candidate.url.clone(), source };
            Err(WorkerError::Handshake { url: candidate.url.clone(), method: "Version", source })
        };
        timeout(ANSWER_LIMIT, asked).await.unwrap_or_else(silent)
    }

    /// Asks for version, token, reign, miner and sector size. Nothing is changed anywhere.
    async fn facts_of(
        &self,
        number: usize,
        candidate: &Candidate,
        known: Option<&ManagerFacts>,
    ) -> Result<Chosen, WorkerError> {
        let Candidate { url, token, api } = candidate;
        let failed = |method| move |error| refused(url, method, error);
        let version = api.version().await.map_err(failed("Version"))?;
        check_version(version.api_version)?;
        let hello = Hello::of_this_build(SOFTWARE).of_reign(self.mark.get());
        let reign = match api.hello(hello).await {
            Err(error) if error.is_method_not_found() => None,
            answer => answer.map_err(failed("Sealyard.Hello"))?.and_then(|hello| hello.reign),
        };
        self.judge(url, reign.as_ref(), known.is_some())?;
        let allowed = api.verify_token(token.clone()).await.map_err(|error| match error {
            // It was taken over, and says so.
            error if error.is_fenced() => refused(url, "AuthVerify", error),
            ApiError::Remote { message, .. } => {
                WorkerError::Token { url: url.clone(), why: format!("is refused ({message})") }
            }
            other => refused(url, "AuthVerify", other),
        })?;
        let worker_token = allowed.worker_token();
        if worker_token.is_none() && !allowed.has(Permission::Admin) {
            return Err(WorkerError::Token { url: url.clone(), why: "lacks the permission `admin`".into() });
        }
        let actor = api.actor_address().await.map_err(failed("ActorAddress"))?;
        let sector_size = api.actor_sector_size(actor).await.map_err(failed("ActorSectorSize"))?;
        if let Some(known) = known
            && (known.actor, known.sector_size) != (actor, sector_size)
        {
            let (ours, theirs) = (known.actor.get(), actor.get());
            return Err(WorkerError::OtherMiner { url: url.clone(), ours, theirs });
        }
        let facts = ManagerFacts { version: version.version, actor, sector_size, worker_token };
        Ok(Chosen { number, reign, facts })
    }

    async fn turn_to(&self, choice: &mut Choice, best: Chosen) -> Result<(), WorkerError> {
        if let Some(reign) = &best.reign {
            self.serve(reign).await?;
        }
        (self.lead)(best.number);
        choice.chosen = Some(best);
        Ok(())
    }

    /// The worker serves this manager from now on, and no other that is not its successor.
    async fn serve(&self, reign: &Reign) -> Result<(), WorkerError> {
        if self.mark.get().as_ref() == Some(reign) {
            return Ok(());
        }
        if let Some(journal) = self.journal.get() {
            let served = reign.clone();
            journal.run(move |journal| journal.serve(&served)).await?;
        }
        self.mark.set(reign.clone());
        Ok(())
    }

    /// The journal that remembers it; until then only this process did.
    pub(crate) async fn remember_in(&self, journal: &Journal) -> Result<(), WorkerError> {
        if let Some(served) = self.mark.get() {
            journal.run(move |journal| journal.serve(&served)).await?;
        }
        // There is one journal in a worker's life.
        let _ = self.journal.set(journal.clone());
        Ok(())
    }

    /// Whether the manager that answers now is one to be joined; it is then the one that is served.
    pub(crate) async fn meet(&self, reign: Option<&Reign>) -> Result<(), WorkerError> {
        let choice = self.choice.lock().await;
        let number = choice.chosen.as_ref().map_or(0, |chosen| chosen.number);
        let url = self.candidates.get(number).map(|known| known.url.clone()).unwrap_or_default();
        self.judge(&url, reign, true)?;
        match reign {
            Some(reign) => self.serve(reign).await,
            None => Ok(()),
        }
    }

    /// Which manager is served; `None`: it does not say, or none was met yet.
    pub(crate) fn served(&self) -> Option<Reign> {
        self.mark.get()
    }

    /// Whether the manager at `url` may be served; `bound`: another one was met in this life.
    fn judge(&self, url: &str, theirs: Option<&Reign>, bound: bool) -> Result<(), WorkerError> {
        let Some(served) = self.mark.get() else { return Ok(()) };
        let several = self.are_several();
        let why = match theirs.map(|theirs| served.relation_of(theirs)) {
            None if several => "does not say which manager it is; name it alone to serve it".to_owned(),
            None | Some(Relation::Same | Relation::Successor) => return Ok(()),
            Some(Relation::Stranger) if !several && !bound => return Ok(()),
            Some(Relation::Stranger) => {
                "has nothing to do with it; start this worker with that one's API info alone to move it there"
                    .to_owned()
            }
            Some(relation) => advice(relation, &served),
        };
        let theirs = theirs.map_or_else(|| "it".to_owned(), Reign::to_string);
        Err(WorkerError::OtherManager { url: url.to_owned(), theirs, served: served.to_string(), why })
    }

    /// Whether a manager of this reign may order anything here.
    ///
    /// # Errors
    /// Why not, for whoever runs that manager.
    pub(crate) fn admits(&self, theirs: &Reign) -> Result<(), String> {
        let Some(served) = self.mark.get() else { return Ok(()) };
        let why = match served.relation_of(theirs) {
            Relation::Same => return Ok(()),
            Relation::Successor | Relation::Stranger => "this worker has not joined it".to_owned(),
            relation => advice(relation, &served),
        };
        Err(format!("WRK014: this worker serves {served} and takes no orders from {theirs}: {why}"))
    }
}

/// How a worker introduces itself.
pub(crate) const SOFTWARE: &str = concat!("sealyard ", env!("CARGO_PKG_VERSION"));

fn takeovers(found: &Chosen) -> usize {
    found.reign.as_ref().map_or(0, |reign| reign.takeovers.len())
}

/// What is wrong with a manager that is this to the one served, and what to do.
fn advice(relation: Relation, served: &Reign) -> String {
    let id = served.manager();
    match relation {
        Relation::Earlier => format!(
            "it is an older copy; start the newest copy of its repo, or make a new one with `sealyard run --from-backup` and \
             give it this worker with --leave-manager {id}"
        ),
        Relation::Rival => format!(
            "both were made from one backup; stop one of them, and if that is to be the one served, start this worker once \
             with --leave-manager {id}"
        ),
        Relation::Predecessor | Relation::Same | Relation::Successor | Relation::Stranger => {
            "it was taken over and must not be started again; stop it".to_owned()
        }
    }
}

/// An answer that is an error, during the handshake.
pub(crate) fn refused(url: &str, method: &'static str, source: ApiError) -> WorkerError {
    match source {
        ApiError::Unauthorized { status, .. } => {
            WorkerError::Token { url: url.to_owned(), why: format!("is refused (HTTP {status})") }
        }
        source => WorkerError::Handshake { url: url.to_owned(), method, source },
    }
}

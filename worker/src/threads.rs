//! Sealing threads: the worker's storage paths for sealing, each with a plan that says which sectors may begin there. The
//! plan is that of `config.toml` in the path itself, else that of the worker's `[[sealing_thread]]`, else the worker's own.
//!
//! The file in a path may change at any time. It is looked at every second, and once more before a call is accepted: what the
//! manager decided by plans that it has not been told of is refused, and it decides again. A file that is no good, or that
//! cannot be read, changes nothing: the last good plan stays, and the error is told. After a start there is none yet, and
//! nothing begins there.
//!
//! Never: keeps a sector from being finished; that is the manager's, who knows where else it could be.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rpc::extension::{ThreadState, WorkerState};
use sealtasks::{SealingPlan, StorageId, TaskType, chain};
use stores::{LocalPath, StorageMeta};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::config::{Config, ConfigError, SealingThread};
use crate::error::WorkerError;
use crate::offer::BUILT;
use crate::repo::RepoError;
use crate::worker::{Shared, WorkerOptions};

/// Between two looks at the files.
const LOOK: Duration = Duration::from_secs(1);

/// A file system that does not answer for so long hangs.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// The sealing threads of one worker.
pub(crate) struct Threads {
    /// The plan of whatever has no other.
    plan: SealingPlan,
    declared: Vec<SealingThread>,
    known: Mutex<Known>,
    /// One look at a time. Of each declared thread a read that does not end: there is never a second one.
    looking: tokio::sync::Mutex<Vec<Option<Read>>>,
}

type Read = JoinHandle<Result<Found, String>>;

#[derive(Default)]
struct Known {
    threads: Vec<Thread>,
    /// Their plans, as the manager has them.
    told: Option<Vec<SealingPlan>>,
}

/// What is known of a declared thread.
#[derive(Clone, PartialEq, Eq)]
struct Thread {
    path: Option<StorageId>,
    plan: SealingPlan,
    error: String,
}

/// What was found in a thread's location.
struct Found {
    path: Option<StorageId>,
    /// What its file says, if there is one.
    plan: Option<SealingPlan>,
}

impl Threads {
    /// The threads that the configuration of the repo in `dir` declares, none of them looked at yet.
    ///
    /// # Errors
    /// A location is the repo itself, or stands there twice.
    pub(crate) fn new(plan: SealingPlan, dir: &Path, config: &Config) -> Result<Self, ConfigError> {
        let mut declared: Vec<SealingThread> = Vec::new();
        let repo = whole(dir);
        for thread in &config.sealing_threads {
            let location = whole(&dir.join(&thread.location));
            let why = if location == repo {
                "is the worker's own directory, whose config.toml is the worker's: attach another directory"
            } else if declared.iter().any(|other| other.location == location) {
                "stands there twice"
            } else {
                declared.push(SealingThread { location, ..thread.clone() });
                continue;
            };
            return Err(ConfigError::Location { location, why });
        }
        let unseen =
            || Thread { path: None, plan: SealingPlan::None, error: "it was not looked at yet".to_owned() };
        let threads = declared.iter().map(|_| unseen()).collect();
        let reads = declared.iter().map(|_| None).collect();
        let known = Mutex::new(Known { threads, told: None });
        Ok(Self { plan, declared, known, looking: tokio::sync::Mutex::new(reads) })
    }

    /// The plan of whatever has no other.
    pub(crate) const fn plan(&self) -> SealingPlan {
        self.plan
    }

    /// Whether a manager must know what plans are.
    pub(crate) fn need_plans(&self) -> bool {
        self.plan != SealingPlan::Any || !self.declared.is_empty()
    }

    /// Looks at every file. Whether something is other than it was.
    pub(crate) async fn look(&self) -> bool {
        let mut reads = self.looking.lock().await;
        let mut changed = false;
        for (at, (thread, read)) in self.declared.iter().zip(reads.iter_mut()).enumerate() {
            let location = thread.location.clone();
            let mut reading =
                read.take().unwrap_or_else(|| tokio::task::spawn_blocking(move || found(&location)));
            let found = match tokio::time::timeout(ANSWER_MAX, &mut reading).await {
                Ok(Ok(found)) => found,
                Ok(Err(failed)) => Err(format!("{} cannot be read: {failed}", thread.location.display())),
                Err(_late) => {
                    *read = Some(reading);
                    Err(format!("{} does not answer", thread.location.display()))
                }
            };
            let mut known = self.known();
            let before = &mut known.threads[at];
            let now = match found {
                Ok(Found { path, plan }) => {
                    let plan = plan.or(thread.plan).unwrap_or(self.plan);
                    Thread { path, plan, error: String::new() }
                }
                Err(error) => Thread { error, ..before.clone() },
            };
            if *before != now {
                tracing::info!(location = %thread.location.display(), plan = %now.plan, now.error, "sealing thread");
                *before = now;
                changed = true;
            }
        }
        changed
    }

    /// Whether the manager has been told of the plans that were found last.
    pub(crate) fn are_told(&self) -> bool {
        let known = self.known();
        let plans = known.threads.iter().map(|thread| thread.plan);
        self.declared.is_empty() || known.told.as_ref().is_some_and(|told| plans.eq(told.iter().copied()))
    }

    /// The manager has taken this state.
    pub(crate) fn told(&self, state: &WorkerState) {
        let declared = state.threads.iter().take(self.declared.len());
        self.known().told = Some(declared.map(|thread| thread.plan).collect());
    }

    /// All threads, given the worker's open paths: the declared ones in their order, then the other paths for sealing.
    pub(crate) fn states(&self, paths: &[LocalPath]) -> Vec<ThreadState> {
        let known = self.known();
        let mut threads: Vec<_> = self
            .declared
            .iter()
            .zip(&known.threads)
            .map(|(declared, thread)| {
                let open = paths.iter().find(|path| Some(&path.id) == thread.path.as_ref());
                let open = open.filter(|path| path.stanza.can_seal);
                let location = declared.location.to_string_lossy().into_owned();
                let error = if open.is_none() && thread.error.is_empty() {
                    format!(
                        "{location} is no open storage path for sealing; `sealyard storage attach --init --seal \
                         --worker-repo DIR {location}` makes it one"
                    )
                } else {
                    thread.error.clone()
                };
                ThreadState { location, path: open.map(|path| path.id.clone()), plan: thread.plan, error }
            })
            .collect();
        let others = paths.iter().filter(|path| path.stanza.can_seal);
        let others: Vec<_> = others
            .filter(|path| !known.threads.iter().any(|thread| thread.path.as_ref() == Some(&path.id)))
            .map(|path| ThreadState {
                location: path.dir.to_string_lossy().into_owned(),
                path: Some(path.id.clone()),
                plan: self.plan,
                error: String::new(),
            })
            .collect();
        threads.extend(others);
        threads
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks what can be of a worker's options before anything is changed. Gives its sealing threads.
pub(crate) fn checked(options: &WorkerOptions) -> Result<Threads, WorkerError> {
    if let Some(task) = options.tasks.iter().copied().find(|task| !BUILT.contains(task)) {
        let known = BUILT.map(TaskType::short).join(", ");
        return Err(WorkerError::NotBuilt { task, known });
    }
    let threads = Threads::new(options.plan, options.repo.dir(), options.repo.config());
    Ok(threads.map_err(RepoError::Config)?)
}

/// Looks at the files now, and in the background from time to time.
pub(crate) async fn look_after(shared: &Arc<Shared>) {
    if shared.threads.declared.is_empty() {
        return;
    }
    shared.threads.look().await;
    let own = Arc::clone(shared);
    shared.tasks.spawn(async move {
        let closed = own.closed.clone();
        tokio::select! {
            () = closed.cancelled() => {}
            () = look_for_ever(&own) => {}
        }
    });
}

async fn look_for_ever(shared: &Shared) {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        if shared.threads.look().await {
            shared.changed();
        }
    }
}

/// Reads a location. The error is for people.
fn found(location: &Path) -> Result<Found, String> {
    let file = location.join("config.toml");
    let plan = match file.try_exists() {
        Ok(true) => {
            let plan = Config::read_thread(&file);
            plan.map_err(|error| format!("in {}: {}", location.display(), chain(&error)))?
        }
        Ok(false) if location.is_dir() => None,
        Ok(false) => return Err(format!("{} is not there", location.display())),
        Err(error) => return Err(format!("{}: {error}", file.display())),
    };
    // A directory that is no storage path yet may become one.
    let path = StorageMeta::read(location).ok().and_then(|meta| meta.id.parse().ok());
    Ok(Found { path, plan })
}

/// The path without `.` and relative beginnings.
fn whole(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.components().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads(dir: &Path, text: &str) -> Threads {
        Threads::new(SealingPlan::Any, dir, &Config::parse(text).unwrap()).unwrap()
    }

    async fn plan_and_error(threads: &Threads) -> (SealingPlan, String) {
        threads.look().await;
        let state = threads.states(&[]).remove(0);
        (state.plan, state.error)
    }

    #[tokio::test]
    async fn the_file_in_the_path_counts_while_it_is_there_and_good() {
        let dir = tempfile::tempdir().unwrap();
        let location = dir.path().join("nvme1");
        let threads = threads(dir.path(), "[[sealing_thread]]\nlocation = \"nvme1\"\nplan = \"sealer\"\n");
        let (plan, error) = plan_and_error(&threads).await;
        assert_eq!(plan, SealingPlan::None, "nothing is known yet: {error}");
        assert!(error.contains("nvme1 is not there"), "{error}");

        std::fs::create_dir(&location).unwrap();
        assert_eq!(plan_and_error(&threads).await.0, SealingPlan::Sealer);
        assert!(!threads.are_told(), "the manager has heard of nothing");
        let hot = location.join("config.toml");
        std::fs::write(&hot, "plan = \"rebuild\"\n").unwrap();
        assert_eq!(plan_and_error(&threads).await.0, SealingPlan::Rebuild);
        for (broken, why) in [
            ("plan = \"snapup\"\n", "must be any, sealer, rebuild or none"),
            ("plan = 1\n", "must be any, sealer, rebuild or none"),
            ("plam = \"sealer\"\n", "did you mean `plan`?"),
            ("location = \"/x\"\n", "unknown key `location`"),
            ("plan", "is no valid TOML"),
        ] {
            std::fs::write(&hot, broken).unwrap();
            let (plan, error) = plan_and_error(&threads).await;
            assert_eq!(plan, SealingPlan::Rebuild, "the last good one stays");
            assert!(error.contains(why) && error.contains("nvme1"), "{error}");
        }
        std::fs::write(&hot, "# nothing\n").unwrap();
        assert_eq!(plan_and_error(&threads).await.0, SealingPlan::Sealer, "a file that says nothing of it");
        std::fs::remove_file(&hot).unwrap();
        assert_eq!(plan_and_error(&threads).await.0, SealingPlan::Sealer);
    }

    #[test]
    fn locations_that_cannot_be_are_refused() {
        let told = |text: &str| {
            let config = Config::parse(text).unwrap();
            Threads::new(SealingPlan::Any, Path::new("/w"), &config).err().unwrap().to_string()
        };
        let own = told("[[sealing_thread]]\nlocation = \"/w/.\"\n");
        assert!(own.contains("own directory"), "{own}");
        let twice = told("[[sealing_thread]]\nlocation = \"a\"\n[[sealing_thread]]\nlocation = \"/w/a\"\n");
        assert!(twice.contains("twice"), "{twice}");
    }
}

//! Which program does each task of a worker: this one, another that the operator names, or one that only plays it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rpc::ManagerApi;
use rpc::api::WorkerResources;
use rpc::extension::Hello;
use sealtasks::{SectorSize, TaskType};
use stores::Rehearsal;
use toml::{Table, Value};
use worker::confine::Confiner;
use worker::environment::Environment;
use worker::{ExecutorOptions, Replacement};

use crate::args::ExecutorArgs;
use crate::commands::daemon::parse_duration;
use crate::commands::storage::parse_bytes;
use crate::exit::{Code, Failure, Outcome};
use crate::proof_params::{MachineParams, Obtain};

/// The word in place of a program.
const REHEARSAL: &str = "rehearsal";
/// The word for all tasks.
const ALL: &str = "all";
/// Largest profile that is read (bytes).
const PROFILE_MAX: u64 = 1 << 20;

/// Tasks that have an executor: all that a worker can do but fetching, which its storage does.
pub fn tasks() -> impl Iterator<Item = TaskType> {
    worker::BUILT.into_iter().filter(|task| *task != TaskType::Fetch)
}

/// What takes this program's place.
#[derive(Debug, Default)]
pub struct Executors {
    /// By task.
    pub replacements: BTreeMap<TaskType, Replacement>,
    /// Whether any of them plays its task: then the worker is one of rehearsals.
    pub rehearsal: Option<Rehearsal>,
}

impl Executors {
    /// Reads `--executor` and the flags that go with it. `program` is this one.
    ///
    /// # Errors
    /// A task or word that means nothing, a task named twice, a program that cannot be run, a profile that cannot be read.
    pub fn choose(args: &ExecutorArgs, program: &Path) -> Result<Self, Failure> {
        let mut chosen = Self::default();
        let mut named = BTreeMap::new();
        for choice in &args.executor {
            let Some((task, what)) = choice.split_once('=') else { return Err(unclear(choice)) };
            for task in tasks_of(task).ok_or_else(|| unclear(choice))? {
                if named.insert(task, choice.clone()).is_some_and(|other| !other.starts_with(ALL)) {
                    return Err(Failure::new(
                        Code::Usage,
                        format!("--executor names {} twice", task.short()),
                    ));
                }
                let replacement = match what {
                    REHEARSAL => {
                        chosen.rehearsal = Some(Rehearsal::default());
                        rehearsing(args, program)?
                    }
                    path => Replacement { program: runnable(path)?, arguments: Vec::new() },
                };
                chosen.replacements.insert(task, replacement);
            }
        }
        if chosen.rehearsal.is_none() {
            args.refuse_without_rehearsal()?;
        } else if let Some(bytes) = args.machine()?.disk {
            chosen.rehearsal = Some(Rehearsal { capacity: bytes });
        }
        Ok(chosen)
    }

    /// All tasks are played.
    ///
    /// # Errors
    /// As [`Executors::choose`].
    pub fn rehearsal(args: &ExecutorArgs, program: &Path) -> Result<Self, Failure> {
        let all = ExecutorArgs { executor: vec![format!("{ALL}={REHEARSAL}")], ..args.clone() };
        Self::choose(&all, program)
    }

    /// A worker that only plays its tasks joins a manager of rehearsals, and no other; that is known before anything is
    /// written. The manager checks the same of every worker.
    ///
    /// # Errors
    /// The manager's sectors are real.
    pub async fn check_world(&self, manager: &dyn ManagerApi, url: &str) -> Outcome {
        if self.rehearsal.is_none() {
            return Ok(());
        }
        let hello = Hello::of_this_build(concat!("sealyard ", env!("CARGO_PKG_VERSION")));
        match manager.hello(hello.rehearsing(true)).await {
            Ok(Some(theirs)) if theirs.rehearses() => Ok(()),
            Err(error) if !error.is_method_not_found() => Err(crate::connect::rpc_failure(error)),
            Ok(_) | Err(_) => Err(Failure::new(
                Code::Setting,
                format!("the manager at {url} has real sectors, which are not to be rehearsed"),
            )
            .advise("a rehearsal has a manager of its own, made with `sealyard init --rehearsal`")),
        }
    }

    /// What the worker knows of proof parameters.
    pub fn params(&self, obtain: Obtain, program: &Path) -> Arc<dyn worker::ProofParams> {
        match self.need_parameters() {
            true => Arc::new(MachineParams { obtain, program: program.to_owned() }),
            false => Arc::new(NoParams),
        }
    }

    /// How a worker with this repo starts executors: this program, but for those that are replaced.
    pub fn options(&self, program: &Path, environment: Environment, repo: &worker::Repo) -> ExecutorOptions {
        ExecutorOptions {
            program: program.to_owned(),
            arguments: vec!["exec".into()],
            environment,
            task_environment: repo.config().executor_environment.clone(),
            rehearsal: self.rehearsal,
            confiner: Confiner::new(repo.config().confinement.clone()),
            replacements: self.replacements.clone(),
            spare: repo.config().spare,
        }
    }

    /// Whether this program itself makes SNARKs here, and so needs their parameters.
    pub fn need_parameters(&self) -> bool {
        !self.replacements.contains_key(&TaskType::Commit2)
    }
}

/// The machine that a rehearsal plays, as far as it is another than the real one.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PlayedMachine {
    memory: Option<u64>,
    cpus: Option<u64>,
    gpus: Option<usize>,
    disk: Option<u64>,
}

impl PlayedMachine {
    /// Lays it over the real one.
    pub fn over(&self, resources: &mut WorkerResources) {
        if let Some(memory) = self.memory {
            (resources.mem_physical, resources.mem_swap, resources.mem_swap_used) = (memory, 0, 0);
            resources.mem_used = resources.mem_used.min(memory / 100);
        }
        resources.cpus = self.cpus.unwrap_or(resources.cpus);
        if let Some(gpus) = self.gpus {
            resources.gpus = (0..gpus).map(|at| format!("REHEARSAL {at}")).collect();
        }
    }
}

impl ExecutorArgs {
    /// What `--rehearsal-machine` says.
    ///
    /// # Errors
    /// A word that means nothing.
    pub fn machine(&self) -> Result<PlayedMachine, Failure> {
        let mut machine = PlayedMachine::default();
        for part in &self.rehearsal_machine {
            let bad = || {
                Failure::new(Code::Usage, format!("--rehearsal-machine {part:?} is not understood"))
                    .advise("write for example memory=512GiB,cpus=64,gpus=1,disk=20TiB")
            };
            let (name, value) = part.split_once('=').ok_or_else(bad)?;
            match name {
                "memory" => machine.memory = Some(parse_bytes(value)?),
                "disk" => machine.disk = Some(parse_bytes(value)?),
                "cpus" => machine.cpus = Some(value.parse().map_err(|_| bad())?),
                "gpus" => machine.gpus = Some(value.parse().ok().filter(|gpus| *gpus <= 64).ok_or_else(bad)?),
                _ => return Err(bad()),
            }
        }
        Ok(machine)
    }

    fn refuse_without_rehearsal(&self) -> Result<(), Failure> {
        let given = [
            ("--rehearsal-speed", self.rehearsal_speed.is_some()),
            ("--rehearsal-profile", self.rehearsal_profile.is_some()),
            ("--rehearsal-machine", !self.rehearsal_machine.is_empty()),
        ];
        match given.iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((flag, _)) => Err(Failure::new(Code::Usage, format!("{flag} is for rehearsals"))
                .advise("add --executor all=rehearsal, or leave it out")),
        }
    }
}

fn unclear(choice: &str) -> Failure {
    let names: Vec<String> = tasks().map(|task| task.short().to_lowercase()).collect();
    Failure::new(Code::Usage, format!("--executor {choice:?} is not understood")).advise(format!(
        "write TASK=rehearsal or TASK=/path/to/program, with a task of all, {}",
        names.join(", ")
    ))
}

fn tasks_of(name: &str) -> Option<Vec<TaskType>> {
    if name == ALL {
        return Some(tasks().collect());
    }
    let task = tasks().find(|task| task.short().eq_ignore_ascii_case(name))?;
    Some(vec![task])
}

fn runnable(path: &str) -> Result<PathBuf, Failure> {
    let bad = |why: String| {
        Failure::new(Code::Setting, format!("{path:?} cannot be an executor: {why}"))
            .advise("name a program that does what proofs/EXECUTORS.md says, or `rehearsal`")
    };
    let program = std::path::absolute(path).map_err(|error| bad(error.to_string()))?;
    let found = std::fs::metadata(&program).map_err(|error| bad(error.to_string()))?;
    if !found.is_file() || found.permissions().mode() & 0o111 == 0 {
        return Err(bad("it is no program that may be run".to_owned()));
    }
    Ok(program)
}

/// This program as one that plays tasks.
fn rehearsing(args: &ExecutorArgs, program: &Path) -> Result<Replacement, Failure> {
    let mut arguments: Vec<OsString> = vec!["exec".into(), "--rehearsal-speed".into()];
    arguments.push(args.speed().to_string().into());
    if let Some(profile) = &args.rehearsal_profile {
        Profile::read(profile)?;
        let profile = std::path::absolute(profile)?;
        arguments.extend(["--rehearsal-profile".into(), profile.into_os_string()]);
    }
    Ok(Replacement { program: program.to_owned(), arguments })
}

/// How long tasks take by size, in place of the built-in times.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Profile(BTreeMap<(SectorSize, TaskType), std::time::Duration>);

impl Profile {
    /// Reads a file of sections such as `[32GiB]` with lines such as `pc1 = "3h30m"`.
    ///
    /// # Errors
    /// It cannot be read, or says something that means nothing.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        let bad = |why: String| {
            Failure::new(Code::Setting, format!("{shown}: {why}"))
                .advise("write sections such as [32GiB] with lines such as pc1 = \"3h30m\"")
        };
        let length = std::fs::metadata(path).map_err(|error| bad(error.to_string()))?.len();
        if length > PROFILE_MAX {
            return Err(bad(format!("it has {length} bytes; at most 1 MiB is read")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
        let root: Table = text.parse().map_err(|error: toml::de::Error| bad(error.message().to_owned()))?;
        let mut profile = Self::default();
        for (size, section) in &root {
            let of: SectorSize = size.parse().map_err(|_| bad(format!("[{size}] is no sector size")))?;
            let section = section.as_table().ok_or_else(|| bad(format!("{size} is no section")))?;
            for (name, value) in section {
                let task = tasks().find(|task| task.short().to_lowercase() == *name);
                let task = task.ok_or_else(|| bad(format!("[{size}] {name} is no task")))?;
                let Value::String(text) = value else {
                    return Err(bad(format!("[{size}] {name} is no duration in quotes")));
                };
                profile.0.insert((of, task), parse_duration(text)?);
            }
        }
        Ok(profile)
    }

    /// How long this task takes, where the profile says so.
    pub fn of(&self, size: SectorSize, task: TaskType) -> Option<std::time::Duration> {
        self.0.get(&(size, task)).copied()
    }
}

/// The parameters of a worker that makes no SNARK itself: none are needed.
#[derive(Debug)]
struct NoParams;

#[async_trait]
impl worker::ProofParams for NoParams {
    fn ready(&self, _size: SectorSize) -> bool {
        true
    }

    async fn obtain(
        &self,
        _size: SectorSize,
        _progress: &(dyn Fn(String) + Send + Sync),
    ) -> Result<(), String> {
        Ok(())
    }

    fn environment(&self, _size: SectorSize) -> Vec<(String, String)> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests;

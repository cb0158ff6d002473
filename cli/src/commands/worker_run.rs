//! `worker run`: checks everything that can be checked before it writes anything, then joins the manager.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rpc::api_info::ApiInfo;
use rpc::extension::MachineIdentity;
use rpc::multiaddr::Multiaddr;
use rpc::{Identity, ManagerApi, Trust};
use sealtasks::{CapLimit, SectorSize, TaskCaps, TaskType};
use tokio::net::{TcpListener, TcpStream};
use worker::resources::Swap;
use worker::{
    FirstPath, ManagerFacts, ManagerTokens, Periods, RegistrationOptions, Repo, RepoError, Status, Worker,
    WorkerHandle, WorkerOptions,
};

use super::daemon;
use super::worker_failure::worker_failure;
use super::worker_managers::Door;
use crate::args::WorkerRunArgs;
use crate::connect::expand;
use crate::executor_settings::{ExecutorSettings, Sources};
use crate::executors::Executors;
use crate::exit::{Code, Failure, Outcome};
use crate::proof_params::Obtain;
use crate::show::talk;
use crate::task_selection::{Selection, Switch, select};
use crate::tls;

/// Longest name of a worker. Ours: as long as a host's may be (POSIX `HOST_NAME_MAX`, 255 with its domain).
const NAME_CHARS_MAX: usize = 255;

/// Runs until it is stopped.
pub async fn run(manager_repo: &Path, args: &WorkerRunArgs) -> Outcome {
    let selection = selection(args)?;
    for note in &selection.notes {
        talk!("note: {note}");
    }
    proofs::settings::check_process().map_err(|error| Failure::from_error(Code::Setting, &error))?;
    let name = worker_name(args)?;
    let (caps, machine) = (own_caps(args)?, machine(args)?);
    let swap = if args.no_swap { Swap::Ignored } else { Swap::Counted };
    let program = std::env::current_exe()?;
    let executors = Executors::choose(&args.executors, &program)?;
    let mut resources =
        worker::resources::detect(swap).map_err(|error| Failure::from_error(Code::Setting, &error))?;

    args.executors.machine()?.over(&mut resources);
    // What is there already is looked at before the manager is; what is not, is made only after it has agreed.
    let existing = open_repo(args)?.map(|repo| with_settings(args, repo)).transpose()?;
    let files = tls::Files::of_worker(&args.tls, existing.as_ref().map(|(repo, _)| repo))?;
    let trust = files.trust()?;
    let (door, facts) = find_manager(manager_repo, args, existing.as_ref(), &trust).await?;
    executors.check_world(door.client.as_ref(), &door.url()).await?;
    let tasks = with_parameters(&selection, args, &executors, facts.sector_size)?;
    let place = listen(args, &files, door.info()).await?;
    reachable(&door, &place).await?;

    let (repo, settings) = match existing {
        Some(open) => open,
        None => with_settings(args, create_repo(args)?)?,
    };
    let obtain = match (args.no_params_fetch, args.generate_test_params) {
        (true, _) => Obtain::Never,
        (false, true) => Obtain::FetchElseGenerate,
        (false, false) => Obtain::Fetch,
    };
    let repo_dir = repo.dir().to_owned();
    door.attend();
    let handle = Worker::start(WorkerOptions {
        executor: executors.options(&program, settings.environment, &repo),
        settings: settings.in_force,
        repo,
        name,
        manager: Arc::clone(&door.client) as Arc<dyn ManagerApi>,
        managers: Some(Arc::clone(&door.managers)),
        sector_size: facts.sector_size,
        urls: vec![place.url("remote")],
        token: door.token.clone(),
        tasks,
        plan: args.plan,
        params: executors.params(obtain, &program),
        trust,
        parallel_fetch_limit: args.parallel_fetch_limit.into(),
        resources,
        swap,
        ignore_resources: false,
        caps,
        machine,
        local: None,
        periods: Periods::default(),
    })
    .await
    .map_err(worker_failure)?;
    serve(args, &door, &handle, place, &repo_dir, &selection).await
}

/// The manager that this worker may serve, once it answers.
async fn find_manager(
    manager_repo: &Path,
    args: &WorkerRunArgs,
    existing: Option<&(Repo, ExecutorSettings)>,
    trust: &Trust,
) -> Result<(Door, ManagerFacts), Failure> {
    let timeout = patience(args)?;
    if args.managers.is_empty() {
        wait_for_start(manager_repo, timeout).await?;
    }
    let mut door = Door::find(manager_repo, &args.managers, trust)?;
    if let Some((repo, _)) = existing {
        door.managers.recall(repo, args.leave_manager).map_err(worker_failure)?;
    }
    let facts = door.check(timeout).await?;
    talk!(
        "the manager at {} ({}) seals {} sectors for f0{}",
        door.url(),
        facts.version,
        facts.sector_size,
        facts.actor.get()
    );
    Ok((door, facts))
}

/// How long a manager that does not answer is waited for.
fn patience(args: &WorkerRunArgs) -> Result<Duration, Failure> {
    let given = daemon::parse_duration(&args.timeout)?;
    Ok(if given.is_zero() { Duration::MAX } else { given })
}

/// Serves, joins, and waits for the end.
async fn serve(
    args: &WorkerRunArgs,
    door: &Door,
    handle: &WorkerHandle,
    place: Place,
    repo: &Path,
    selection: &Selection,
) -> Outcome {
    for problem in handle.path_problems() {
        let failure = Failure::from_error(Code::Storage, &problem.error);
        talk!("warning: {} is not opened: {failure}", problem.path.display());
    }
    let (auth, local_token) = doorkeeper(door)?;
    let (address, api) = (place.url("rpc/v0"), place.api());
    let server = daemon::serve(place.listener, handle.router(Arc::new(auth)), place.identity);
    let unwritable = |error: rpc::repo_files::RepoFileError| Failure::from_error(Code::Repo, &error);
    rpc::repo_files::write_token(repo, &local_token).map_err(unwritable)?;
    rpc::repo_files::write_api(repo, &api).map_err(unwritable)?;
    say_offer(handle, selection).await;

    let registration = RegistrationOptions { manager: door.url(), address, status: Arc::clone(&door.status) };
    // One for both waits: a signal that comes between two of them would be lost.
    let mut stop = std::pin::pin!(daemon::stop_requested(args.until_stdin_closes));
    let outcome = tokio::select! {
        registered = handle.register(registration) => registered.map_err(worker_failure),
        why = &mut stop => {
            talk!("stopping: {why}");
            daemon::end_worker(handle, why).await;
            let _ = rpc::repo_files::remove_api(repo);
            return Ok(());
        }
    };
    if outcome.is_ok() {
        tokio::select! {
            () = handle.wait_closed() => talk!("stopping: asked to over the API"),
            why = &mut stop => {
                talk!("stopping: {why}");
                daemon::end_worker(handle, why).await;
            }
        }
    }
    // A worker that was refused, too, may have taken executors over.
    handle.leave().await;
    server.abort();
    rpc::repo_files::remove_api(repo).map_err(unwritable)?;
    outcome
}

/// Who may call this worker, and the token for its repo. The worker's own token opens nothing here, so a worker that has
/// one makes another for the commands of this machine.
fn doorkeeper(door: &Door) -> Result<(ManagerTokens, String), Failure> {
    let auth = ManagerTokens::new(Arc::clone(&door.client) as Arc<dyn ManagerApi>);
    let auth = auth.serving(Arc::clone(&door.managers));
    let Some(own) = door.worker_token else { return Ok((auth, door.token.clone())) };
    let unmade = |error: rpc::token::TokenError| Failure::from_error(Code::Token, &error);
    let secret = rpc::Secret::generate()?;
    let local = secret.mint(&rpc::Permission::ALL).map_err(unmade)?;
    Ok((auth.joined_with(own, local.clone()), local))
}

/// A manager whose repo is on this host and that is not running, or only just starting, is waited for; so that both can
/// be started together. Without such a repo, or with `MINER_API_INFO`, there is nothing to wait for here.
async fn wait_for_start(manager_repo: &Path, timeout: Duration) -> Outcome {
    let begun = Instant::now();
    let mut said = false;
    while crate::connect::awaits_manager(manager_repo) {
        if begun.elapsed() >= timeout {
            return Err(Failure::new(
                Code::Unreachable,
                format!("no manager was started in {} for {} s", manager_repo.display(), timeout.as_secs()),
            )
            .advise("start it with `sealyard run`"));
        }
        if !said {
            talk!("waiting for the manager of {} to be started with `sealyard run`", manager_repo.display());
            said = true;
        }
        tokio::time::sleep(START_POLL).await;
    }
    Ok(())
}

/// Between two questions to a manager that does not answer.
const MANAGER_RETRY: Duration = Duration::from_secs(1);

/// How often a manager that is not there yet is looked for.
const START_POLL: Duration = Duration::from_millis(100);

fn selection(args: &WorkerRunArgs) -> Result<Selection, Failure> {
    let switches: Vec<Switch> = args
        .tasks
        .entries()
        .into_iter()
        .map(|(name, variable, flag)| Switch {
            name,
            flag,
            env: std::env::var(variable).ok().map(|value| (variable, value)),
        })
        .collect();
    select(&switches, args.no_default).map_err(|text| {
        let code = if text.contains("not built") { Code::NotBuilt } else { Code::Usage };
        Failure::new(code, text)
    })
}

/// The tasks to ask for. Without leave to fetch, missing parameters end the start when C2 was named, else drop it.
fn with_parameters(
    selection: &Selection,
    args: &WorkerRunArgs,
    executors: &Executors,
    size: SectorSize,
) -> Result<BTreeSet<TaskType>, Failure> {
    let mut tasks = selection.tasks.clone();
    if executors.rehearsal.is_some() {
        // A commitment is used outside of sealing, for deals: none is made up.
        tasks.remove(&TaskType::DataCid);
    }
    if !executors.need_parameters() {
        return Ok(tasks);
    }
    let missing = || proofs::params::choose_directory(size).directory().is_none();
    if args.no_params_fetch && tasks.contains(&TaskType::Commit2) && missing() {
        let command = format!("sealyard params fetch {size}");
        if selection.commit2_named {
            return Err(Failure::new(
                Code::Parameters,
                format!("C2 of {size} sectors needs proof parameters"),
            )
            .advise(format!("run `{command}`, then start again, or leave out --no-params-fetch")));
        }
        tasks.remove(&TaskType::Commit2);
        talk!("note: C2 is left off: its parameters are missing; `{command}` gets them");
    }
    Ok(tasks)
}

/// Where it is reached.
struct Place {
    listener: TcpListener,
    address: SocketAddr,
    /// `HOST:PORT` as peers know it.
    authority: String,
    identity: Option<Identity>,
}

impl Place {
    fn url(&self, path: &str) -> String {
        format!("{}://{}/{path}", tls::scheme(self.identity.is_some()), self.authority)
    }

    /// What its repo says.
    fn api(&self) -> String {
        match self.identity {
            Some(_) => tls::multiaddr(&self.authority, true),
            None => Multiaddr::tcp(self.address).to_string(),
        }
    }
}

/// Binds, and works out the address that the manager can reach: as given, or that of the route to the manager.
async fn listen(args: &WorkerRunArgs, files: &tls::Files, info: &ApiInfo) -> Result<Place, Failure> {
    let listener = daemon::bind(args.address.as_deref().unwrap_or(&args.listen)).await?;
    let mut address = listener.local_addr()?;
    if address.ip().is_unspecified() {
        address.set_ip(route_address(info).await?);
    }
    // A certificate has the host's name, as a rule; without one the address that was found is as good.
    let named = args.address.as_ref().filter(|_| files.serves_tls()).and_then(|given| given.rsplit_once(':'));
    let authority =
        named.map_or_else(|| address.to_string(), |(host, _)| format!("{host}:{}", address.port()));
    Ok(Place { identity: files.identity(&authority)?, listener, address, authority })
}

/// The local address of the route to the manager.
async fn route_address(info: &ApiInfo) -> Result<IpAddr, Failure> {
    let dial = info.dial_address();
    let stream = TcpStream::connect(&dial).await.map_err(|error| {
        Failure::new(Code::Unreachable, format!("cannot reach the manager at {dial}: {error}"))
            .advise("name an address of this machine that it can reach with --address HOST:PORT")
    })?;
    Ok(stream.local_addr()?.ip())
}

/// Asks a Sealyard manager to try the address before anything is written here, and again while it does not answer. The
/// listener takes the connection.
async fn reachable(door: &Door, place: &Place) -> Outcome {
    loop {
        let answer = {
            let asked = door.client.can_reach(place.url("rpc/v0"));
            tokio::pin!(asked);
            loop {
                tokio::select! {
                    answer = &mut asked => break answer,
                    accepted = place.listener.accept() => drop(accepted),
                }
            }
        };
        match answer {
            Ok(()) => return Ok(()),
            Err(error) if error.is_method_not_found() => return Ok(()), // a Lotus manager tries at WorkerConnect
            Err(error @ (rpc::ApiError::Remote { .. } | rpc::ApiError::Refused { .. })) => {
                return Err(Failure::from_error(Code::DialBack, &error));
            }
            Err(error @ rpc::ApiError::Unreachable { .. }) => {
                (door.status)(Status::Waiting { url: door.url(), reason: sealtasks::chain(&error) });
                tokio::time::sleep(MANAGER_RETRY).await;
            }
            Err(error) => return Err(crate::connect::rpc_failure(error)),
        }
    }
}

fn open_repo(args: &WorkerRunArgs) -> Result<Option<Repo>, Failure> {
    let dir = expand(&args.worker_repo)?;
    Repo::open(&dir).map_err(|error| {
        let failure = Failure::from_error(Code::Repo, &error);
        match error {
            RepoError::Config(_) => failure.advise(format!("correct {}", dir.join("config.toml").display())),
            _ => failure,
        }
    })
}

fn create_repo(args: &WorkerRunArgs) -> Result<Repo, Failure> {
    let first = if args.no_local_storage { FirstPath::None } else { FirstPath::Sealing };
    Repo::open_or_create(&expand(&args.worker_repo)?, first)
        .map_err(|error: RepoError| Failure::from_error(Code::Repo, &error))
}

fn with_settings(args: &WorkerRunArgs, repo: Repo) -> Result<(Repo, ExecutorSettings), Failure> {
    let settings = ExecutorSettings::of_this_process(&Sources {
        gpu: args.enable_gpu_proving,
        per_task: &repo.config().executor_environment,
        config: &repo.dir().join("config.toml"),
    })?;
    for note in &settings.notes {
        talk!("note: {note}");
    }
    Ok((repo, settings))
}

/// The name it goes by: as given, else the host's.
fn worker_name(args: &WorkerRunArgs) -> Result<String, Failure> {
    args.name.as_ref().map_or_else(host_name, |name| sound_name("name", name).map(str::to_owned))
}

fn host_name() -> Result<String, Failure> {
    let host = nix::unistd::gethostname().map_err(|error| {
        Failure::new(Code::Failed, format!("this machine's name cannot be read: {error}"))
    })?;
    Ok(host.to_string_lossy().into_owned())
}

/// The value of --name or --machine, if it can be shown to people.
fn sound_name<'a>(flag: &str, name: &'a str) -> Result<&'a str, Failure> {
    if name.trim().is_empty() || name.chars().count() > NAME_CHARS_MAX || name.chars().any(char::is_control) {
        return Err(Failure::new(Code::Setting, format!("--{flag} cannot be {name:?}"))
            .advise(format!("give 1 to {NAME_CHARS_MAX} printable characters with --{flag}")));
    }
    Ok(name)
}

/// The limits that it is started with.
fn own_caps(args: &WorkerRunArgs) -> Result<TaskCaps, Failure> {
    let mut caps = TaskCaps::none();
    for spec in &args.max {
        match spec.limit {
            CapLimit::Most(most) => caps.set(spec.group.clone(), most),
            CapLimit::Unlimited | CapLimit::Configured => {
                return Err(Failure::new(Code::Usage, format!("--max {spec} is no number"))
                    .advise("give one such as PC1=3, or leave it out for no limit"));
            }
        }
    }
    Ok(caps)
}

/// The machine that it says it runs on.
fn machine(args: &WorkerRunArgs) -> Result<Option<MachineIdentity>, Failure> {
    match &args.machine {
        Some(name) => sound_name("machine", name).map(|name| Some(worker::machine::named(name))),
        None => Ok(worker::machine::identity(&host_name()?)),
    }
}

/// Says what is offered and why.
async fn say_offer(handle: &WorkerHandle, selection: &Selection) {
    let state = handle.current_state().await;
    let names: Vec<&str> = state.tasks.iter().map(|task| task.short()).collect();
    talk!("worker {} offers {} ({})", state.name, names.join(" "), selection.rule);
    for (task, reason) in &state.pending {
        talk!("worker {} will offer {task} later: {reason}", state.name);
    }
}

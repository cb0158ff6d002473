//! `run`: the manager, with a worker of its own in the same process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chain::sending::Sending;
use manager::{ChainChoice, Manager, ManagerError, ManagerHandle, ManagerOptions, Repo, RpcDialer};
use rpc::multiaddr::Multiaddr;
use rpc::{Identity, Trust};
use sealtasks::{SealingPlan, TaskCaps};
use worker::resources::Swap;
use worker::{FirstPath, Periods, Worker, WorkerHandle, WorkerOptions};

use super::daemon;
use super::worker_failure::worker_failure;
use crate::args::RunArgs;
use crate::executor_settings::{ExecutorSettings, Sources};
use crate::executors::Executors;
use crate::exit::{Code, Failure, Outcome};
use crate::full_node;
use crate::proof_params::Obtain;
use crate::show::talk;
use crate::tls;
use crate::verifier::ChildVerifier;

/// Names the machine that the manager's own worker runs on; see `worker run --machine`.
const MACHINE: &str = "SEALYARD_MACHINE";

/// Runs until it is stopped.
pub async fn run(dir: &Path, args: &RunArgs) -> Outcome {
    proofs::settings::check_process().map_err(|error| Failure::from_error(Code::Setting, &error))?;
    if let Some(backup) = &args.from_backup {
        super::backup::take_over(backup, dir)?;
    }
    let repo = Repo::open(dir).map_err(|error| Failure::from_error(Code::Repo, &error))?;
    let listener = daemon::bind(&listen_address(args, &repo)).await?;
    let address = listener.local_addr()?;
    let advertised = advertised(args, &repo, address)?;
    let chain = chain(args, &repo).await?;
    let program = std::env::current_exe()?;
    let remote = advertised.clone().unwrap_or_else(|| address.to_string());
    let files = tls::Files::of_manager(&args.tls, repo.config(), repo.dir())?;
    let (identity, trust) = (files.identity(&remote)?, files.trust()?);
    let place = Place { listener, address, remote, identity, trust };
    let (dir, timing) = (worker_dir(&repo), repo.config().scheduling.timing());
    let begun = worker::begun_files(&dir).await.map_err(|error| Failure::from_error(Code::Repo, &error))?;
    let handle = Manager::start(ManagerOptions {
        repo,
        chain,
        remote_urls: vec![place.url("remote")],
        advertised: advertised.as_deref().map(|authority| place.api(authority)),
        software: concat!("sealyard ", env!("CARGO_PKG_VERSION")).to_owned(),
        verifier: Arc::new(ChildVerifier { program }),
        dialer: Arc::new(RpcDialer { trust: place.trust.clone() }),
        trust: place.trust.clone(),
        timing,
        begun,
    })
    .await
    .map_err(|error| start_failure(&error))?;
    for problem in handle.path_problems() {
        let failure = Failure::from_error(Code::Storage, &problem.error);
        talk!("warning: {} is not opened: {failure}", problem.path.display());
    }
    let served = serve(args, &handle, place).await;
    handle.stop().await;
    match served {
        Ok(()) => Ok(()),
        // A manager that ended by itself says why better than whoever asked it something then.
        Err(failure) => Err(handle.ended().await.err().map_or(failure, |error| start_failure(&error))),
    }
}

/// The chain behind the full node that was given, else none; whether it is the repo's is the manager's to say.
async fn chain(args: &RunArgs, repo: &Repo) -> Result<ChainChoice, Failure> {
    let settings = &repo.config().chain;
    let given = args.node.full_node.as_ref().filter(|info| !info.is_empty()).or(settings.full_node.as_ref());
    let Some(info) = given.filter(|_| !args.node.offline) else {
        if args.node.nosync {
            talk!("note: --nosync changes nothing: there is no chain to wait for");
        }
        return Ok(ChainChoice::Offline);
    };
    let lotus = full_node::connect(repo.dir(), info).await?;
    if !args.node.nosync {
        full_node::synced(&lotus).await?;
    }
    let sends = args.send_messages || settings.send_messages;
    talk!("chain {} by {}", lotus.network(), lotus.software());
    if !sends {
        talk!("no messages are sent: what would be is shown; --send-messages sends them");
    }
    let sending = if sends { Sending::On } else { Sending::Off };
    Ok(ChainChoice::Lotus { lotus: Arc::new(lotus), sending })
}

/// Where it is reached.
struct Place {
    listener: tokio::net::TcpListener,
    address: SocketAddr,
    /// `HOST:PORT` as other machines know it.
    remote: String,
    identity: Option<Identity>,
    trust: Trust,
}

impl Place {
    fn url(&self, path: &str) -> String {
        format!("{}://{}/{path}", tls::scheme(self.identity.is_some()), self.remote)
    }

    /// The API's address for API info. With TLS a URL, since Lotus takes a multiaddr's https for plain.
    fn api(&self, authority: &str) -> String {
        if self.identity.is_some() {
            format!("https://{authority}")
        } else {
            tls::multiaddr(authority, false)
        }
    }
}

async fn serve(args: &RunArgs, handle: &ManagerHandle, place: Place) -> Outcome {
    let repo = handle.repo().dir().to_owned();
    let (urls, address) = (vec![place.url("remote")], place.address);
    let Place { listener, identity, remote, trust, .. } = place;
    let is_tls = identity.is_some();
    let server = daemon::serve(listener, handle.router(), identity);
    let own = match handle.refusal() {
        None => Some(own_worker(args, handle, urls, trust).await?),
        Some(_) => None,
    };
    if let Some(own) = &own {
        handle.prove_with(Arc::new(own.clone()));
        handle.add_local_worker(Arc::new(own.clone())).await.map_err(crate::connect::rpc_failure)?;
        own.push_states();
    }

    let unwritable = |error: rpc::repo_files::RepoFileError| Failure::from_error(Code::Repo, &error);
    let api = if address.ip().is_unspecified() { loopback(address) } else { address };
    let token = handle
        .repo()
        .secret()
        .mint(&rpc::Permission::ALL)
        .map_err(|error| Failure::from_error(Code::Token, &error))?;
    rpc::repo_files::write_token(&repo, &token).map_err(unwritable)?;
    // With TLS by the name that the certificate has.
    let api = if is_tls { tls::multiaddr(&remote, true) } else { Multiaddr::http(api).to_string() };
    rpc::repo_files::write_api(&repo, &api).map_err(unwritable)?;
    let how = if is_tls { " (TLS alone)" } else { "" };
    talk!("manager listening on {address}{how}; its repo is {}", repo.display());
    if handle.rehearses() {
        talk!("REHEARSAL: nothing that it seals is real, and no chain will ever know it");
    }
    if address.ip().is_loopback() {
        talk!(
            "workers on other machines cannot reach it: for them, run it with --listen 0.0.0.0:{} --advertise HOST:{}",
            address.port(),
            address.port()
        );
    }

    let waiting = handle.clone();
    tokio::spawn(async move {
        waiting.overtaken().await;
        if let Some(refusal) = waiting.refusal() {
            talk!("OVERTAKEN: {refusal}");
        }
    });
    let ended = tokio::select! {
        ended = handle.ended() => ended.map_err(|error| start_failure(&error)),
        () = handle.shutdown_asked() => { talk!("stopping: asked to over the API"); Ok(()) }
        why = daemon::stop_requested(args.until_stdin_closes) => {
            talk!("stopping: {why}");
            if let Some(own) = &own {
                daemon::end_worker(own, why).await;
            }
            Ok(())
        }
    };
    // However it ended, its next life goes on with what runs.
    if let Some(own) = &own {
        own.leave().await;
    }
    server.abort();
    rpc::repo_files::remove_api(&repo).map_err(unwritable)?;
    match handle.refusal() {
        Some(refusal) => Err(Failure::from_error(Code::Overtaken, &refusal)),
        None => ended,
    }
}

/// The repo of the worker in this process.
fn worker_dir(repo: &Repo) -> PathBuf {
    repo.dir().join("worker")
}

/// The worker in this process: it shares the manager's storage paths and takes what `config.toml` allows.
async fn own_worker(
    args: &RunArgs,
    handle: &ManagerHandle,
    urls: Vec<String>,
    trust: Trust,
) -> Result<WorkerHandle, Failure> {
    let config = handle.repo().config();
    let dir = worker_dir(handle.repo());
    let repo = worker::Repo::open_or_create(&dir, FirstPath::None)
        .map_err(|error| Failure::from_error(Code::Repo, &error))?;
    let mut resources = worker::resources::detect(Swap::Counted)
        .map_err(|error| Failure::from_error(Code::Setting, &error))?;
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned());
    let host = host.unwrap_or_else(|_| "manager".to_owned());
    let machine = match std::env::var(MACHINE) {
        Ok(name) if !name.is_empty() => Some(worker::machine::named(&name)),
        Ok(_) | Err(_) => worker::machine::identity(&host),
    };
    let name = config.local_worker_name.clone().unwrap_or(host);
    let overview = handle.api().overview().await.map_err(crate::connect::rpc_failure)?;
    let sector_size = overview
        .sector_size
        .ok_or_else(|| Failure::new(Code::Repo, "the repo does not say which sector size the miner has"))?;
    let settings = ExecutorSettings::of_this_process(&Sources {
        gpu: args.enable_gpu_proving,
        per_task: &repo.config().executor_environment,
        config: &dir.join("config.toml"),
    })?;
    for note in &settings.notes {
        talk!("note: {note}");
    }
    let token = handle
        .repo()
        .secret()
        .mint(&rpc::Permission::ALL)
        .map_err(|error| Failure::from_error(Code::Token, &error))?;
    let program = std::env::current_exe()?;
    let executors = match handle.rehearses() {
        true => Executors::rehearsal(&args.executors, &program)?,
        false => Executors::choose(&args.executors, &program)?,
    };
    if executors.rehearsal.is_some() && !handle.rehearses() {
        return Err(Failure::new(
            Code::Usage,
            "this manager's sectors are real, so its own tasks are not played",
        )
        .advise("a rehearsal has a manager of its own, made with `sealyard init --rehearsal`"));
    }
    args.executors.machine()?.over(&mut resources);
    Worker::start(WorkerOptions {
        executor: executors.options(&program, settings.environment, &repo),
        settings: settings.in_force,
        repo,
        name,
        manager: handle.api(),
        sector_size,
        urls,
        token,
        tasks: config.local_tasks.clone(),
        plan: SealingPlan::Any,
        params: executors.params(Obtain::Fetch, &program),
        trust,
        parallel_fetch_limit: config.parallel_fetch_limit,
        resources,
        swap: Swap::Counted,
        ignore_resources: false,
        caps: TaskCaps::none(),
        machine,
        managers: None,
        local: Some(handle.local()),
        periods: Periods::default(),
    })
    .await
    .map_err(worker_failure)
}

/// Flags beat the configuration; `--api` is a port of the configured host.
fn listen_address(args: &RunArgs, repo: &Repo) -> String {
    let configured = &repo.config().listen;
    match (&args.listen, args.api) {
        (Some(listen), _) => listen.clone(),
        (None, Some(port)) => {
            let host = configured.rsplit_once(':').map_or("127.0.0.1", |(host, _)| host);
            format!("{host}:{port}")
        }
        (None, None) => configured.clone(),
    }
}

/// `HOST:PORT` that other machines reach: as given, else the listen address if it is a definite one.
fn advertised(args: &RunArgs, repo: &Repo, address: SocketAddr) -> Result<Option<String>, Failure> {
    match args.advertise.as_ref().or(repo.config().advertise.as_ref()) {
        Some(given) if given.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) => {
            Ok(Some(given.clone()))
        }
        Some(given) => {
            Err(Failure::new(Code::Setting, format!("{given:?} is no address")).advise("give HOST:PORT"))
        }
        None if address.ip().is_unspecified() => Err(Failure::new(
            Code::Setting,
            format!("listening on {address}, other machines need an address to come back to"),
        )
        .advise(format!("add --advertise HOST:{}", address.port()))),
        None => Ok(Some(address.to_string())),
    }
}

fn loopback(mut address: SocketAddr) -> SocketAddr {
    let ip = if address.is_ipv4() {
        std::net::Ipv4Addr::LOCALHOST.into()
    } else {
        std::net::IpAddr::from(std::net::Ipv6Addr::LOCALHOST)
    };
    address.set_ip(ip);
    address
}

/// Why a manager does not start, with its exit code.
pub fn start_failure(error: &ManagerError) -> Failure {
    let code = match error {
        ManagerError::ServedAlready { .. }
        | ManagerError::TooManyMiners { .. }
        | ManagerError::NotRemoved { .. } => Code::Setting,
        ManagerError::State(_) | ManagerError::Repo(_) | ManagerError::Staging(_) => Code::Repo,
        ManagerError::NoNode { .. } | ManagerError::OtherChain { .. } | ManagerError::Miner { .. } => {
            Code::Setting
        }
        ManagerError::Chain(error) => full_node::code(error),
        ManagerError::Outbox(_) => Code::Repo,
        ManagerError::Backup(_) => Code::Repo,
        ManagerError::Storage(_) => Code::Storage,
        ManagerError::Token(_) => Code::Token,
    };
    Failure::from_error(code, error)
}

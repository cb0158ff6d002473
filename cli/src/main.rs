//! The program `sealyard`: arguments, then a plan, then an exit code. The only room that prints.

mod args;
mod clock;
mod commands;
mod connect;
mod dev;
mod executor_settings;
mod executors;
mod exit;
mod full_node;
mod proof_params;
mod show;
mod simulate;
mod task_selection;
mod tls;
mod verifier;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use args::{Cli, Command, SealingCommand, UtilCommand, UtilSealerCommand, WorkerCommand};
use connect::{Connection, expand};
use exit::{Outcome, report};

/// Of the whole program, SQLite included.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // An executor must find its descriptors as it was started with them: before a runtime or a log opens any.
    if let Command::Exec(args) = &cli.command {
        return commands::exec::run(args);
    }
    start_log(&cli.command);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(Err(error.into())),
    };
    let outcome = runtime.block_on(run(cli));
    // What still runs in the background (a blocked disk, a peer that does not answer) must not hold the exit up.
    runtime.shutdown_background();
    report(outcome)
}

async fn run(cli: Cli) -> Outcome {
    let repo = expand(&cli.repo)?;
    match &cli.command {
        Command::Init(args) => commands::init::init(&repo, args).await,
        Command::Run(args) => commands::run::run(&repo, args).await,
        Command::Miners(command) => commands::miners::miners(&repo, command).await,
        Command::Backup(args) => commands::backup::backup(&repo, args).await,
        Command::Worker(WorkerCommand::Run(args)) => commands::worker_run::run(&repo, args).await,
        Command::Worker(command) => commands::worker::worker(&repo, command).await,
        Command::Workers(command) => commands::operate::workers(&Connection::discover(&repo)?, command).await,
        Command::Sealing(SealingCommand::DataCid(args)) => commands::data_cid::print_data_cid(args).await,
        Command::Sealing(command) => commands::operate::sealing(&Connection::discover(&repo)?, command).await,
        Command::Storage(command) => commands::storage::storage(&repo, command).await,
        Command::Sectors(command)
        | Command::Util(UtilCommand::Sealer(UtilSealerCommand::Sectors(command))) => {
            commands::operate::sectors(&Connection::discover(&repo)?, command).await
        }
        Command::Auth(command) => commands::auth::auth(&repo, command).await,
        Command::Params(command) => commands::params::params(command).await,
        Command::Exec(_) => unreachable!("executors run before this"),
        Command::Dev(args) => dev::run(args).await,
        Command::Simulate(args) => commands::simulate::simulate(args),
        Command::Info(args) => commands::operate::info(&Connection::discover(&repo)?, *args).await,
        Command::Pledge(args) => commands::pipelining::pledge(&Connection::discover(&repo)?, args).await,
        Command::Find(args) => commands::storage::find(&Connection::discover(&repo)?, args).await,
        Command::Proving(command) => commands::proving::proving(&Connection::discover(&repo)?, command).await,
        Command::Repair(command) => commands::repair::repair(&repo, command).await,
        Command::Export(args) => commands::repair::run_export(&repo, args).await,
        Command::Recover(args) => commands::rebuild::run_file(&repo, args).await,
        Command::Completions { shell } => {
            let mut script = Vec::new(); // the generator panics over a closed pipe; a vector takes everything
            clap_complete::generate(*shell, &mut Cli::command(), "sealyard", &mut script);
            show::raw(&String::from_utf8_lossy(&script))
        }
        Command::Version(args) => commands::version::version(*args),
    }
}

/// Logs go to stderr. Daemons tell what they do; commands only what is wrong. `RUST_LOG` overrides.
fn start_log(command: &Command) {
    let daemon = matches!(command, Command::Run(_) | Command::Worker(WorkerCommand::Run(_)));
    let default = if daemon { "info" } else { "warn" };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| default.into());
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && !no_color)
        .log_internal_errors(false) // it would report a closed stderr on stderr, and panic
        .with_target(false)
        .init();
}

//! `auth …` and `workers join-command`: tokens, and lines to paste on other machines.

use std::path::Path;

use rpc::api_info::ApiInfo;
use rpc::token::worker_token_id;
use rpc::{Permission, Scope, Secret};
use serde_json::json;

use crate::args::{AuthCommand, Perm, TaskFlags};
use crate::connect::{Connection, rpc_failure};
use crate::exit::{Code, Failure, Outcome};
use crate::show::{line, print_json, talk};

/// `auth …`.
pub async fn auth(repo: &Path, command: &AuthCommand) -> Outcome {
    match command {
        AuthCommand::CreateToken { perm, json } => {
            // The secret is on this host's disk, so a token can be minted while the manager is down.
            let token = match rpc::keystore::load(repo) {
                Ok(Some(secret)) => mint_here(&secret, *perm)?,
                Ok(None) => mint(&Connection::discover(repo)?, *perm).await?,
                Err(error) => return Err(Failure::from_error(Code::Repo, &error)),
            };
            if *json { print_json(&json!({ "token": token })) } else { line(&token) }
        }
        AuthCommand::ApiInfo { perm, json } => {
            let connection = Connection::discover(repo)?;
            let info = reachable_info(&connection, *perm).await?;
            if *json {
                print_json(&json!({ "MINER_API_INFO": info.to_string() }))
            } else {
                line(&format!("MINER_API_INFO={info}"))
            }
        }
    }
}

/// `workers join-command`.
pub async fn join_command(connection: &Connection, tasks: &[String], json: bool) -> Outcome {
    let known: Vec<String> =
        TaskFlags::default().entries().iter().map(|(name, ..)| name.replace('_', "-")).collect();
    if let Some(unknown) = tasks.iter().find(|task| !known.contains(&task.trim_start_matches('-').to_owned()))
    {
        return Err(Failure::new(
            Code::Usage,
            format!("{unknown:?} is no task flag of `sealyard worker run`"),
        )
        .advise(format!("known are {}", known.join(", "))));
    }
    let info = reachable_info(connection, Perm::Worker).await?;
    let flags: String = tasks.iter().map(|task| format!(" --{}", task.trim_start_matches('-'))).collect();
    let command = format!("MINER_API_INFO={info} sealyard worker run{flags}");
    if info.dial_address().starts_with("127.") {
        talk!(
            "note: the manager listens on loopback only, so this line works on this machine alone; run it with \
             `sealyard run --listen 0.0.0.0:2345 --advertise HOST:2345` to let other machines in"
        );
    }
    if json { print_json(&json!({ "command": command })) } else { line(&command) }
}

async fn mint(connection: &Connection, perm: Perm) -> Result<String, Failure> {
    let minted = match levels(perm) {
        Some(levels) => connection.manager.auth_new(levels.to_vec()).await,
        None => connection.manager.auth_new_worker().await,
    };
    minted.map_err(rpc_failure)
}

fn mint_here(secret: &Secret, perm: Perm) -> Result<String, Failure> {
    let minted = match levels(perm) {
        Some(levels) => secret.mint(levels),
        None => secret.mint_scoped(Scope::Worker { id: worker_token_id()? }),
    };
    minted.map_err(|error| Failure::from_error(Code::Token, &error))
}

/// The manager's address as other machines see it, with a new token.
async fn reachable_info(connection: &Connection, perm: Perm) -> Result<ApiInfo, Failure> {
    let token = mint(connection, perm).await?;
    let overview = connection.manager.overview().await.map_err(rpc_failure)?;
    let mut info = connection.info.clone();
    if let Some(address) = overview.advertised {
        info = address
            .parse()
            .map_err(|error: rpc::api_info::ApiInfoError| Failure::from_error(Code::Failed, &error))?;
    }
    info.token = Some(token);
    Ok(info)
}

/// Each level includes the ones before it, as Lotus's command does. `None`: no level, but one purpose.
fn levels(perm: Perm) -> Option<&'static [Permission]> {
    let count = match perm {
        Perm::Read => 1,
        Perm::Write => 2,
        Perm::Sign => 3,
        Perm::Admin => 4,
        Perm::Worker => return None,
    };
    Some(&Permission::ALL[..count])
}

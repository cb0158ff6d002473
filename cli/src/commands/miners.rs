//! `miners`: whose sectors one manager seals with one pool of workers. Never: makes an actor on a chain.

use std::collections::BTreeSet;
use std::path::Path;

use manager::Repo;
use rpc::Miners;
use sealtasks::ActorId;
use serde_json::json;

use super::control::by;
use super::operate;
use super::run::start_failure;
use crate::args::{ListArgs, MinerAddArgs, MinerRemoveArgs, MinersCommand};
use crate::connect::Connection;
use crate::exit::{Code, Failure, Outcome};
use crate::full_node;
use crate::show::{line, print_json, talk};

/// `miners …`.
pub async fn miners(repo: &Path, command: &MinersCommand) -> Outcome {
    match command {
        MinersCommand::Add(args) => add(repo, args).await,
        MinersCommand::Remove(args) => remove(repo, args).await,
        MinersCommand::List(args) => list(&Connection::discover(repo)?, *args).await,
    }
}

/// `miners add`: in the repo of a manager that does not run.
async fn add(repo: &Path, args: &MinerAddArgs) -> Outcome {
    let repo = Repo::open(repo).map_err(|error| Failure::from_error(Code::Repo, &error))?;
    let given = args.node.full_node.as_ref().filter(|info| !info.is_empty());
    let given = given.or(repo.config().chain.full_node.as_ref()).filter(|_| !args.node.offline);
    let lotus = match given {
        Some(info) => {
            let lotus = full_node::connect(repo.dir(), info).await?;
            if !args.node.nosync {
                full_node::synced(&lotus).await?;
            }
            Some(lotus)
        }
        None => None,
    };
    let added = manager::add_miner(&repo, args.miner, lotus.as_ref(), by()).await;
    let miners = added.map_err(|error| start_failure(&error))?;
    if args.json {
        return print_json(&json!({ "repo": repo.dir(), "miners": named(&miners) }));
    }
    let miner = args.miner.get();
    line(&format!(
        "f0{miner} is served from the next `sealyard run` on; `sealyard sectors pledge --miner f0{miner}` starts its sectors"
    ))
}

/// `miners remove`: as `miners add`.
async fn remove(repo: &Path, args: &MinerRemoveArgs) -> Outcome {
    let repo = Repo::open(repo).map_err(|error| Failure::from_error(Code::Repo, &error))?;
    let removed = manager::remove_miner(&repo, args.miner, by()).await;
    let miners = removed.map_err(|error| start_failure(&error))?;
    let chain = &repo.config().chain;
    let payers: BTreeSet<&str> = [&chain.pre_commit_payment, &chain.prove_commit_payment]
        .into_iter()
        .flat_map(|payment| payment.from.iter().map(String::as_str))
        .collect();
    if !payers.is_empty() {
        let payers = payers.into_iter().collect::<Vec<_>>().join(", ");
        talk!(
            "[chain] pre_commit_from and prove_commit_from in {} name {payers}: if some are f0{}'s alone, take them out: they pay for nothing now",
            repo.dir().join("config.toml").display(),
            args.miner.get()
        );
    }
    if args.json {
        return print_json(&json!({ "repo": repo.dir(), "miners": named(&miners) }));
    }
    line(&format!("f0{} is served no longer, from the next `sealyard run` on", args.miner.get()))
}

/// `miners list`.
async fn list(connection: &Connection, args: ListArgs) -> Outcome {
    let miners = operate::miners(connection).await?;
    if args.json {
        return print_json(&named(&miners));
    }
    named(&miners).iter().try_for_each(|miner| line(miner))
}

/// As people write them, the first one first.
pub fn named(miners: &Miners) -> Vec<String> {
    miners.all().map(|miner: ActorId| format!("f0{}", miner.get())).collect()
}

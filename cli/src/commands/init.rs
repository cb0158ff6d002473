//! `init`: a manager's repo.

use std::path::Path;

use manager::state::ChainIdentity;
use manager::{InitOptions, LocalStorage, Repo};
use sealtasks::{ActorId, SectorSize};
use serde_json::json;

use crate::args::InitArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::full_node;
use crate::show::{line, print_json, talk};

/// Makes the repo, or says why not; a refusal leaves nothing behind.
pub async fn init(repo: &Path, args: &InitArgs) -> Outcome {
    refuse_lotus_forms(args)?;
    let actor: ActorId = args.actor.parse().map_err(|error| Failure::from_error(Code::Setting, &error))?;
    let told = args.sector_size.as_deref().map(super::params::parse_size).transpose().map_err(|failure| {
        failure.advise(format!("today's form: sealyard init --actor {} --sector-size 2KiB", args.actor))
    })?;
    let given = args.node.full_node.as_ref().filter(|info| !info.is_empty());
    let (size, chain) = match given.filter(|_| !args.node.offline && !args.rehearsal) {
        Some(info) => {
            let (size, chain) = on_chain(repo, args, info, (actor, told)).await?;
            (size, Some(chain))
        }
        None => (offline(args, told.unwrap_or(SectorSize::KiB2))?, None),
    };
    let local_storage = if args.no_local_storage { LocalStorage::None } else { LocalStorage::InRepo };
    let network = chain.as_ref().map(|chain| chain.network.clone());
    let rehearsal = args.rehearsal;
    Repo::init(repo, InitOptions { actor, sector_size: size, local_storage, rehearsal, chain })
        .map_err(|error| Failure::from_error(Code::Repo, &error))?;
    if args.json {
        let miner = format!("f0{}", actor.get());
        return print_json(&json!({
            "repo": repo, "miner": miner, "sector_size": size, "rehearsal": rehearsal, "network": network,
        }));
    }
    let kind = if rehearsal { "REHEARSAL " } else { "" };
    let network = network.map_or_else(String::new, |network| format!(" on {network}"));
    line(&format!(
        "made {} for {kind}miner f0{}{network} with {size} sectors; start it with `sealyard run`",
        repo.display(),
        actor.get()
    ))
}

/// The chain of this full node, and the miner's sector size there.
async fn on_chain(
    repo: &Path,
    args: &InitArgs,
    info: &str,
    (actor, told): (ActorId, Option<SectorSize>),
) -> Result<(SectorSize, ChainIdentity), Failure> {
    let lotus = full_node::connect(repo, info).await?;
    if !args.node.nosync {
        full_node::synced(&lotus).await?;
    }
    let facts = lotus.miner(actor, told).await.map_err(|error| full_node::failure(&error))?;
    Ok((facts.size, ChainIdentity::of(&lotus)))
}

/// Without a chain only sectors for tests can be made, or played ones.
fn offline(args: &InitArgs, size: SectorSize) -> Result<SectorSize, Failure> {
    if args.node.nosync {
        talk!("note: --nosync changes nothing: there is no chain to wait for");
    }
    if size.is_test_size() || args.rehearsal {
        return Ok(size);
    }
    let failure = Failure::new(Code::Setting, format!("{size} sectors need a chain, and none is given"));
    Err(failure
        .advise("set FULLNODE_API_INFO to a full node's API info; 2KiB, 8MiB and 512MiB work without one"))
}

/// Flags of Lotus's `init` that do something on chain, which this program does not.
fn refuse_lotus_forms(args: &InitArgs) -> Outcome {
    let today = format!("today's form: sealyard init --actor {} --sector-size 2KiB", args.actor);
    let refused = |what: &str, why: &str| {
        Err(Failure::new(Code::NotBuilt, format!("{what}: {why}")).advise(today.clone()))
    };
    if args.genesis_miner {
        return refused(
            "--genesis-miner",
            "a network's first miner is made by Lotus, not by a sector-storage manager",
        );
    }
    if args.owner.is_some() || args.worker.is_some() {
        return refused(
            "--owner, --worker",
            "an actor and its keys are made on chain; give an existing actor",
        );
    }
    if !args.pre_sealed_sectors.is_empty() {
        return refused("--pre-sealed-sectors", "sectors are taken over by attaching their storage path");
    }
    Ok(())
}

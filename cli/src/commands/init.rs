//! `init`: a manager's repo.

use std::path::Path;

use manager::{InitOptions, LocalStorage, Repo};
use sealtasks::ActorId;
use serde_json::json;

use crate::args::InitArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::show::{line, print_json, talk};

/// Makes the repo, or says why not; a refusal leaves nothing behind.
pub fn init(repo: &Path, args: &InitArgs) -> Outcome {
    refuse_lotus_forms(args)?;
    let actor: ActorId = args.actor.parse().map_err(|error| Failure::from_error(Code::Setting, &error))?;
    let size = super::params::parse_size(&args.sector_size).map_err(|failure| {
        failure.advise(format!("today's form: sealyard init --actor {} --sector-size 2KiB", args.actor))
    })?;
    if !size.is_test_size() && !args.rehearsal {
        return Err(Failure::new(
            Code::Setting,
            format!("{size} sectors need a chain, and none is configured"),
        )
        .advise("Sealyard does not talk to a full node yet; 2KiB, 8MiB and 512MiB work without one"));
    }
    let local_storage = if args.no_local_storage { LocalStorage::None } else { LocalStorage::InRepo };
    Repo::init(repo, InitOptions { actor, sector_size: size, local_storage, rehearsal: args.rehearsal })
        .map_err(|error| Failure::from_error(Code::Repo, &error))?;
    if args.json {
        let rehearsal = args.rehearsal;
        let miner = format!("f0{}", actor.get());
        return print_json(
            &json!({ "repo": repo, "miner": miner, "sector_size": size, "rehearsal": rehearsal }),
        );
    }
    let kind = if args.rehearsal { "REHEARSAL " } else { "" };
    line(&format!(
        "made {} for {kind}miner f0{} with {size} sectors; start it with `sealyard run`",
        repo.display(),
        actor.get()
    ))
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
    if args.nosync {
        talk!("note: --nosync changes nothing: there is no chain to wait for");
    }
    Ok(())
}

//! `proving check`: which stored sectors can be proven, and which file is at fault where one cannot. Never: changes a file,
//! or calls a sector bad because somebody is at work on it or a host is not reached.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use rpc::proving::{ProvingState, ProvingView, ProvingWish};
use rpc::{ApiError, Miners, SectorName};
use sealtasks::{CHALLENGES_MAX, SectorId};
use serde_json::json;

use crate::args::{ProvingCheckArgs, ProvingCommand};
use crate::connect::{Connection, rpc_failure};
use crate::exit::{Code, Failure, Outcome};
use crate::show::{line, paint, plain, print_json, talk};

/// Sectors checked at once.
const AT_ONCE: usize = 8;
/// How long the full node may take to tell the miner's sectors.
const NODE_MAX: std::time::Duration = std::time::Duration::from_secs(30);
/// So many sectors are named in the alert; `--json` has all.
const NAMED_MAX: usize = 20;
/// What the manager says of a path that there is not.
const NO_PATH: &str = "MGR199";

/// `proving …`.
pub async fn proving(connection: &Connection, command: &ProvingCommand) -> Outcome {
    let ProvingCommand::Check(args) = command;
    check(connection, args).await
}

async fn check(connection: &Connection, args: &ProvingCheckArgs) -> Outcome {
    if args.challenges == 0 || args.challenges > CHALLENGES_MAX {
        let text = format!("--challenges {} is not from 1 to {CHALLENGES_MAX}", args.challenges);
        return Err(Failure::new(Code::Usage, text));
    }
    let all = args.sectors.is_empty();
    let miners = super::operate::miners(connection).await?;
    let (sectors, absent) = asked_about(connection, args, &miners).await?;
    let bar = bar(sectors.len());
    let asked = sectors.into_iter().map(|sector| {
        let wish = ProvingWish { sector, challenges: args.challenges };
        async move { (sector, connection.proving.check_provable(wish).await) }
    });
    let mut answers = stream::iter(asked).buffered(AT_ONCE);
    let (mut views, mut failed) = (Vec::new(), absent);
    while let Some((sector, answer)) = answers.next().await {
        bar.inc(1);
        let view = match answer {
            Ok(view) => view,
            Err(error) if concerns_all(&error) => return Err(rpc_failure(error)),
            // It was removed meanwhile.
            Err(error) if all && is_unknown(&error) => continue,
            Err(error) => {
                let why = rpc::error::chain(&error);
                if !args.json && !args.only_bad {
                    bar.suspend(|| line(&told(sector, ProvingState::Unknown, &why)))?;
                }
                failed.push(Failed { sector, why, missing: is_unknown(&error) });
                continue;
            }
        };
        // Sectors without a replica are told only to who asks for them by number.
        if !all || view.state != ProvingState::NotSealed {
            if !args.json && shown(&view, args) {
                bar.suspend(|| line(&sentence(&view, &miners)))?;
            }
            views.push(view);
        }
    }
    bar.finish_and_clear();
    // A host's paths are not the place to look for what no path has.
    let unheld = match all && args.storage_id.is_none() {
        true => Some(ask_unheld(connection).await),
        false => None,
    };
    tell(&views, &failed, unheld, args)
}

/// Whom the hosts are asked about, and those named ones of which nothing lies where it was to be looked at.
async fn asked_about(
    connection: &Connection,
    args: &ProvingCheckArgs,
    miners: &Miners,
) -> Result<(Vec<SectorName>, Vec<Failed>), Failure> {
    let Some(path) = &args.storage_id else {
        if !args.sectors.is_empty() {
            return Ok((args.sectors.clone(), Vec::new()));
        }
        let listed = connection.manager.sectors().await.map_err(rpc_failure)?;
        return Ok((listed.into_iter().map(|sector| miners.name(sector)).collect(), Vec::new()));
    };
    let there = match connection.proving.replicas_in(path.clone()).await {
        Ok(there) => there,
        Err(ApiError::Remote { message, .. }) if message.contains(NO_PATH) => {
            return Err(Failure::new(Code::Unknown, message));
        }
        Err(error) => return Err(rpc_failure(error)),
    };
    if args.sectors.is_empty() {
        return Ok((there.into_iter().map(|sector| miners.name(sector)).collect(), Vec::new()));
    }
    let (named, absent) = lying_there(&args.sectors, &there);
    let failed = |sector| {
        let why = format!("path {path} has no sealed file or cache of sector {sector}");
        talk!("{why}");
        Failed { sector, why, missing: true }
    };
    Ok((named, absent.into_iter().map(failed).collect()))
}

/// The sectors of these names that are among those there, and the others.
fn lying_there(named: &[SectorName], there: &[SectorId]) -> (Vec<SectorName>, Vec<SectorName>) {
    let numbers: BTreeSet<_> = there.iter().map(|id| id.number).collect();
    let sectors: BTreeSet<_> = there.iter().collect();
    named.iter().copied().partition(|SectorName { miner, number }| match miner {
        Some(miner) => sectors.contains(&SectorId { miner: *miner, number: *number }),
        // Whose it is the manager says, or that it is unclear.
        None => numbers.contains(number),
    })
}

/// Whether every other sector would be answered alike.
fn concerns_all(error: &ApiError) -> bool {
    let refused = matches!(error, ApiError::Remote { message, .. } if message.contains("missing permission"));
    refused
        || error.was_not_sent()
        || error.is_method_not_found()
        || matches!(error, ApiError::Unauthorized { .. })
}

fn is_unknown(error: &ApiError) -> bool {
    error.to_string().contains("MGR053")
}

/// A sector about which the manager could not be asked.
struct Failed {
    sector: SectorName,
    why: String,
    /// There is none of this name.
    missing: bool,
}

/// Lists and sums up; the exit code says whether all can be proven.
fn tell(
    views: &[ProvingView],
    failed: &[Failed],
    unheld: Option<Result<Vec<SectorName>, String>>,
    args: &ProvingCheckArgs,
) -> Outcome {
    let (unheld, untold) = match unheld {
        Some(Ok(unheld)) => (Some(unheld), None),
        Some(Err(why)) => (None, Some(why)),
        None => (None, None),
    };
    let alert = unheld_alert(unheld.as_deref().unwrap_or_default());
    let count = |state| {
        let also = if state == ProvingState::Unknown { failed.len() } else { 0 };
        views.iter().filter(|view| view.state == state).count().saturating_add(also)
    };
    let checked = views.len().saturating_add(failed.len());
    let bad = count(ProvingState::Bad);
    let unsure = count(ProvingState::Away).saturating_add(count(ProvingState::Unknown));
    if args.json {
        let shown: Vec<&ProvingView> = views.iter().filter(|view| shown(view, args)).collect();
        let failed: Vec<_> = failed.iter().map(|it| json!({ "sector": it.sector, "why": it.why })).collect();
        print_json(&json!({
            "checked": checked, "bad": bad, "unsure": unsure, "sectors": shown, "failed": failed,
            "on_chain_only": unheld,
        }))?;
    } else {
        let states = [
            ProvingState::Good,
            ProvingState::Bad,
            ProvingState::Locked,
            ProvingState::Away,
            ProvingState::Unknown,
            ProvingState::NotSealed,
        ];
        let told = states.into_iter().map(|state| (count(state), state)).filter(|(count, _)| *count > 0);
        let told: Vec<String> = told.map(|(count, state)| format!("{count} {}", state.words())).collect();
        let told = if told.is_empty() { "nothing to check".to_owned() } else { told.join(", ") };
        line(&format!("{checked} sectors checked: {told}"))?;
        if let Some(alert) = &alert {
            line(&paint::red(alert))?;
        }
    }
    // Whichever exit code comes of it.
    if let Some(why) = untold.as_ref().filter(|_| bad > 0) {
        talk!("{}", untold_text(why));
    }
    let missing: Vec<&str> = failed.iter().filter(|it| it.missing).map(|it| it.why.as_str()).collect();
    verdict(bad, alert, &missing, unsure, untold)
}

/// The worst of what was found. Who reads the exit code alone must not take what was not answered for good.
fn verdict(
    bad: usize,
    alert: Option<String>,
    missing: &[&str],
    unsure: usize,
    untold: Option<String>,
) -> Outcome {
    if bad > 0 {
        return Err(Failure::new(Code::Sealing, format!("{bad} sectors cannot be proven"))
            .advise("fetch good copies of the files that are named, or have `sealyard sectors rebuild` seal those sectors again"));
    }
    if let Some(alert) = alert {
        return Err(Failure::new(Code::Sealing, alert).advise(
            "attach the paths that have them, or bring them back: `sealyard repair export`, `repair run`",
        ));
    }
    if !missing.is_empty() {
        return Err(Failure::new(Code::Unknown, missing.join("; ")));
    }
    if unsure > 0 {
        let text = format!("of {unsure} sectors it is not known whether they can be proven");
        return Err(Failure::new(Code::Failed, text).advise(
            "nothing is said against their files: check them again when the hosts that have them answer",
        ));
    }
    match untold {
        Some(why) => Err(Failure::new(Code::Failed, untold_text(&why))
            .advise("check again when the full node answers; the sectors that were checked are listed")),
        None => Ok(()),
    }
}

/// Sectors on chain that no path has; the error: why that is not known now.
async fn ask_unheld(connection: &Connection) -> Result<Vec<SectorName>, String> {
    let asked = async {
        let (miners, unheld) = (connection.manager.miners().await?, connection.proving.unheld().await?);
        Ok::<_, ApiError>(unheld.into_iter().map(|sector| miners.name(sector)).collect())
    };
    match tokio::time::timeout(NODE_MAX, asked).await {
        Ok(answer) => answer.map_err(|error| rpc::error::chain(&error)),
        Err(_) => Err(format!("the full node has not said it within {} s", NODE_MAX.as_secs())),
    }
}

fn untold_text(why: &str) -> String {
    format!("whether sectors are on chain that no path has is not known now: {why}")
}

/// Sectors on chain that no path has; `None`, and a word about it: the chain cannot be asked now.
pub async fn unheld(connection: &Connection) -> Option<Vec<SectorName>> {
    ask_unheld(connection).await.map_err(|why| talk!("{}", untold_text(&why))).ok()
}

/// The alert about them; `None`: there are none.
fn unheld_alert(unheld: &[SectorName]) -> Option<String> {
    if unheld.is_empty() {
        return None;
    }
    let named: Vec<String> = unheld.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    let more = if unheld.len() > NAMED_MAX { " …" } else { "" };
    Some(format!(
        "ALERT: {} sectors are on chain and in no storage path: {}{more}",
        unheld.len(),
        named.join(" ")
    ))
}

/// A bad copy counts even where another one is good.
fn shown(view: &ProvingView, args: &ProvingCheckArgs) -> bool {
    !args.only_bad || view.state == ProvingState::Bad
}

fn sentence(view: &ProvingView, miners: &Miners) -> String {
    told(miners.name(view.sector), view.state, &view.detail)
}

fn told(sector: SectorName, state: ProvingState, detail: &str) -> String {
    let words = state.words();
    let state = match state {
        ProvingState::Good => paint::green(words),
        ProvingState::Bad => paint::red(words),
        _ => paint::yellow(words),
    };
    let detail = match detail.is_empty() {
        true => String::new(),
        false => format!(": {}", plain(detail)),
    };
    format!("sector {sector}: {state}{detail}")
}

fn bar(sectors: usize) -> ProgressBar {
    let bar = ProgressBar::new(sectors as u64);
    if let Ok(style) = ProgressStyle::with_template("proving [{bar:40}] {pos}/{len} sectors, eta {eta}") {
        bar.set_style(style.progress_chars("##-"));
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever lies elsewhere is not proven: that reads disks of hosts that nobody asked about.
    #[test]
    fn only_what_lies_there_is_asked_about() {
        let name = |text: &str| text.parse::<SectorName>().expect("a name");
        let named = ["1", "2", "f01000/3", "f02000/3", "f02000/1"].map(name);
        let there = [SectorId::new(1000, 1), SectorId::new(1000, 3), SectorId::new(1000, 7)];
        let (asked, absent) = lying_there(&named, &there);
        assert_eq!(asked, ["1", "f01000/3"].map(name));
        assert_eq!(absent, ["2", "f02000/3", "f02000/1"].map(name));
    }
}

//! `repair run` without a manager: what the full node of the environment says of lost sectors before hours are spent on them.

use std::collections::VecDeque;
use std::path::Path;

use futures_util::StreamExt as _;
use rpc::SectorName;
use rpc::pipelining::Lost;

use super::rebuild::Job;
use super::repair::of_environment;
use crate::exit::Failure;
use crate::full_node::FULL_NODE;
use crate::show::talk;

/// Sectors that are asked about at the same time.
const PARALLEL: usize = 8;

/// Those that are worth it; of the others why not. Where no node is named nobody can be asked, and that is said.
pub async fn worth_it(
    repo: &Path,
    nosync: bool,
    jobs: VecDeque<Job>,
    failed: &mut Vec<(SectorName, String)>,
) -> Result<VecDeque<Job>, Failure> {
    if jobs.is_empty() {
        return Ok(jobs);
    }
    if std::env::var(FULL_NODE).map_or(true, |text| text.is_empty()) {
        talk!(
            "note: {FULL_NODE} is not set, so no chain was asked about these sectors; of one that was snapped, or is over, what \
             is sealed is of no use"
        );
        return Ok(jobs);
    }
    let unasked = format!("mend that, or unset {FULL_NODE} to have them sealed without asking a chain");
    let lotus = of_environment(repo, nosync).await.map_err(|failure| failure.advise(unasked))?;
    let lotus = &lotus;
    let ask = |(name, lost): Job| async move {
        let answer = match &lost {
            Some(Lost { sector, sealed, .. }) => lotus.may_rebuild(sector.id, *sealed).await,
            None => Ok(()),
        };
        (name, lost, answer)
    };
    let mut answers = futures_util::stream::iter(jobs.into_iter().map(ask)).buffered(PARALLEL);
    let mut worth = VecDeque::new();
    while let Some((name, lost, answer)) = answers.next().await {
        match answer {
            Ok(()) => worth.push_back((name, lost)),
            Err(error) => failed.push((name, format!("{}: {}", error.code(), sealtasks::chain(&error)))),
        }
    }
    Ok(worth)
}

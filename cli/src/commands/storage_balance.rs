//! `storage balance`: a plan that evens out how full the paths for storing are, and carrying it out.
//!
//! The plan is arithmetic over what the index knows: each step takes a finished sector from the fullest path, by share of
//! its size, to the emptiest, as long as that brings the two closer together.

use rpc::SectorName;
use rpc::storage::StoragePathView;
use sealtasks::{FileTypes, SectorId, SectorSize, SpaceTable, StorageId};
use serde::Serialize;
use serde_json::json;

use super::storage::stored_page;
use super::storage_care::path_failure;
use crate::args::BalanceArgs;
use crate::connect::{Connection, rpc_failure};
use crate::exit::{Code, Failure, Outcome};
use crate::show::{bytes, line, print_json};

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Step {
    #[serde(skip)]
    id: SectorId,
    /// What it is called.
    sector: SectorName,
    types: FileTypes,
    from: String,
    to: String,
    bytes: u64,
}

/// A path in the plan.
#[derive(Clone, Debug)]
struct Vessel {
    id: String,
    used: u64,
    total: u64,
    /// What may leave: sector, its files here, their size.
    sectors: Vec<(SectorId, FileTypes, u64)>,
}

impl Vessel {
    fn share(&self) -> f64 {
        if self.total == 0 { 1.0 } else { self.used as f64 / self.total as f64 }
    }
}

/// `storage balance`.
pub async fn balance(connection: &Connection, args: &BalanceArgs) -> Outcome {
    let vessels = vessels(connection).await?;
    let mut steps = plan(vessels, args.moves as usize, f64::from(args.tolerance) / 100.0);
    let miners = super::operate::miners(connection).await?;
    for step in &mut steps {
        step.sector = miners.name(step.id);
    }
    if !args.json {
        if steps.is_empty() {
            return line("the paths for storing are even, or nothing in them may be moved");
        }
        for step in &steps {
            let (sector, types, size) = (step.sector, step.types, bytes(step.bytes));
            line(&format!("move {types} of sector {sector} ({size}) from {} to {}", step.from, step.to))?;
        }
    }
    if !args.really_do_it {
        if args.json {
            return print_json(&json!({ "done": false, "steps": steps }));
        }
        return line(&format!("{} moves; nothing was done: add --really-do-it", steps.len()));
    }
    for step in &steps {
        let to = path_id(&step.to)?;
        connection.storage.move_sector(step.id.into(), step.types, to).await.map_err(path_failure)?;
        if !args.json {
            line(&format!("sector {} lies in {}", step.sector, step.to))?;
        }
    }
    if args.json { print_json(&json!({ "done": true, "steps": steps })) } else { Ok(()) }
}

fn path_id(text: &str) -> Result<StorageId, Failure> {
    text.parse().map_err(|error: sealtasks::IdError| Failure::from_error(Code::Failed, &error))
}

/// The healthy paths for storing, with the sectors at rest that have their primary copies there.
async fn vessels(connection: &Connection) -> Result<Vec<Vessel>, Failure> {
    let overview = connection.manager.overview().await.map_err(rpc_failure)?;
    let size = overview.sector_size.unwrap_or(SectorSize::GiB32);
    let paths = connection.storage.storage_paths().await.map_err(rpc_failure)?;
    let mut vessels = Vec::new();
    for path in paths.into_iter().filter(|path| path.can_store && path.healthy && path.weight > 0) {
        let mut sectors = Vec::new();
        let mut after = None;
        loop {
            let page = stored_page(connection, &path.id, after).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.sector);
            let at_rest = page.iter().filter(|stored| stored.state.as_deref() == Some("Proving"));
            sectors.extend(at_rest.filter(|stored| !stored.primary.is_empty()).map(|stored| {
                (stored.sector, stored.primary, SpaceTable::Finalized.bytes(stored.primary, size))
            }));
        }
        vessels.push(vessel(&path, sectors));
    }
    Ok(vessels)
}

fn vessel(path: &StoragePathView, sectors: Vec<(SectorId, FileTypes, u64)>) -> Vessel {
    let bytes = |count: i64| u64::try_from(count).unwrap_or(0);
    let total = if path.max_storage > 0 { path.max_storage.min(path.capacity) } else { path.capacity };
    let used = bytes(total).saturating_sub(bytes(path.available));
    Vessel { id: path.id.clone(), used, total: bytes(total), sectors }
}

/// At most `moves` steps, each from the fullest path that has something to give to the emptiest, until they differ by
/// less than `tolerance`.
fn plan(mut vessels: Vec<Vessel>, moves: usize, tolerance: f64) -> Vec<Step> {
    let mut steps = Vec::new();
    while steps.len() < moves {
        vessels.sort_by(|a, b| a.share().total_cmp(&b.share()).then_with(|| a.id.cmp(&b.id)));
        let Some(giver) = vessels.iter().rposition(|vessel| !vessel.sectors.is_empty()) else { break };
        let gap = vessels[giver].share() - vessels[0].share();
        if giver == 0 || gap < tolerance {
            break;
        }
        let Some((sector, types, size)) = vessels[giver].sectors.pop() else { break };
        let after_taker = (vessels[0].used.saturating_add(size)) as f64 / vessels[0].total.max(1) as f64;
        let after_giver =
            vessels[giver].used.saturating_sub(size) as f64 / vessels[giver].total.max(1) as f64;
        // A step that overshoots would be undone by the next.
        if after_taker > vessels[giver].share() || (after_taker - after_giver).abs() >= gap {
            continue;
        }
        vessels[0].used = vessels[0].used.saturating_add(size);
        vessels[giver].used = vessels[giver].used.saturating_sub(size);
        let (from, to) = (vessels[giver].id.clone(), vessels[0].id.clone());
        steps.push(Step { id: sector, sector: sector.number.into(), types, from, to, bytes: size });
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vessel(id: &str, used: u64, sectors: u64) -> Vessel {
        let sector = |number| (SectorId::new(1000, number), FileTypes::SEALED, 10);
        Vessel { id: id.to_owned(), used, total: 100, sectors: (0..sectors).map(sector).collect() }
    }

    #[test]
    fn the_fullest_gives_to_the_emptiest_until_they_are_even() {
        let steps =
            plan(vec![vessel("full", 80, 8), vessel("empty", 0, 0), vessel("half", 40, 4)], 100, 0.05);
        assert_eq!(steps.len(), 4, "{steps:?}");
        assert!(steps.iter().all(|step| step.from == "full" && step.to == "empty"), "{steps:?}");
    }

    #[test]
    fn a_plan_is_bounded_and_does_not_go_back_and_forth() {
        assert_eq!(plan(vec![vessel("a", 80, 8), vessel("b", 0, 0)], 2, 0.05).len(), 2);
        assert!(plan(vec![vessel("a", 50, 5), vessel("b", 45, 4)], 100, 0.01).is_empty());
        assert!(plan(vec![vessel("a", 90, 9)], 100, 0.05).is_empty());
        assert!(plan(vec![vessel("a", 90, 0), vessel("b", 0, 0)], 100, 0.05).is_empty());
    }
}

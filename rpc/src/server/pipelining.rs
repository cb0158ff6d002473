//! The methods by which the pipeline is steered. Data itself is taken by the manager's HTTP route.

use std::sync::Arc;

use jsonrpsee::Methods;

use super::registrar::Registrar;
use crate::operator::NAME_MAX;
use crate::pipelining::{Batch, Lost, PipelineApi, RoomWish};
use crate::sector_name::SectorName;
use crate::token::Permission::{Admin, Read, Write};
use crate::wire::WireError;
use crate::wire::args::Args;
use crate::wire::batch::{AddressConfig, BatchRes};
use crate::wire::sector::SectorId;

/// Lotus's names for two of them.
const LOTUS_STEERING: [&str; 2] = ["Filecoin.SectorStartSealing", "Filecoin.SectorsUpdate"];

/// Lotus's name for who pays.
pub(crate) const PAYERS: &str = "Filecoin.ActorAddressConfig";

/// What goes in batches, by the names that Lotus has for it alone: what waits, and what is to go now.
pub(crate) const BATCHES: [(Batch, &str, &str); 2] = [
    (Batch::PreCommit, "Filecoin.SectorPreCommitPending", "Filecoin.SectorPreCommitFlush"),
    (Batch::Commit, "Filecoin.SectorCommitPending", "Filecoin.SectorCommitFlush"),
];

/// Lotus's names among them.
pub(super) fn lotus_methods() -> impl Iterator<Item = &'static str> {
    LOTUS_STEERING
        .into_iter()
        .chain([PAYERS])
        .chain(BATCHES.into_iter().flat_map(|(_, pending, flush)| [pending, flush]))
}

/// The methods by which `api` is reached. Detached where something changes: it is committed whoever hangs up.
pub fn pipeline_methods(api: Arc<dyn PipelineApi>) -> Methods {
    let mut methods = Registrar::new(api);
    let [lotus_start, lotus_update] = LOTUS_STEERING;
    for (name, permission) in [("Sealyard.StartSealing", Admin), (lotus_start, Write)] {
        methods.on_detached(name, permission, 1, |api, mut args| async move {
            Ok(api.start_sealing(args.next::<SectorName>("sector")?).await?)
        });
    }
    for name in ["Sealyard.UpdateState", lotus_update] {
        methods.on_detached(name, Admin, 2, |api, mut args| async move {
            let sector = args.next::<SectorName>("sector")?;
            Ok(api.update_state(sector, word(&mut args, "state")?).await?)
        });
    }
    methods.on_detached("Sealyard.Rebuild", Admin, 2, |api, mut args| async move {
        let sector = args.next::<SectorName>("sector")?;
        Ok(api.rebuild(sector, args.next::<Option<Lost>>("lost")?).await?)
    });
    methods.on("Sealyard.RebuildPieces", Admin, 2, |api, mut args| async move {
        let sector = args.next::<SectorName>("sector")?;
        Ok(api.rebuild_pieces(sector, args.next::<Option<Lost>>("lost")?).await?)
    });
    methods.on("Sealyard.RebuildRoom", Read, 1, |api, mut args| async move {
        Ok(api.rebuild_room(args.next::<RoomWish>("wish")?).await?)
    });
    methods.on("Sealyard.Pledging", Read, 0, |api, _| async move { Ok(api.pledging().await?) });
    methods.on_detached("Sealyard.PausePledging", Admin, 2, |api, mut args| async move {
        let paused = args.next::<bool>("paused")?;
        Ok(api.pause_pledging(paused, word(&mut args, "by")?).await?)
    });
    methods.on(PAYERS, Read, 0, |api, _| async move { Ok(AddressConfig::from(api.payers().await?)) });
    for (batch, pending, flush) in BATCHES {
        methods.on(pending, Admin, 0, move |api, _| async move {
            Ok(api.batched(batch).await?.into_iter().map(SectorId::from).collect::<Vec<_>>())
        });
        methods.on_detached(flush, Admin, 0, move |api, _| async move {
            let flushed = api.flush(batch).await?.into_iter();
            Ok(flushed.map(|one| BatchRes::of(batch, one)).collect::<Vec<_>>())
        });
    }
    methods.into_methods()
}

fn word(args: &mut Args, field: &'static str) -> Result<String, WireError> {
    let text = args.next::<String>(field)?;
    match text.len() {
        0..=NAME_MAX => Ok(text),
        length => Err(WireError::new(field, format!("{length} bytes long; at most {NAME_MAX} are read"))),
    }
}

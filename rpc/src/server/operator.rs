//! The methods by which operators control scheduling.

use std::sync::Arc;

use jsonrpsee::Methods;

use super::registrar::Registrar;
use crate::operator::{CapsTarget, NAME_MAX, OperatorApi, Removal, WorkerMode};
use crate::sector_name::SectorName;
use crate::subject::Subject;
use crate::token::Permission::Admin;
use crate::wire::WireError;
use crate::wire::args::Args;

/// Lotus's name for one of them.
pub(super) const LOTUS_REMOVE: &str = "Filecoin.SectorRemove";
/// Whoever calls that gives no name.
const BY_LOTUS_S_NAME: &str = "a token with permission admin (SectorRemove)";

/// The methods by which `api` is reached. Detached where something changes: it is committed whoever hangs up.
pub fn operator_methods(api: Arc<dyn OperatorApi>) -> Methods {
    let mut methods = Registrar::new(api);
    methods.on_detached("Sealyard.SetWorkerMode", Admin, 3, |api, mut args| async move {
        let worker = text(&mut args, "worker")?;
        let mode = args.next::<WorkerMode>("mode")?;
        Ok(api.set_worker_mode(worker, mode, text(&mut args, "by")?).await?)
    });
    methods.on("Sealyard.WorkerRest", Admin, 1, |api, mut args| async move {
        Ok(api.worker_rest(text(&mut args, "worker")?).await?)
    });
    methods.on_detached("Sealyard.ChangeCaps", Admin, 3, |api, mut args| async move {
        let target = args.next::<CapsTarget>("target")?;
        let (CapsTarget::Worker(name) | CapsTarget::Machine(name)) = &target;
        bounded("target", name)?;
        let changes = args.next_or_zero("changes")?;
        Ok(api.change_caps(target, changes, text(&mut args, "by")?).await?)
    });
    methods.on_detached("Sealyard.SetPriority", Admin, 3, |api, mut args| async move {
        let what = args.next::<Subject>("what")?;
        let priority = args.next::<i64>("priority")?;
        Ok(api.set_priority(what, priority, text(&mut args, "by")?).await?)
    });
    methods.on_detached("Sealyard.AbortWork", Admin, 2, |api, mut args| async move {
        let what = args.next::<Subject>("what")?;
        Ok(api.abort(what, text(&mut args, "by")?).await?)
    });
    methods.on_detached("Sealyard.RemoveSector", Admin, 3, |api, mut args| async move {
        let sector = args.next::<SectorName>("sector")?;
        let removal = args.next_or_zero("removal")?;
        Ok(api.remove_sector(sector, removal, text(&mut args, "by")?).await?)
    });
    // Lotus deletes the files at once. Here they stay until a clean-up, and what has money on chain needs an explicit word.
    methods.on_detached(LOTUS_REMOVE, Admin, 1, |api, mut args| async move {
        let sector = args.next::<SectorName>("sector")?;
        Ok(api.remove_sector(sector, Removal::UnlessOnChain, BY_LOTUS_S_NAME.to_owned()).await?)
    });
    methods.into_methods()
}

fn text(args: &mut Args, field: &'static str) -> Result<String, WireError> {
    let text = args.next::<String>(field)?;
    bounded(field, &text)?;
    Ok(text)
}

fn bounded(field: &'static str, text: &str) -> Result<(), WireError> {
    match text.len() {
        0..=NAME_MAX => Ok(()),
        length => Err(WireError::new(field, format!("{length} bytes long; at most {NAME_MAX} are read"))),
    }
}

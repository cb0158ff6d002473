//! The methods by which operators look after storage.

use std::sync::Arc;

use jsonrpsee::Methods;
use sealtasks::{FileTypes, PathOrder, SectorId, StorageId, TransferChange};

use super::registrar::Registrar;
use crate::operator::NAME_MAX;
use crate::sector_name::SectorName;
use crate::storage::{PathHost, STORED_PAGE_MAX, StorageApi};
use crate::token::Permission::Admin;
use crate::wire::WireError;

/// The methods by which `api` is reached. Detached where something changes: it is done whoever hangs up.
pub fn storage_methods(api: Arc<dyn StorageApi>) -> Methods {
    let mut methods = Registrar::new(api);
    methods.on("Sealyard.StoragePaths", Admin, 0, |api, _| async move { Ok(api.storage_paths().await?) });
    methods.on("Sealyard.SectorPlaces", Admin, 1, |api, mut args| async move {
        Ok(api.sector_places(args.next::<SectorName>("sector")?).await?)
    });
    methods.on("Sealyard.StoredSectors", Admin, 3, |api, mut args| async move {
        let path = args.next::<StorageId>("path")?;
        let after = args.next::<Option<SectorId>>("after")?;
        let limit = args.next::<u32>("limit")?.clamp(1, STORED_PAGE_MAX);
        Ok(api.stored_sectors(path, after, limit).await?)
    });
    methods.on("Sealyard.LockTable", Admin, 0, |api, _| async move { Ok(api.lock_table().await?) });
    methods.on_detached("Sealyard.Transfers", Admin, 2, |api, mut args| async move {
        let worker = args.next::<Option<String>>("worker")?;
        short(worker.as_deref(), "worker")?;
        Ok(api.transfers(worker, args.next::<TransferChange>("change")?).await?)
    });
    methods.on_detached("Sealyard.OrderPaths", Admin, 2, |api, mut args| async move {
        let host = args.next::<PathHost>("host")?;
        if let PathHost::Worker(name) = &host {
            short(Some(name), "host")?;
        }
        let order = args.next::<PathOrder>("order")?;
        Ok(api.path_order(host, order).await?)
    });
    methods.on_detached("Sealyard.ScrubSector", Admin, 1, |api, mut args| async move {
        Ok(api.scrub_sector(args.next::<SectorName>("sector")?).await?)
    });
    methods.on("Sealyard.ScrubResults", Admin, 1, |api, mut args| async move {
        Ok(api.scrub_results(args.next::<Option<SectorName>>("sector")?).await?)
    });
    methods.on_detached("Sealyard.MoveSector", Admin, 3, |api, mut args| async move {
        let sector = args.next::<SectorName>("sector")?;
        let types = args.next::<FileTypes>("types")?;
        let to = args.next::<StorageId>("to")?;
        Ok(api.move_sector(sector, types, to).await?)
    });
    methods.into_methods()
}

/// A name of reasonable length, or none.
fn short(name: Option<&str>, field: &'static str) -> Result<(), WireError> {
    match name.map_or(0, str::len) {
        length if length > NAME_MAX => {
            Err(WireError::new(field, format!("{length} bytes long; at most {NAME_MAX} are read")))
        }
        _ => Ok(()),
    }
}

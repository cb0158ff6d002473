//! The methods about unsealed data. The bytes themselves are served by the manager's HTTP routes.

use std::sync::Arc;

use jsonrpsee::Methods;
use sealtasks::{SectorNumber, UnsealedRange};

use super::registrar::Registrar;
use crate::token::Permission::{Admin, Read};
use crate::unsealing::{KEEP_MAX, UnsealApi};
use crate::wire::WireError;

/// The methods by which `api` is reached.
pub fn unseal_methods(api: Arc<dyn UnsealApi>) -> Methods {
    let mut methods = Registrar::new(api);
    methods.on("Sealyard.IsUnsealed", Read, 3, |api, mut args| async move {
        let sector = args.next::<SectorNumber>("sector")?;
        let (offset, size) = (args.next::<u64>("offset")?, args.next::<u64>("size")?);
        let end =
            offset.checked_add(size).ok_or_else(|| WireError::new("size", "beyond 64 bits".to_owned()))?;
        Ok(api.is_unsealed(sector, offset..end).await?)
    });
    methods.on_detached("Sealyard.UnsealSector", Admin, 1, |api, mut args| async move {
        Ok(api.unseal_sector(args.next::<SectorNumber>("sector")?).await?)
    });
    methods.on("Sealyard.UnsealState", Read, 1, |api, mut args| async move {
        Ok(api.unseal_state(args.next::<SectorNumber>("sector")?).await?)
    });
    methods.on_detached("Sealyard.ReleaseUnsealed", Admin, 2, |api, mut args| async move {
        let sector = args.next::<SectorNumber>("sector")?;
        let keep: Vec<UnsealedRange> = args.next_or_zero("keep")?;
        if keep.len() > KEEP_MAX {
            let problem = format!("{} ranges; at most {KEEP_MAX} are kept", keep.len());
            return Err(WireError::new("keep", problem).into());
        }
        Ok(api.release_unsealed(sector, keep).await?)
    });
    methods.into_methods()
}

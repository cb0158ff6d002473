//! The methods about unsealed data. The bytes themselves are served by the manager's HTTP routes.

use std::sync::Arc;

use jsonrpsee::Methods;
use sealtasks::{Ticket, UnsealedRange};

use super::registrar::Registrar;
use crate::sector_name::SectorName;
use crate::token::Permission::{Admin, Read};
use crate::unsealing::{KEEP_MAX, UnsealApi, UnsealWish};
use crate::wire::args::Args;
use crate::wire::{Base64, Cid, WireError, cid, of, sector};

/// The methods by which `api` is reached.
pub fn unseal_methods(api: Arc<dyn UnsealApi>) -> Methods {
    let mut methods = Registrar::new(api);
    methods.on("Sealyard.IsUnsealed", Read, 3, |api, mut args| async move {
        let sector = args.next::<SectorName>("sector")?;
        let (offset, size) = (args.next::<u64>("offset")?, args.next::<u64>("size")?);
        let end =
            offset.checked_add(size).ok_or_else(|| WireError::new("size", "beyond 64 bits".to_owned()))?;
        Ok(api.is_unsealed(sector, offset..end).await?)
    });
    methods.on_detached("Sealyard.UnsealSector", Admin, 1, |api, mut args| async move {
        Ok(api.unseal_sector(args.next::<SectorName>("sector")?).await?)
    });
    methods.on("Sealyard.UnsealState", Read, 1, |api, mut args| async move {
        Ok(api.unseal_state(args.next::<SectorName>("sector")?).await?)
    });
    methods.on_detached("Sealyard.ReleaseUnsealed", Admin, 2, |api, mut args| async move {
        let sector = args.next::<SectorName>("sector")?;
        let keep: Vec<UnsealedRange> = args.next_or_zero("keep")?;
        if keep.len() > KEEP_MAX {
            let problem = format!("{} ranges; at most {KEEP_MAX} are kept", keep.len());
            return Err(WireError::new("keep", problem).into());
        }
        Ok(api.release_unsealed(sector, keep).await?)
    });
    // Lotus answers the first at once and the second when it is done.
    methods.on_detached("Filecoin.SectorUnseal", Admin, 1, |api, mut args| async move {
        Ok(api.unseal_sector(args.next::<SectorName>("sectorNum")?).await.map(drop)?)
    });
    methods.on("Filecoin.SectorsUnsealPiece", Admin, 5, |api, mut args| async move {
        Ok(api.unseal_piece(wish(&mut args)?).await?)
    });
    methods.into_methods()
}

fn wish(args: &mut Args) -> Result<UnsealWish, WireError> {
    let sector = args.next_as::<sector::SectorRef, _>("sector")?;
    let (offset, size) = (args.next::<u64>("offset")?, args.next::<u64>("size")?);
    let end = offset.checked_add(size).ok_or_else(|| WireError::new("size", "beyond 64 bits".to_owned()))?;
    let ticket = args.next::<Option<Base64>>("randomness")?;
    let ticket = ticket.map(|bytes| bytes.try_into().map(Ticket).map_err(of("randomness"))).transpose()?;
    let comm_d = args.next::<Option<Cid>>("commd")?;
    let unsealed = comm_d.map(|link| cid("commd", Some(link))).transpose()?;
    Ok(UnsealWish { sector, span: offset..end, ticket, unsealed })
}

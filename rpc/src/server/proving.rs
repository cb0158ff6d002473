//! The methods that tell whether stored sectors can be proven.

use std::collections::BTreeMap;
use std::sync::Arc;

use jsonrpsee::Methods;
use sealtasks::{RegisteredSealProof, StorageId, post_proof_size};

use super::registrar::Registrar;
use crate::proving::{PROVABLE_MAX, ProvingApi, ProvingWish};
use crate::token::Permission::{Admin, Read};
use crate::wire::WireError;
use crate::wire::sector::SectorRef;

/// The methods by which `api` is reached.
pub fn proving_methods(api: Arc<dyn ProvingApi>) -> Methods {
    let mut methods = Registrar::new(api);
    methods.on("Sealyard.CheckProvable", Admin, 1, |api, mut args| async move {
        Ok(api.check_provable(args.next::<ProvingWish>("wish")?).await?)
    });
    methods.on("Sealyard.ReplicasIn", Read, 1, |api, mut args| async move {
        Ok(api.replicas_in(args.next::<StorageId>("path")?).await?)
    });
    methods.on("Sealyard.Unheld", Read, 0, |api, _| async move { Ok(api.unheld().await?) });
    methods.on("Filecoin.CheckProvable", Admin, 2, |api, mut args| async move {
        let proof = args.next::<i64>("pp")?;
        let sectors = args.next::<Option<Vec<SectorRef>>>("sectors")?.unwrap_or_default();
        if sectors.len() > PROVABLE_MAX {
            return Err(WireError::new("sectors", format!("more than {PROVABLE_MAX}")).into());
        }
        let size = post_proof_size(proof)
            .ok_or_else(|| WireError::new("pp", format!("{proof} is no PoSt proof; known are 0 to 14")))?;
        let mut asked = Vec::new();
        for sector in sectors {
            let sector = sealtasks::SectorRef::try_from(sector)?;
            let seal: RegisteredSealProof = sector.proof;
            if seal.sector_size() != size {
                let number = sector.id.number;
                let why =
                    format!("PoSt proof {proof} is for {size} sectors, and sector {number} has another size");
                return Err(WireError::new("pp", why).into());
            }
            asked.push(sector);
        }
        let bad = api.not_provable(asked).await?;
        // As Go writes a map with numbers for keys.
        Ok(bad.into_iter().map(|(number, why)| (number.to_string(), why)).collect::<BTreeMap<_, _>>())
    });
    methods.into_methods()
}

//! Lotus's `ComputeDataCid`: the commitment of a piece whose bytes come with the call. Never: hashes.

use std::sync::Arc;

use jsonrpsee::Methods;
use sealtasks::TaskInput;

use super::registrar::Registrar;
use super::worker::piece_data;
use crate::push::PushStreams;
use crate::token::Permission::Admin;
use crate::unsealing::UnsealApi;
use crate::wire::sector::PieceInfo;
use crate::wire::{WireError, task};

/// The methods by which `api` is reached. `streams` is the endpoint that the router serves beside them.
pub fn data_methods(api: Arc<dyn UnsealApi>, streams: PushStreams) -> Methods {
    let mut methods = Registrar::new(api);
    // Its parameters are those of the worker's method that does it.
    methods.on("Filecoin.ComputeDataCid", Admin, 2, move |api, mut args| {
        let streams = streams.clone();
        async move {
            let started = task::decode("Filecoin.DataCid", &mut args)?;
            let data = piece_data(started.reader, &streams).await?;
            let TaskInput::DataCid(input) = started.work else {
                return Err(WireError::new("pieceData", "no piece".to_owned()).into());
            };
            Ok(PieceInfo::from(api.data_cid(input, data).await?))
        }
    });
    methods.into_methods()
}

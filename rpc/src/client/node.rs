//! A full node: any method of its JSON-RPC, with the time that its answer may take. What the methods are and what they
//! answer is known in the room `chain`, not here.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::to_raw_value;
use url::Url;

use super::{Caller, ClientError, malformed};
use crate::api::ApiResult;
use crate::api_info::ApiInfo;
use crate::mark::Mark;
use crate::tls::Trust;

/// One full node over HTTP or a websocket, whichever its address asks for. Answers are bounded by
/// [`super::RESPONSE_SIZE_MAX`].
pub struct NodeClient {
    caller: Caller,
}

impl NodeClient {
    /// A client for this node (`FULLNODE_API_INFO`); connects at the first call.
    ///
    /// # Errors
    /// The address or the token is no good.
    pub fn new(info: &ApiInfo, trust: &Trust) -> Result<Self, ClientError> {
        let (url, transport) = info.full_node().map_err(|source| ClientError::Url { source })?;
        Ok(Self { caller: Caller::new(&url, info.token.clone(), transport, trust, &Mark::default())? })
    }

    /// Where the node is: scheme, host, port and path, never the token.
    pub fn url(&self) -> &Url {
        &self.caller.url
    }

    /// Calls `Filecoin.<method>` with an array of parameters and waits for its answer so long.
    ///
    /// # Errors
    /// The node is not there, does not answer in time, refuses, or answers something of another shape.
    pub async fn call<P, R>(&self, method: &str, params: &P, limit: Duration) -> ApiResult<R>
    where
        P: Serialize + Sync + ?Sized,
        R: DeserializeOwned,
    {
        let method = format!("Filecoin.{method}");
        let params = to_raw_value(params).map_err(|error| malformed(&method, &error))?;
        let answer = self.caller.call_within(&method, params, Some(limit)).await?;
        serde_json::from_str(answer.get()).map_err(|error| malformed(&method, &error))
    }
}

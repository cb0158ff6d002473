//! How a method gets to its handler: the number of parameters is checked, then the permission, then the handler runs.
//! The order and the texts are Go's.

use std::future::Future;
use std::sync::Arc;

use jsonrpsee::RpcModule;
use jsonrpsee::types::ErrorObjectOwned;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::auth::Granted;
use super::caller::{called_by, caller, opens};
use crate::error::{ApiError, chain};
use crate::token::Permission;
use crate::wire::WireError;
use crate::wire::args::Args;

/// JSON-RPC: wrong number of parameters.
const PARAM_COUNT: i32 = -32602;
/// JSON-RPC: a parameter that cannot be read; Go says "parse error".
const PARSE: i32 = -32700;
/// Go's code for everything that a handler itself refuses.
const HANDLER: i32 = 1;

/// Methods being registered, each with the thing that answers them.
pub(super) struct Registrar<S: ?Sized> {
    module: RpcModule<()>,
    api: Arc<S>,
}

/// Why a call gives no result.
pub(super) enum Fault {
    /// A parameter cannot be read.
    Params(WireError),
    /// The handler's error.
    Api(ApiError),
}

impl From<WireError> for Fault {
    fn from(error: WireError) -> Self {
        Self::Params(error)
    }
}

impl From<ApiError> for Fault {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl<S: ?Sized + Send + Sync + 'static> Registrar<S> {
    pub(super) fn new(api: Arc<S>) -> Self {
        Self { module: RpcModule::new(()), api }
    }

    pub(super) fn into_methods(self) -> jsonrpsee::Methods {
        self.module.into()
    }

    /// The methods so far.
    pub(super) fn names(&self) -> Vec<&'static str> {
        self.module.method_names().collect()
    }

    /// The same method under a second name.
    pub(super) fn alias(&mut self, name: &'static str, of: &'static str) {
        self.module.register_alias(name, of).expect("the method is registered");
    }

    /// A method for tokens that list `permission`, taking exactly `params` parameters.
    pub(super) fn on<H, F, R>(
        &mut self,
        name: &'static str,
        permission: Permission,
        params: usize,
        handler: H,
    ) where
        H: Fn(Arc<S>, Args) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<R, Fault>> + Send + 'static,
        R: Serialize,
    {
        let api = Arc::clone(&self.api);
        let registered = self.module.register_async_method(name, move |given, _, extensions| {
            let (api, handler) = (Arc::clone(&api), handler.clone());
            let granted = extensions.get::<Granted>().cloned();
            let checked = admit(name, permission, params, given.as_str(), granted.as_ref());
            let work = async move {
                let answer = handler(api, checked?).await.map_err(|fault| fault.into_object(name))?;
                to_raw_value(&answer).map_err(|error| object(HANDLER, error.to_string()))
            };
            called_by(granted.map(|granted| granted.0), work)
        });
        registered.expect("each method is registered once");
    }

    /// The same for work that must go on when the caller hangs up.
    pub(super) fn on_detached<H, F, R>(
        &mut self,
        name: &'static str,
        permission: Permission,
        params: usize,
        handler: H,
    ) where
        H: Fn(Arc<S>, Args) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<R, Fault>> + Send + 'static,
        R: Serialize + Send + 'static,
    {
        self.on(name, permission, params, move |api, args| {
            let work = handler(api, args);
            async move {
                let finished = tokio::spawn(called_by(caller(), work)).await;
                finished.unwrap_or_else(|error| {
                    Err(Fault::Api(ApiError::refused(format!("fatal error calling '{name}': {error}"))))
                })
            }
        });
    }
}

/// The parameters, if their number and the permission are right.
fn admit(
    name: &str,
    permission: Permission,
    params: usize,
    given: Option<&str>,
    granted: Option<&Granted>,
) -> Result<Args, ErrorObjectOwned> {
    let args = Args::parse(given).map_err(|error| object(PARSE, error.to_string()))?;
    if args.len() != params {
        let text = format!("wrong param count (method '{name}'): {} != {params}", args.len());
        return Err(object(PARAM_COUNT, text));
    }
    // A request that came without the auth layer was granted nothing.
    if granted.is_some_and(|granted| opens(&granted.0, name, permission)) {
        return Ok(args);
    }
    let method = name.split_once('.').map_or(name, |(_, method)| method);
    Err(object(HANDLER, format!("missing permission to invoke '{method}' (need '{permission}')")))
}

impl Fault {
    fn into_object(self, name: &str) -> ErrorObjectOwned {
        match self {
            Self::Params(error) => object(PARSE, format!("unmarshaling params for '{name}': {error}")),
            Self::Api(error) => object(HANDLER, chain(&error)),
        }
    }
}

fn object(code: i32, message: String) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(code, message, None::<Box<RawValue>>)
}

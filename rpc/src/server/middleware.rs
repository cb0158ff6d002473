//! What every call passes before its handler: Go's wording for unknown methods, notifications that are executed (Go
//! does, jsonrpsee would drop them), and `xrpc.cancel`, by which a websocket peer gives up a call under way.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jsonrpsee::Methods;
use jsonrpsee::core::middleware::{Batch, BatchEntry, Notification, Request, RpcServiceT};
use jsonrpsee::core::server::BatchResponseBuilder;
use jsonrpsee::server::MethodResponse;
use jsonrpsee::types::{ErrorObjectOwned, Id};
use tokio_util::sync::CancellationToken;
use tower::Layer;

use super::BODY_SIZE_MAX;
use super::auth::{Authenticate, Marked};
use crate::error::FENCED;

/// The notification that cancels a call of the same connection.
const CANCEL: &str = "xrpc.cancel";
/// Calls of one connection that can be cancelled; later ones run to their end. A peer has a handful under way.
const CANCELLABLE_MAX: usize = 4096;

/// What may be asked whoever asks: by these two managers and workers learn of one another whom each serves.
const UNFENCED: [&str; 2] = ["Filecoin.Version", "Sealyard.Hello"];

#[derive(Clone)]
pub(super) struct RpcLayer {
    names: Arc<HashSet<&'static str>>,
    auth: Arc<dyn Authenticate>,
}

impl RpcLayer {
    pub(super) fn new(methods: &Methods, auth: &Arc<dyn Authenticate>) -> Self {
        Self { names: Arc::new(methods.method_names().collect()), auth: Arc::clone(auth) }
    }
}

/// Made once per connection, so that one peer's ids are not another's.
impl<S> Layer<S> for RpcLayer {
    type Service = RpcService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RpcService {
            inner,
            names: Arc::clone(&self.names),
            auth: Arc::clone(&self.auth),
            running: Running::default(),
        }
    }
}

#[derive(Clone)]
pub(super) struct RpcService<S> {
    inner: S,
    names: Arc<HashSet<&'static str>>,
    auth: Arc<dyn Authenticate>,
    running: Running,
}

/// Calls under way on one connection, by id.
#[derive(Clone, Default)]
struct Running(Arc<Mutex<HashMap<Id<'static>, CancellationToken>>>);

impl Running {
    fn lock(&self) -> MutexGuard<'_, HashMap<Id<'static>, CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, id: Id<'static>) -> Entered {
        let token = CancellationToken::new();
        let mut running = self.lock();
        // A peer that uses an id twice at once can cancel only the first of the two.
        if running.len() < CANCELLABLE_MAX {
            running.entry(id.clone()).or_insert_with(|| token.clone());
        }
        drop(running);
        Entered { running: self.clone(), id, token }
    }
}

/// A call under way; leaves the table however it ends.
struct Entered {
    running: Running,
    id: Id<'static>,
    token: CancellationToken,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.running.lock().remove(&self.id);
    }
}

impl<S> RpcServiceT for RpcService<S>
where
    S: RpcServiceT<
            MethodResponse = MethodResponse,
            BatchResponse = MethodResponse,
            NotificationResponse = MethodResponse,
        > + Clone
        + Send
        + Sync
        + 'static,
{
    type MethodResponse = MethodResponse;
    type NotificationResponse = MethodResponse;
    type BatchResponse = MethodResponse;

    fn call<'a>(&self, request: Request<'a>) -> impl Future<Output = MethodResponse> + Send + 'a {
        let service = self.clone();
        async move {
            if request.id == Id::Null {
                // Go takes a null id for no id: executed, not answered.
                service.run(request).await;
                return MethodResponse::notification();
            }
            service.run(request).await
        }
    }

    fn batch<'a>(&self, batch: Batch<'a>) -> impl Future<Output = MethodResponse> + Send + 'a {
        let service = self.clone();
        async move {
            let mut answers = BatchResponseBuilder::new_with_limit(BODY_SIZE_MAX as usize);
            let mut notified = false;
            for entry in batch {
                let answer = match entry {
                    Ok(BatchEntry::Call(request)) => service.call(request).await,
                    Ok(BatchEntry::Notification(notification)) => service.notification(notification).await,
                    Err(error) => {
                        let (error, id) = error.into_parts();
                        MethodResponse::error(id, error)
                    }
                };
                if answer.is_notification() {
                    notified = true;
                } else if let Err(too_large) = answers.append(answer) {
                    return too_large;
                }
            }
            if answers.is_empty() && notified {
                MethodResponse::notification()
            } else {
                MethodResponse::from_batch(answers.finish())
            }
        }
    }

    fn notification<'a>(
        &self,
        notification: Notification<'a>,
    ) -> impl Future<Output = MethodResponse> + Send + 'a {
        let service = self.clone();
        async move {
            let Notification { method, params, extensions, .. } = notification;
            if method == CANCEL {
                service.cancel(params.as_deref().map(|params| params.get()));
            } else {
                let mut request = Request::owned(method.into_owned(), None, Id::Null);
                request.params = params;
                request.extensions = extensions;
                service.run(request).await;
            }
            MethodResponse::notification()
        }
    }
}

impl<S> RpcService<S>
where
    S: RpcServiceT<MethodResponse = MethodResponse> + Send + Sync + 'static,
{
    async fn run(self, request: Request<'_>) -> MethodResponse {
        let id = request.id.clone().into_owned();
        if !self.names.contains(request.method_name()) {
            let text = format!("method '{}' not found", request.method_name());
            return MethodResponse::error(id, ErrorObjectOwned::owned(-32601, text, None::<()>));
        }
        if let Some(Marked(theirs)) = request.extensions().get::<Marked>()
            && let Err(text) = self.auth.admits(theirs)
            && !UNFENCED.contains(&request.method_name())
        {
            return MethodResponse::error(id, ErrorObjectOwned::owned(FENCED, text, None::<()>));
        }
        let entered = self.running.enter(id.clone());
        tokio::select! {
            answer = self.inner.call(request) => answer,
            () = entered.token.cancelled() => {
                MethodResponse::error(id, ErrorObjectOwned::owned(1, "context canceled", None::<()>))
            }
        }
    }

    /// `params` is `[id]`. One that is none of ours, or too late, is no error.
    fn cancel(&self, params: Option<&str>) {
        let ids: Vec<Id<'_>> =
            params.and_then(|params| serde_json::from_str(params).ok()).unwrap_or_default();
        for id in ids {
            if let Some(token) = self.running.lock().get(&id.into_owned()) {
                token.cancel();
            }
        }
    }
}

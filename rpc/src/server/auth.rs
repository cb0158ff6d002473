//! Who asks, and what they may do: Lotus's rules for the header and the `token` query.

use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use sealtasks::Reign;

use crate::api::ManagerApi;
use crate::error::ApiError;
use crate::token::{Grant, Permission, Secret};

/// Says what a token allows.
#[async_trait]
pub trait Authenticate: Send + Sync + 'static {
    /// What `token` allows.
    ///
    /// # Errors
    /// The token is no good, or nobody can tell now.
    async fn permissions(&self, token: &str) -> Result<Vec<Permission>, AuthError>;

    /// Everything that `token` allows, its one purpose included.
    ///
    /// # Errors
    /// As [`Authenticate::permissions`].
    async fn grant(&self, token: &str) -> Result<Grant, AuthError> {
        self.permissions(token).await.map(Grant::of)
    }

    /// Whether anything may be asked of us by a Sealyard that is, or serves, the manager of this reign. Only those are
    /// believed that have the permission `admin` or a worker's own token.
    ///
    /// # Errors
    /// It is another manager than the one that counts here: why, and what to do, for people.
    fn admits(&self, _theirs: &Reign) -> Result<(), String> {
        Ok(())
    }
}

/// A token that opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Not one of this manager's tokens: HTTP 401.
    #[error("the token is not one of this manager's")]
    Invalid,
    /// Whoever could tell cannot be reached: HTTP 503.
    #[error("the token cannot be checked now: the manager does not answer")]
    Unavailable,
}

/// A manager checks its own tokens.
#[async_trait]
impl Authenticate for Secret {
    async fn permissions(&self, token: &str) -> Result<Vec<Permission>, AuthError> {
        self.verify(token).map_err(|_| AuthError::Invalid)
    }

    async fn grant(&self, token: &str) -> Result<Grant, AuthError> {
        Self::grant(self, token).map_err(|_| AuthError::Invalid)
    }
}

/// A worker asks its manager about every token it is shown, as Lotus's does. Nothing is remembered, so a manager that
/// changes its secret shuts out old tokens at once.
pub struct AskManager(pub Arc<dyn ManagerApi>);

#[async_trait]
impl Authenticate for AskManager {
    async fn permissions(&self, token: &str) -> Result<Vec<Permission>, AuthError> {
        self.grant(token).await.map(|grant| grant.permissions)
    }

    async fn grant(&self, token: &str) -> Result<Grant, AuthError> {
        self.0.verify_token(token.to_owned()).await.map_err(|error| match error {
            ApiError::Unreachable { .. } | ApiError::Malformed { .. } => AuthError::Unavailable,
            ApiError::Remote { .. } | ApiError::Refused { .. } | ApiError::Unauthorized { .. } => {
                AuthError::Invalid
            }
        })
    }
}

/// Which manager the caller is, or serves; travels as [`Granted`] does.
#[derive(Clone, Debug)]
pub(super) struct Marked(pub Reign);

/// What the request may do; travels with every call in it.
#[derive(Clone, Debug)]
pub(super) struct Granted(pub Grant);

/// The header `Authorization: Bearer …`, without it the query `token=…`. `None` when neither is there.
///
/// # Errors
/// 401: a header that carries no bearer token.
pub(super) fn token_of(request: &Request) -> Result<Option<String>, StatusCode> {
    let header = request.headers().get(header::AUTHORIZATION).filter(|value| !value.is_empty());
    if let Some(value) = header {
        let text = value.to_str().map_err(|_| StatusCode::UNAUTHORIZED)?;
        return match text.strip_prefix("Bearer ") {
            Some(token) => Ok(Some(token.to_owned())),
            None => Err(StatusCode::UNAUTHORIZED),
        };
    }
    let query = request.uri().query().unwrap_or_default();
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    let token = pairs.find(|(key, _)| key == "token").map(|(_, token)| token.into_owned());
    Ok(token.filter(|token| !token.is_empty()))
}

/// What a request with this token may do; without one `read` alone.
///
/// # Errors
/// 401: the token is no good. 503: nobody can tell now.
pub(super) async fn granted(auth: &dyn Authenticate, token: Option<String>) -> Result<Granted, StatusCode> {
    let Some(token) = token else { return Ok(Granted(Grant::of(vec![Permission::Read]))) };
    match auth.grant(&token).await {
        Ok(grant) => Ok(Granted(grant)),
        Err(AuthError::Invalid) => Err(StatusCode::UNAUTHORIZED),
        Err(AuthError::Unavailable) => Err(StatusCode::SERVICE_UNAVAILABLE),
    }
}

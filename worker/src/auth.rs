//! Who may call this worker and fetch its files: the manager says what a token allows. Nothing is remembered, so that
//! a token that the manager takes back opens nothing from then on.

use std::sync::Arc;

use async_trait::async_trait;
use rpc::server::{AskManager, AuthError};
use rpc::{Authenticate, Grant, ManagerApi, Permission, Scope};
use sealtasks::Reign;
use stores::{TokenAccess, VerifyToken};
use uuid::Uuid;

use crate::managers::Managers;

/// Tokens as one manager knows them.
pub struct ManagerTokens {
    manager: AskManager,
    /// The id of the worker's own token, and the token of whoever can read its repo; see [`ManagerTokens::joined_with`].
    own: Option<(Uuid, String)>,
    managers: Option<Arc<Managers>>,
}

impl ManagerTokens {
    /// Tokens as this manager knows them.
    pub fn new(manager: Arc<dyn ManagerApi>) -> Self {
        Self { manager: AskManager(manager), own: None, managers: None }
    }

    /// For a worker that joined with a token of its own: the manager calls it with tokens that name `worker`, and
    /// whoever knows `local`, which the worker made itself, may do everything here.
    #[must_use]
    pub fn joined_with(mut self, worker: Uuid, local: String) -> Self {
        self.own = Some((worker, local));
        self
    }

    /// For a worker that knows which manager it serves: no other one gives orders here, whatever its token allows.
    #[must_use]
    pub fn serving(self, managers: Arc<Managers>) -> Self {
        Self { managers: Some(managers), ..self }
    }

    async fn ask(&self, token: &str) -> Result<Grant, AuthError> {
        let everything = || Grant::of(vec![Permission::Admin]);
        match &self.own {
            Some((_, local)) if same(local, token) => return Ok(everything()),
            Some(_) | None => {}
        }
        let grant = self.manager.grant(token).await?;
        Ok(match (&grant.scope, &self.own) {
            (Some(Scope::Call { worker }), Some((own, _))) if worker == own => everything(),
            // What opens the manager for another worker opens nothing here.
            (Some(Scope::Call { .. } | Scope::Worker { .. }), _) => Grant::default(),
            (Some(Scope::Fetch(_) | Scope::Lotus(_)) | None, _) => grant,
        })
    }
}

/// Compares without telling by its time where two tokens differ.
fn same(one: &str, other: &str) -> bool {
    blake3::hash(one.as_bytes()) == blake3::hash(other.as_bytes())
}

#[async_trait]
impl Authenticate for ManagerTokens {
    async fn permissions(&self, token: &str) -> Result<Vec<Permission>, AuthError> {
        self.ask(token).await.map(|grant| grant.permissions)
    }

    async fn grant(&self, token: &str) -> Result<Grant, AuthError> {
        self.ask(token).await
    }

    fn admits(&self, theirs: &Reign) -> Result<(), String> {
        self.managers.as_ref().map_or(Ok(()), |managers| managers.admits(theirs))
    }
}

#[async_trait]
impl VerifyToken for ManagerTokens {
    async fn permissions(&self, token: &str) -> Option<Vec<String>> {
        let allowed = self.ask(token).await.map(|grant| grant.permissions).ok()?;
        Some(allowed.into_iter().map(|permission| permission.name().to_owned()).collect())
    }

    async fn access(&self, token: &str) -> Option<TokenAccess> {
        match self.ask(token).await {
            Ok(grant) => {
                let admin = grant.has(Permission::Admin);
                Some(TokenAccess { admin, fetch: grant.into_fetch_scope() })
            }
            Err(error) => {
                tracing::warn!(%error, "a token for fetching files is refused");
                None
            }
        }
    }
}

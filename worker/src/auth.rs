//! Who may call this worker and fetch its files: the manager says what a token allows. Nothing is remembered, so that
//! a token that the manager takes back opens nothing from then on.

use std::sync::Arc;

use async_trait::async_trait;
use rpc::server::{AskManager, AuthError};
use rpc::{Authenticate, ManagerApi, Permission};
use stores::VerifyToken;

/// Tokens as one manager knows them.
pub struct ManagerTokens(AskManager);

impl ManagerTokens {
    /// Tokens as this manager knows them.
    pub fn new(manager: Arc<dyn ManagerApi>) -> Self {
        Self(AskManager(manager))
    }
}

#[async_trait]
impl Authenticate for ManagerTokens {
    async fn permissions(&self, token: &str) -> Result<Vec<Permission>, AuthError> {
        self.0.permissions(token).await
    }
}

#[async_trait]
impl VerifyToken for ManagerTokens {
    async fn permissions(&self, token: &str) -> Option<Vec<String>> {
        let allowed = match self.0.permissions(token).await {
            Ok(allowed) => allowed,
            Err(error) => {
                tracing::warn!(%error, "a token for fetching files is refused");
                return None;
            }
        };
        Some(allowed.into_iter().map(|permission| name(permission).to_owned()).collect())
    }
}

/// A permission's name in a token.
const fn name(permission: Permission) -> &'static str {
    match permission {
        Permission::Read => "read",
        Permission::Write => "write",
        Permission::Sign => "sign",
        Permission::Admin => "admin",
    }
}

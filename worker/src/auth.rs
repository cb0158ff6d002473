//! Who may call this worker: the manager says what a token allows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rpc::{ApiResult, ManagerApi, Permission};

/// How long the manager's word on a token counts. A token taken back works this much longer.
const TRUST: Duration = Duration::from_secs(60);
/// Most tokens remembered; beyond, all are forgotten and asked for again.
const TOKENS_MAX: usize = 1024;

/// Asks the manager what tokens allow, and remembers its answers for a minute: transfers ask once per request.
pub struct ManagerTokens {
    manager: Arc<dyn ManagerApi>,
    known: Mutex<BTreeMap<String, (Instant, Vec<Permission>)>>,
}

impl ManagerTokens {
    /// Tokens as this manager knows them.
    pub fn new(manager: Arc<dyn ManagerApi>) -> Self {
        Self { manager, known: Mutex::default() }
    }

    /// What `token` allows.
    ///
    /// # Errors
    /// The manager does not know the token, or does not answer.
    pub async fn allowed(&self, token: &str) -> ApiResult<Vec<Permission>> {
        if let Some((since, permissions)) = self.known().get(token)
            && since.elapsed() < TRUST
        {
            return Ok(permissions.clone());
        }
        let permissions = self.manager.auth_verify(token.to_owned()).await?;
        let mut known = self.known();
        if known.len() >= TOKENS_MAX {
            known.clear();
        }
        known.insert(token.to_owned(), (Instant::now(), permissions.clone()));
        Ok(permissions)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, (Instant, Vec<Permission>)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

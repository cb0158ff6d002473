//! Fetch tokens for this worker's transfers: asked of the manager for one file, one deed and one storage path at a time, and
//! kept for a while. A Lotus manager knows none, and its workers take no other tokens than its own: then this worker's own
//! token is shown, as every Lotus worker shows its own to whoever the index names. Never: shows the worker's own token to
//! anyone where the manager is a Sealyard.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rpc::ManagerApi;
use rpc::extension::{FetchTicket, FetchWish};
use sealtasks::{FetchVerb, FileType, SectorId, StorageId, WorkerId};
use stores::{PeerTokens, TokenUse};

/// A ticket is asked for again after this time, since other workers may hold the files by then.
const KEEP: Duration = Duration::from_secs(60);
/// Tickets kept at once; beyond, all that are old go, and if none is, all.
const KEPT_MAX: usize = 1024;

type Wanted = (StorageId, SectorId, FileType, FetchVerb);

/// The tickets of one worker.
pub(crate) struct Tickets {
    manager: Arc<dyn ManagerApi>,
    session: WorkerId,
    own_token: String,
    /// Cleared when the manager turns out to know no fetch tokens: a Lotus.
    asks: AtomicBool,
    kept: Mutex<HashMap<Wanted, (Instant, FetchTicket)>>,
}

impl Tickets {
    /// Tickets from this manager; `own_token` for where it gives none.
    pub(crate) fn new(manager: Arc<dyn ManagerApi>, session: WorkerId, own_token: String) -> Self {
        Self { manager, session, own_token, asks: AtomicBool::new(true), kept: Mutex::default() }
    }

    /// Another manager process may stand behind the address: ask again, for everything.
    pub(crate) fn manager_changed(&self) {
        self.asks.store(true, Ordering::Relaxed);
        self.kept().clear();
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<Wanted, (Instant, FetchTicket)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, wanted: &Wanted) -> Option<FetchTicket> {
        self.kept().get(wanted).filter(|(since, _)| since.elapsed() < KEEP).map(|(_, ticket)| ticket.clone())
    }

    fn keep(&self, wanted: Wanted, ticket: FetchTicket) {
        let mut kept = self.kept();
        if kept.len() >= KEPT_MAX {
            kept.retain(|_, (since, _)| since.elapsed() < KEEP);
        }
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(wanted, (Instant::now(), ticket));
    }
}

#[async_trait]
impl PeerTokens for Tickets {
    async fn token(&self, wanted: TokenUse<'_>) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        let TokenUse { url, path, sector, kind, verb } = wanted;
        if !self.asks.load(Ordering::Relaxed) {
            return Ok(self.own_token.clone());
        }
        let key = (path.clone(), sector, kind, verb);
        let ticket = match self.known(&key) {
            Some(ticket) => ticket,
            None => {
                let (session, path, verbs) = (self.session, path.clone(), vec![verb]);
                let wish = FetchWish { session, path, sector, types: kind.into(), verbs };
                match self.manager.fetch_token(wish).await {
                    Ok(ticket) => {
                        self.keep(key, ticket.clone());
                        ticket
                    }
                    Err(error) if error.is_method_not_found() => {
                        self.asks.store(false, Ordering::Relaxed);
                        return Ok(self.own_token.clone());
                    }
                    Err(error) => return Err(Box::new(error)),
                }
            }
        };
        let host = url::Url::parse(url)
            .ok()
            .and_then(|url| Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?)));
        let lotus = host.is_some_and(|host| ticket.lotus.contains(&host));
        Ok(ticket.lotus_token.filter(|_| lotus).unwrap_or(ticket.token))
    }
}

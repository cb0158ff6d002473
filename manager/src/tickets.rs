//! Tokens for one purpose: who gets which, and whether one that is shown still holds. Never: mints tokens for operators.
//!
//! A fetch token is good as long as the worker that it was issued to is registered and has a task about the sector, and
//! no longer than [`TICKET_MS`]; it is taken by whoever has the storage path open that it names, and by nobody else. Any
//! registered worker may look at the names and lengths of a copy: it must before it deletes one of its own. The manager's own fetch tokens name [`WorkerId::CLOSED`], which is nobody's session.

use std::collections::BTreeSet;

use async_trait::async_trait;
use rpc::extension::{FetchTicket, FetchWish};
use rpc::server::caller;
use rpc::{ApiError, ApiResult, Grant, Permission, Scope, Secret};
use sealtasks::{CallId, FetchScope, FetchVerb, FileTypes, SectorId, StorageId, WorkerId};
use stores::{Index as _, PeerTokens, TokenAccess, TokenUse, VerifyToken};
use tokio::sync::{mpsc, oneshot};

use crate::driver::{Driver, Input, host_of};
use crate::service::{Service, refusal};
use crate::state::State;

/// The longest a fetch token is good: one file of the largest sector over the slowest line that anybody seals with.
const TICKET_MS: u64 = 24 * 60 * 60 * 1000;
/// The manager's own are for one request each.
const OWN_TICKET_MS: u64 = 10 * 60 * 1000;

/// A worker may end a move for so long after its last task about the sector.
const MOVES_MS: u64 = 7 * 24 * 60 * 60 * 1000;

impl Service {
    /// Everything that a token allows now.
    pub(crate) async fn grant_of(&self, token: &str) -> ApiResult<Grant> {
        let grant = self.0.secret.grant(token).map_err(refusal)?;
        let Some(Scope::Fetch(scope) | Scope::Lotus(scope)) = &grant.scope else { return Ok(grant) };
        if scope.is_over(self.0.state.now_ms()) {
            return Err(ApiError::refused("MGR055: this fetch token's time is over; ask for another one"));
        }
        if scope.worker == WorkerId::CLOSED {
            return Ok(grant);
        }
        let (worker, sectors) = (scope.worker, scope.sectors.clone());
        let works = self.view(move |driver| sectors.iter().all(|sector| driver.works_on(worker, *sector)));
        if works.await? {
            return Ok(grant);
        }
        Err(ApiError::refused(format!(
            "MGR056: the task that this fetch token was issued for on worker {worker} is over"
        )))
    }

    /// A fetch token for a task that the worker has.
    pub(crate) async fn ticket_for(&self, wish: FetchWish) -> ApiResult<FetchTicket> {
        let asker = caller().and_then(|grant| grant.worker_token());
        let (session, sector, types) = (wish.session, wish.sector, wish.types);
        let looks = !types.is_empty() && wish.verbs == [FetchVerb::Look];
        let known = self.view(move |driver| {
            let own =
                asker.is_none_or(|token| driver.joined_with(session).is_none_or(|known| known == token));
            let works = driver.works_on(session, sector);
            // What a Lotus takes opens all of it, so whoever only looks must have something to compare with.
            let lotus = if works || driver.holds_any(session, sector, types) {
                driver.lotus_hosts()
            } else {
                BTreeSet::new()
            };
            (own && (works || (looks && driver.is_registered(session)))).then_some((works, lotus))
        });
        let Some((works, lotus)) = known.await? else {
            if self.may_end_move(session, sector, types, &wish.verbs).await? {
                return self.closing_ticket(wish);
            }
            return Err(ApiError::refused(format!(
                "MGR057: worker {session} has no task about {sector}, so it gets no fetch token for it"
            )));
        };
        let (worker, lasts_ms) =
            if works && !looks { (session, TICKET_MS) } else { (WorkerId::CLOSED, OWN_TICKET_MS) };
        let until_ms = self.0.state.now_ms().saturating_add(lasts_ms);
        let FetchWish { path, verbs, .. } = wish;
        let lotus = self.lotus_among(&lotus, sector, types, &path).await?;
        let scope = FetchScope { worker, path, sectors: vec![sector], types, verbs, until_ms };
        let token = self.0.secret.mint_scoped(Scope::Fetch(scope.clone())).map_err(refusal)?;
        let for_lotus = || self.0.secret.mint_scoped(Scope::Lotus(scope)).map_err(refusal);
        let lotus_token = if lotus.is_empty() { None } else { Some(for_lotus()?) };
        Ok(FetchTicket { token, until_ms, lotus: lotus.into_iter().collect(), lotus_token })
    }

    /// Which of these hosts hold such a file in this path.
    async fn lotus_among(
        &self,
        lotus: &BTreeSet<String>,
        sector: SectorId,
        types: FileTypes,
        path: &StorageId,
    ) -> ApiResult<BTreeSet<String>> {
        let holders = self.0.index.find(sector, types, None).await.map_err(refusal)?;
        let urls = holders.iter().filter(|holder| holder.id == *path).flat_map(|holder| &holder.urls);
        Ok(urls.filter_map(|url| host_of(url)).filter(|host| lotus.contains(host)).collect())
    }

    /// Whether a worker that has no task about the sector any more may still ask for the deletion at the source of a move:
    /// it holds the primary copy, and worked on the sector not long ago. It asks without a permit, so that the source
    /// itself looks for another copy before it obeys.
    async fn may_end_move(
        &self,
        session: WorkerId,
        sector: SectorId,
        types: FileTypes,
        verbs: &[FetchVerb],
    ) -> ApiResult<bool> {
        if types.is_empty() || !verbs.iter().all(|verb| matches!(verb, FetchVerb::Look | FetchVerb::Delete)) {
            return Ok(false);
        }
        let asker = caller().and_then(|grant| grant.worker_token());
        let holder = self.view(move |driver| {
            let own =
                asker.is_none_or(|token| driver.joined_with(session).is_none_or(|known| known == token));
            // While somebody works on the sector, nobody else takes a file away.
            driver.holder_name(session, sector, types).filter(|_| own && !driver.is_worked_on(sector))
        });
        let Some(name) = holder.await? else { return Ok(false) };
        let since = self.0.state.now_ms().saturating_sub(MOVES_MS);
        let rows = self.0.state.tasks_of(sector).await.map_err(refusal)?;
        Ok(rows.iter().any(|row| row.worker.as_deref() == Some(&name) && row.ended_ms >= since))
    }

    /// For one request, as the manager's own.
    fn closing_ticket(&self, wish: FetchWish) -> ApiResult<FetchTicket> {
        let until_ms = self.0.state.now_ms().saturating_add(OWN_TICKET_MS);
        let FetchWish { path, sector, types, verbs, .. } = wish;
        let worker = WorkerId::CLOSED;
        let scope = FetchScope { worker, path, sectors: vec![sector], types, verbs, until_ms };
        let token = self.0.secret.mint_scoped(Scope::Fetch(scope)).map_err(refusal)?;
        Ok(FetchTicket { token, until_ms, lotus: Vec::new(), lotus_token: None })
    }

    /// Refuses a result that one worker returns of a call that another one holds, as far as both can be told.
    pub(crate) async fn check_returner(&self, call: CallId) -> ApiResult<()> {
        let Some(token) = caller().and_then(|grant| grant.worker_token()) else { return Ok(()) };
        match self.view(move |driver| driver.holder_token(call)).await? {
            Some(holder) if holder != token => Err(ApiError::refused(format!(
                "MGR058: call {call} is another worker's; its result is not taken from this one"
            ))),
            Some(_) | None => Ok(()),
        }
    }

    /// Refuses the state of a session that joined with another token.
    pub(crate) async fn check_session(&self, session: WorkerId) -> ApiResult<()> {
        let Some(token) = caller().and_then(|grant| grant.worker_token()) else { return Ok(()) };
        match self.view(move |driver| driver.joined_with(session)).await? {
            Some(joined) if joined != token => {
                Err(ApiError::refused(format!("MGR059: session {session} is another worker's")))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// A token with which one Sealyard worker joins.
    pub(crate) fn new_worker_token(&self) -> ApiResult<String> {
        let id = rpc::token::worker_token_id().map_err(refusal)?;
        self.0.secret.mint_scoped(Scope::Worker { id }).map_err(refusal)
    }
}

/// Says what a token allows, to the manager's file server.
pub(crate) struct FileTokens(pub(crate) Service);

#[async_trait]
impl VerifyToken for FileTokens {
    async fn permissions(&self, token: &str) -> Option<Vec<String>> {
        let allowed = self.0.0.secret.verify(token).ok()?;
        Some(allowed.into_iter().map(|permission| permission.name().to_owned()).collect())
    }

    async fn access(&self, token: &str) -> Option<TokenAccess> {
        match self.0.grant_of(token).await {
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

/// The manager's own tokens for peers: one file in one path and one deed each, or the state of one path. A Lotus worker, which knows permissions alone, takes
/// its token for any deed; here that too opens no more than it names.
pub(crate) struct OwnTokens {
    pub(crate) secret: Secret,
    pub(crate) state: State,
    pub(crate) inputs: mpsc::Sender<Input>,
}

impl OwnTokens {
    async fn mint(
        &self,
        url: &str,
        scope: FetchScope,
    ) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        let lotus = self.is_lotus(url).await?;
        Ok(self.secret.mint_scoped(if lotus { Scope::Lotus(scope) } else { Scope::Fetch(scope) })?)
    }

    /// Of the manager's own, that opens nothing of this path yet.
    fn scope(&self, path: &StorageId) -> FetchScope {
        FetchScope {
            worker: WorkerId::CLOSED,
            path: path.clone(),
            sectors: Vec::new(),
            types: FileTypes::NONE,
            verbs: Vec::new(),
            until_ms: self.state.now_ms().saturating_add(OWN_TICKET_MS),
        }
    }

    async fn is_lotus(&self, url: &str) -> Result<bool, &'static str> {
        let Some(host) = host_of(url) else { return Ok(false) };
        let (reply, answer) = oneshot::channel();
        let look = move |driver: &Driver| {
            // Whoever asked may have gone.
            let _ = reply.send(driver.lotus_hosts().contains(&host));
        };
        let stopping = "the manager is stopping";
        self.inputs.send(Input::View(Box::new(look))).await.map_err(|_| stopping)?;
        answer.await.map_err(|_| stopping)
    }
}

#[async_trait]
impl PeerTokens for OwnTokens {
    async fn token(&self, wanted: TokenUse<'_>) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        let TokenUse { url, path, sector, kind, verb } = wanted;
        let (sectors, types, verbs) = (vec![sector], kind.into(), vec![verb]);
        self.mint(url, FetchScope { sectors, types, verbs, ..self.scope(path) }).await
    }

    async fn stat_token(
        &self,
        url: &str,
        path: &StorageId,
    ) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        self.mint(url, self.scope(path)).await
    }
}

//! `/remote/...`: hands this process's sector files to peers, Lotus workers and miners among them.
//!
//! Statuses and bodies are Lotus's. Names from the network are parsed into typed ids before anything else is done with
//! them. Differences: a sender that fails midway breaks the connection instead of ending the body; HEAD is answered;
//! a range past the end is clamped; a DELETE that would take the last copy is refused (see [`PERMIT_HEADER`]).

mod access;
mod blocks;
mod files;
mod listing;
mod range;
pub(crate) mod survivor;
mod turns;
pub(crate) mod vanilla;

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, RANGE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use pieces::PartialFile;
use rustls::ClientConfig;
use sealtasks::{FetchScope, FetchVerb, FileType, RegisteredSealProof, SectorId, StorageId, UnpaddedOffset};

use self::access::{Access, Deed};
use self::blocks::{Announced, Hashing};
use self::turns::Turns;
pub use self::vanilla::Prover;
use crate::content::{self, ACCEPT_HEADER, EXACTLY_HEADER, SPANS_HEADER, UNVERIFIED_HEADER};
use crate::error::StoreError;
use crate::local::{DeletePermit, Found, Local, chain};
use crate::peer::{Peer, nobody};
use crate::peer_tokens::{OneToken, PeerTokens};
use crate::wire::FsStatJson;

/// A DELETE with this header, whose value is the reason, removes the copy in one path here, the last one though it may be: in
/// the path that the token is for, else in the one that [`PATH_HEADER`] names. Sent only after the decision was recorded: by
/// the manager, and by a worker whose journalled call makes the file anew or releases it. A peer that is no Sealyard ignores it
/// and deletes anyway.
pub const PERMIT_HEADER: &str = "x-sealyard-permit";

/// Names the storage path whose copy a permit is for. A fetch token names one itself.
pub const PATH_HEADER: &str = "x-sealyard-path";

/// At most so many ids in `?keep=`.
const KEEP_MAX: usize = 64;

/// The range that tells a plain file's length, to a Lotus as well.
pub(crate) const ONE_BYTE: &str = "bytes=0-0";

/// Unpadded bytes that become one padded unit of 128.
const UNPADDED_UNIT: u64 = 127;

/// Says what a token allows.
#[async_trait]
pub trait VerifyToken: Send + Sync + 'static {
    /// The token's permissions, for example `["read", "admin"]`; `None` when it is no valid token.
    async fn permissions(&self, token: &str) -> Option<Vec<String>>;

    /// The same with what a fetch token names; `None` when it is no valid token, or its time is over.
    async fn access(&self, token: &str) -> Option<TokenAccess> {
        let permissions = self.permissions(token).await?;
        Some(TokenAccess { admin: permissions.iter().any(|permission| permission == "admin"), fetch: None })
    }
}

/// What a token opens under `/remote`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenAccess {
    /// Everything.
    pub admin: bool,
    /// What a fetch token names, and nothing else.
    pub fetch: Option<FetchScope>,
}

/// How other copies are asked for before a peer's DELETE is obeyed.
#[derive(Clone)]
pub struct Looking {
    /// Gives the token that each holder is shown. Never the requester's own: whoever declares a copy would be told it.
    pub tokens: Arc<dyn PeerTokens>,
    /// Which certificates of https peers are believed.
    pub tls: Arc<ClientConfig>,
}

impl Looking {
    /// With one token for everyone, believing no https peer.
    pub fn with_one_token(token: String) -> Self {
        Self { tokens: Arc::new(OneToken(token)), tls: nobody() }
    }
}

/// The routes under `/remote`. Every request needs a token with permission `admin`, or a fetch token that names what is
/// done, in `Authorization: Bearer` or `?token=`. Without a prover nothing is proven here.
pub fn fetch_router(
    local: Arc<Local>,
    verify: Arc<dyn VerifyToken>,
    looking: Looking,
    prover: Option<Arc<dyn Prover>>,
) -> Router {
    let Looking { tokens, tls } = looking;
    let peer = Peer::new(tls);
    let (turns, announced) = (Turns::default(), Arc::default());
    let server = Server { local, verify, tokens, peer, turns, announced, prover };
    Router::new().route("/remote/{*path}", any(answer)).with_state(Arc::new(server))
}

pub(crate) struct Server {
    local: Arc<Local>,
    verify: Arc<dyn VerifyToken>,
    tokens: Arc<dyn PeerTokens>,
    peer: Peer,
    turns: Turns,
    announced: Arc<Announced>,
    prover: Option<Arc<dyn Prover>>,
}

/// A request's path, as far as it is one of ours.
enum Route<'a> {
    Stat(&'a str),
    Vanilla(vanilla::Kind),
    File(&'a str, &'a str),
    Allocated { kind: &'a str, sector: &'a str, proof: &'a str, offset: &'a str, size: &'a str },
}

async fn answer(State(server): State<Arc<Server>>, request: Request) -> Response {
    let access = match access::check(&*server.verify, request.headers(), request.uri().query()).await {
        Ok(access) => access,
        Err(refusal) => return refusal,
    };
    let path = request.uri().path().to_owned();
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let Some(route) = Route::parse(&path, &method) else { return StatusCode::NOT_FOUND.into_response() };
    if let Route::Vanilla(kind) = route {
        return vanilla::answer(&server, &access, kind, request.into_body()).await;
    }
    if let Some(refusal) = access.refusal(&route.deed(&method, &headers), &server.local) {
        return refusal;
    }
    let query = request.uri().query().unwrap_or_default();
    let result = match (route, &method) {
        (Route::Stat(id), &Method::GET | &Method::HEAD) => server.stat(id).await,
        (Route::File(kind, sector), &Method::GET | &Method::HEAD) => {
            server.file(kind, sector, &headers, &method).await
        }
        (Route::File(kind, sector), &Method::DELETE) if headers.contains_key(PERMIT_HEADER) => {
            server.remove(kind, sector, &access, &headers).await
        }
        (Route::File(kind, sector), &Method::DELETE) => server.delete(kind, sector, query, &headers).await,
        (Route::Allocated { kind, sector, proof, offset, size }, &Method::GET) => {
            server.allocated([kind, sector, proof, offset, size]).await
        }
        _ => return StatusCode::METHOD_NOT_ALLOWED.into_response(),
    };
    result.unwrap_or_else(|error| {
        tracing::warn!(%method, path, error = chain(&*error), "request of a peer failed");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    })
}

/// Every failure is status 500 with an empty body towards the peer; the text goes to our log.
type Failure = Box<dyn std::error::Error + Send + Sync>;

impl<'a> Route<'a> {
    /// Lotus's patterns overlap: `stat/x` and `vanilla/x` are also a file type and a name, for the other verbs.
    fn parse(path: &'a str, method: &Method) -> Option<Self> {
        let parts: Vec<&str> = path.strip_prefix("/remote/")?.split('/').collect();
        match parts[..] {
            ["stat", id] if *method != Method::DELETE && !id.is_empty() => Some(Self::Stat(id)),
            ["vanilla", "single"] if *method == Method::POST => Some(Self::Vanilla(vanilla::Kind::Single)),
            ["vanilla", "porep"] if *method == Method::POST => Some(Self::Vanilla(vanilla::Kind::PoRep)),
            [kind, sector] if !kind.is_empty() && !sector.is_empty() => Some(Self::File(kind, sector)),
            [kind, sector, proof, "allocated", offset, size] => {
                Some(Self::Allocated { kind, sector, proof, offset, size })
            }
            _ => None,
        }
    }

    /// What the request is about to do, for its token to be asked.
    fn deed(&self, method: &Method, headers: &HeaderMap) -> Deed<'a> {
        let verb = match *method {
            Method::DELETE if headers.contains_key(PERMIT_HEADER) => FetchVerb::Remove,
            Method::DELETE => FetchVerb::Delete,
            Method::HEAD => FetchVerb::Look,
            _ if headers.get(RANGE).is_some_and(|range| range == ONE_BYTE) => FetchVerb::Look,
            _ => FetchVerb::Get,
        };
        match *self {
            Self::Stat(id) => Deed::Stat(id),
            Self::Vanilla(_) => Deed::Other,
            Self::File(kind, sector) | Self::Allocated { kind, sector, .. } => {
                Deed::File { verb, kind, sector }
            }
        }
    }
}

impl Server {
    async fn stat(&self, id: &str) -> Result<Response, Failure> {
        let Ok(id) = id.parse::<StorageId>() else { return Ok(StatusCode::NOT_FOUND.into_response()) };
        match self.local.stat(&id).await {
            Err(StoreError::NotOpen { .. }) => Ok(StatusCode::NOT_FOUND.into_response()),
            Err(error) => Err(error.into()),
            Ok(stat) => {
                let mut body = serde_json::to_vec(&FsStatJson::from(stat))?;
                body.push(b'\n');
                let plain = HeaderValue::from_static("text/plain; charset=utf-8");
                Ok(([(CONTENT_TYPE, plain)], body).into_response())
            }
        }
    }

    async fn file(
        &self,
        kind: &str,
        sector: &str,
        headers: &HeaderMap,
        method: &Method,
    ) -> Result<Response, Failure> {
        let (kind, sector) = names(kind, sector)?;
        if let (&Method::GET, Some(spans)) = (method, headers.get(SPANS_HEADER)) {
            return self.block(sector, kind, spans, headers).await;
        }
        let found = self.local.file_path(sector, kind).await?;
        let (_, file) = found.ok_or(StoreError::NotFound { sector, kind })?;
        // A range is asked for by those who read a part; whoever wants the whole says which form it takes.
        if *method == Method::GET && headers.contains_key(ACCEPT_HEADER) && !headers.contains_key(RANGE) {
            let rehearses = self.local.rehearses();
            let (turn, announced) = (self.turns.to_look(&file).await?, Arc::clone(&self.announced));
            let look = async move { announced.announce(file, sector, kind, rehearses).await };
            return Ok(turns::held(turn, look).await?);
        }
        let (slot, turn) = match *method {
            Method::GET => (Some(self.turns.to_send(&file).await?), None),
            _ => (None, Some(self.turns.to_look(&file).await?)),
        };
        let (headers, sent) = (headers.clone(), self.local.sent().clone());
        let look = async move {
            match kind.is_directory() {
                true => files::directory(file, &headers, slot, &sent).await,
                false => files::file(file, &headers, slot).await,
            }
        };
        Ok(turns::held(turn, look).await?)
    }

    /// Bytes of a file as [`blocks::Announced::announce`] listed it.
    async fn block(
        &self,
        sector: SectorId,
        kind: FileType,
        spans: &HeaderValue,
        headers: &HeaderMap,
    ) -> Result<Response, Failure> {
        let asked = spans.to_str().ok().and_then(content::split_asked);
        let asked = asked.ok_or_else(|| format!("{SPANS_HEADER} {spans:?} is not etag;name:offset:bytes"))?;
        let file = match self.announced.place(asked.0, sector, kind) {
            Some(file) => file,
            None => {
                let found = self.local.file_path(sector, kind).await?;
                found.ok_or(StoreError::NotFound { sector, kind })?.1
            }
        };
        let hashing = if headers.contains_key(UNVERIFIED_HEADER) { Hashing::Off } else { Hashing::Blake3 };
        let slot = self.turns.to_send(&file).await?;
        let (etag, spans) = (asked.0.to_owned(), asked.1.to_owned());
        let look = async move { blocks::block(file, (&etag, &spans), hashing, slot).await };
        Ok(turns::held((), look).await?)
    }

    /// Deletes by permit the copy in one path.
    async fn remove(
        &self,
        kind: &str,
        sector: &str,
        access: &Access,
        headers: &HeaderMap,
    ) -> Result<Response, Failure> {
        let (kind, sector) = names(kind, sector)?;
        let named =
            headers.get(PATH_HEADER).map(|id| -> Result<StorageId, Failure> { Ok(id.to_str()?.parse()?) });
        let path = match (access.path(), named.transpose()?) {
            (Some(path), Some(named)) if *path != named => {
                return Ok(access::refused("this token is for another storage path"));
            }
            (Some(path), _) => path.clone(),
            (None, Some(named)) => named,
            // Of several copies nobody said which one is meant.
            (None, None) => match &self.local.copies_here(sector, kind).await?[..] {
                [] => return Ok(StatusCode::OK.into_response()),
                [(only, _)] => only.clone(),
                more => {
                    return Err(
                        format!("{} copies lie here, and {PATH_HEADER} names none", more.len()).into()
                    );
                }
            },
        };
        let reason = headers.get(PERMIT_HEADER).map_or(&b""[..], HeaderValue::as_bytes);
        let permit = DeletePermit { reason: String::from_utf8_lossy(reason).into_owned() };
        self.local.remove_permitted(sector, kind, &path, &permit).await?;
        Ok(StatusCode::OK.into_response())
    }

    async fn delete(
        &self,
        kind: &str,
        sector: &str,
        query: &str,
        headers: &HeaderMap,
    ) -> Result<Response, Failure> {
        let (kind, sector) = names(kind, sector)?;
        let keep = kept_paths(query)?;
        let asker = survivor::Asker { local: &self.local, peer: &self.peer, tokens: &*self.tokens };
        let Some(etag) = headers.get(EXACTLY_HEADER) else {
            let checked = survivor::check(&asker, survivor::Deletion { sector, kind, keep: &keep }).await?;
            self.local.remove_these(sector, kind, &checked).await?;
            return Ok(StatusCode::OK.into_response());
        };
        let etag = etag.to_str().ok().filter(|etag| content::is_etag(etag));
        let etag = etag.ok_or_else(|| format!("{EXACTLY_HEADER} is no etag of ours"))?;
        let gone = match self.local.find_exactly(sector, kind, etag, &keep).await? {
            Found::Nothing => Ok(()),
            Found::Other => return Ok(StatusCode::PRECONDITION_FAILED.into_response()),
            Found::Same(only) => {
                let checked = survivor::check_exactly(&asker, sector, kind, &only).await?;
                self.local.remove_exactly(sector, kind, &checked, etag).await
            }
        };
        match gone {
            Err(StoreError::Changed { .. }) => Ok(StatusCode::PRECONDITION_FAILED.into_response()),
            gone => Ok(gone.map(|()| StatusCode::OK.into_response())?),
        }
    }

    /// Is this unpadded range of the unsealed file allocated? 200 yes, 416 no.
    async fn allocated(&self, parts: [&str; 5]) -> Result<Response, Failure> {
        let [kind, sector, proof, offset, size] = parts;
        let (kind, sector) = names(kind, sector)?;
        if kind != FileType::Unsealed {
            return Err(format!("only unsealed files have allocated ranges, not {kind}").into());
        }
        let proof = RegisteredSealProof::try_from(proof.parse::<i64>()?)?;
        let (offset, size) = (offset.parse::<u64>()?, size.parse::<u64>()?);
        // Between two boundaries of the padding: ask from the boundary before it.
        let before = offset % UNPADDED_UNIT;
        let (offset, size) = (UnpaddedOffset::try_from(offset - before)?, size.saturating_add(before));
        let found = self.local.file_path(sector, kind).await?;
        let (_, file) = found.ok_or(StoreError::NotFound { sector, kind })?;
        let turn = self.turns.to_look(&file).await?;
        let look = move || {
            let _turn = turn;
            let file = PartialFile::open_read_only(&file, proof.sector_size())?;
            Ok::<_, pieces::PartialFileError>(file.has_allocated(offset, size))
        };
        let status = match tokio::task::spawn_blocking(look).await?? {
            true => StatusCode::OK,
            false => StatusCode::RANGE_NOT_SATISFIABLE,
        };
        Ok(status.into_response())
    }
}

fn names(kind: &str, sector: &str) -> Result<(FileType, SectorId), Failure> {
    Ok((kind.parse()?, sector.parse()?))
}

/// `keep=id1.id2`. An id that is none fails the request: ignoring it could delete what was to be kept.
fn kept_paths(query: &str) -> Result<Vec<StorageId>, Failure> {
    let mut keep = Vec::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if name == "keep" {
            for id in value.split('.').filter(|id| !id.is_empty()) {
                keep.push(id.parse::<StorageId>()?);
            }
        }
    }
    if keep.len() > KEEP_MAX {
        return Err(format!("{} paths to keep; at most {KEEP_MAX}", keep.len()).into());
    }
    Ok(keep)
}

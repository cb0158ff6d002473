//! Who may use `/remote`: a token with permission `admin` for everything, a fetch token for what it names, and what
//! Lotus answers to everyone else.

use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use sealtasks::{FetchScope, FetchVerb, FileType, SectorId, StorageId};

use super::VerifyToken;
use crate::local::Local;

/// A longer token is refused unread (bytes).
const TOKEN_MAX: usize = 8 << 10;

const FORBIDDEN: &str = "{\"Error\":\"unauthorized: missing admin permission\"}\n";

/// What a request may do.
pub(super) struct Access {
    /// `None` = everything.
    scope: Option<FetchScope>,
}

/// What a request is about to do.
pub(super) enum Deed<'a> {
    /// Something with this file, named as the request names it.
    File { verb: FetchVerb, kind: &'a str, sector: &'a str },
    /// Ask how full a path is: any token for that path opens that.
    Stat(&'a str),
    /// Something that fetching never needs.
    Other,
}

impl Access {
    /// Whether it may do everything.
    pub(super) const fn is_admin(&self) -> bool {
        self.scope.is_none()
    }

    /// The storage path that its token is for; none where it may do everything.
    pub(super) fn path(&self) -> Option<&StorageId> {
        self.scope.as_ref().map(|scope| &scope.path)
    }

    /// Refuses, with status 403 and the reason, what the token does not name. Names that are none are refused as well.
    /// So is a token for a path that is not served here: it was shown to someone else, who must not be able to use it.
    pub(super) fn refusal(&self, deed: &Deed<'_>, local: &Local) -> Option<Response> {
        let scope = self.scope.as_ref()?;
        let (verb, kind, sector) = match deed {
            Deed::Stat(id) if *id == scope.path.as_str() => return None,
            Deed::Stat(_) => return Some(refused("this token is for another storage path")),
            Deed::Other => return Some(refused("a fetch token opens files only")),
            Deed::File { verb, kind, sector } => (*verb, *kind, *sector),
        };
        if local.dir(&scope.path).is_err() {
            return Some(refused("this token is for a storage path that is not open here"));
        }
        let names = kind.parse::<FileType>().ok().zip(sector.parse::<SectorId>().ok());
        let Some((kind, sector)) = names else {
            return Some(refused("a fetch token opens files only, and this is no sector's file"));
        };
        if scope.allows(verb, sector, kind) {
            return None;
        }
        Some(refused(&format!("this fetch token does not allow to {verb} the {kind} file of {sector}")))
    }
}

/// Returns what the token allows, or the answer that refuses it.
pub(super) async fn check(
    verify: &dyn VerifyToken,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<Access, Response> {
    // Lotus: a bad token is refused with an empty body, no token at all goes on without permissions.
    let bad_token = || StatusCode::UNAUTHORIZED.into_response();
    let from_query = || {
        let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        pairs.into_iter().find(|(name, _)| name == "token").map(|(_, value)| value.into_owned())
    };
    let token = match headers.get(AUTHORIZATION).filter(|value| !value.is_empty()) {
        Some(header) => {
            let text = header.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
            Some(text.ok_or_else(bad_token)?.to_owned())
        }
        None => from_query().filter(|token| !token.is_empty()),
    };
    let Some(token) = token else { return Err(forbidden()) };
    if token.len() > TOKEN_MAX {
        return Err(bad_token());
    }
    let allowed = verify.access(&token).await.ok_or_else(bad_token)?;
    if allowed.admin {
        return Ok(Access { scope: None });
    }
    match allowed.fetch {
        Some(scope) => Ok(Access { scope: Some(scope) }),
        None => Err(forbidden()),
    }
}

fn forbidden() -> Response {
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    (StatusCode::UNAUTHORIZED, [(CONTENT_TYPE, plain)], FORBIDDEN).into_response()
}

pub(super) fn refused(why: &str) -> Response {
    (StatusCode::FORBIDDEN, format!("{why}\n")).into_response()
}

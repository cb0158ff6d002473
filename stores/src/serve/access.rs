//! Who may use `/remote`: a valid token with permission `admin`, and what Lotus answers to everyone else.

use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::VerifyToken;

/// A longer token is refused unread (bytes).
const TOKEN_MAX: usize = 8 << 10;

const FORBIDDEN: &str = "{\"Error\":\"unauthorized: missing admin permission\"}\n";

/// Returns the token, or the answer that refuses.
pub(super) async fn check(
    verify: &dyn VerifyToken,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<String, Response> {
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
    let permissions = verify.permissions(&token).await.ok_or_else(bad_token)?;
    if permissions.iter().any(|permission| permission == "admin") { Ok(token) } else { Err(forbidden()) }
}

fn forbidden() -> Response {
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    (StatusCode::UNAUTHORIZED, [(CONTENT_TYPE, plain)], FORBIDDEN).into_response()
}

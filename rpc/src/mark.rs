//! What a Sealyard says of itself with each request to another one: which manager it is, or serves. Whoever serves another
//! one refuses the request before anything is done; a Lotus sends no such header and is never asked for it. Never: judges.

use std::sync::{Arc, PoisonError, RwLock};

use reqwest::header::{HeaderMap, HeaderValue};
use sealtasks::{Reign, ReignError};

/// The header: [`Reign::to_line`].
pub const HEADER: &str = "x-sealyard-reign";

/// The reign that goes with each request of a client, or none. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Mark(Arc<RwLock<Option<Reign>>>);

impl Mark {
    /// This reign.
    pub fn of(reign: Reign) -> Self {
        Self(Arc::new(RwLock::new(Some(reign))))
    }

    /// From the next request on it is this one. A websocket keeps the one that it was opened with.
    pub fn set(&self, reign: Reign) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(reign);
    }

    /// The reign as it is now.
    pub fn get(&self) -> Option<Reign> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The header's value.
    pub(crate) fn value(&self) -> Option<HeaderValue> {
        // Of characters that may stand in a header alone.
        self.get().and_then(|reign| HeaderValue::try_from(reign.to_line()).ok())
    }
}

/// The reign that a request tells of.
///
/// # Errors
/// The header says something else.
pub(crate) fn read(headers: &HeaderMap) -> Result<Option<Reign>, ReignError> {
    let Some(value) = headers.get(HEADER) else { return Ok(None) };
    value.to_str().unwrap_or_default().parse().map(Some)
}

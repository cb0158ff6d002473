//! A manager's backups over the network: which generation it has, and its files. Never: writes them to a disk.

use axum::body::Bytes;
use reqwest::{Response, StatusCode};

use super::manager::ManagerClient;
use super::{malformed, unreachable_peer};
use crate::api::ApiResult;
use crate::backup::{BACKUP_FILE_ROUTE, BACKUP_ROUTE, MANIFEST_MAX};
use crate::error::ApiError;

/// Error texts are read up to this many bytes.
const TEXT_MAX: usize = 4096;

impl ManagerClient {
    /// The manifest of a backup that the manager has made now, or has still: `generation` names one that is being fetched.
    /// `None`: nothing was committed since event `seen`.
    ///
    /// # Errors
    /// The manager does not answer, refuses the token, or cannot make one.
    pub async fn backup_manifest(
        &self,
        generation: Option<&str>,
        seen: Option<u64>,
    ) -> ApiResult<Option<Vec<u8>>> {
        let (mut url, http) = self.http()?;
        url.set_path(BACKUP_ROUTE);
        if let Some(generation) = generation {
            url.query_pairs_mut().append_pair("generation", generation);
        }
        if let Some(seen) = seen {
            url.query_pairs_mut().append_pair("seen", &seen.to_string());
        }
        let answer = http.get(url.clone()).send().await.map_err(|source| unreachable_peer(&url, source))?;
        if answer.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let mut parts = FileParts(accepted(answer).await?);
        let mut manifest = Vec::new();
        while let Some(part) = parts.next().await? {
            if manifest.len() + part.len() > MANIFEST_MAX {
                return Err(malformed(
                    BACKUP_ROUTE,
                    &format!("the manifest is longer than {MANIFEST_MAX} bytes"),
                ));
            }
            manifest.extend_from_slice(&part);
        }
        Ok(Some(manifest))
    }

    /// A file of a generation, by its name in the manifest, from byte `from` on.
    ///
    /// # Errors
    /// As [`ManagerClient::backup_manifest`]; the manager has that generation no longer.
    pub async fn backup_file(&self, generation: &str, name: &str, from: u64) -> ApiResult<FileParts> {
        let (mut url, http) = self.http()?;
        url.set_path(BACKUP_FILE_ROUTE);
        url.query_pairs_mut()
            .append_pair("generation", generation)
            .append_pair("name", name)
            .append_pair("from", &from.to_string());
        let answer = http.get(url.clone()).send().await.map_err(|source| unreachable_peer(&url, source))?;
        accepted(answer).await.map(FileParts)
    }
}

/// A file on its way.
#[derive(Debug)]
pub struct FileParts(Response);

impl FileParts {
    /// The next bytes; `None` at the end, which may come early.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next(&mut self) -> ApiResult<Option<Bytes>> {
        let url = self.0.url().clone();
        self.0.chunk().await.map_err(|source| unreachable_peer(&url, source))
    }
}

async fn accepted(answer: Response) -> ApiResult<Response> {
    let url = answer.url().to_string();
    match answer.status() {
        StatusCode::OK => Ok(answer),
        status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            Err(ApiError::Unauthorized { url, status: status.as_u16() })
        }
        StatusCode::NOT_FOUND => Err(ApiError::unknown_method(BACKUP_ROUTE)),
        status => {
            let text = answer.text().await.unwrap_or_default();
            let text: String = text.trim().chars().take(TEXT_MAX).collect();
            let text = if text.is_empty() { format!("HTTP status {status}") } else { text };
            Err(ApiError::refused(text))
        }
    }
}

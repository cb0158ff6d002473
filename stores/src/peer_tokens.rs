//! Which token is shown to which peer: a seam, since only who speaks to the manager can tell.

use async_trait::async_trait;
use sealtasks::{FetchVerb, FileType, SectorId, StorageId};

/// What a token is wanted for.
#[derive(Clone, Copy, Debug)]
pub struct TokenUse<'a> {
    /// Where it will be shown.
    pub url: &'a str,
    /// The path that is said to be served there; who serves another one should have no use of the token.
    pub path: &'a StorageId,
    /// Which sector's file is meant.
    pub sector: SectorId,
    /// Which of its files.
    pub kind: FileType,
    /// What is done with it.
    pub verb: FetchVerb,
}

/// Gives tokens for peers. Answers may be kept; what is asked for may be asked for again and again.
#[async_trait]
pub trait PeerTokens: Send + Sync + 'static {
    /// A token that allows this use, as narrow as the peer understands.
    ///
    /// # Errors
    /// Nobody gives one: the manager refuses, or does not answer.
    async fn token(&self, wanted: TokenUse<'_>) -> Result<String, Box<dyn std::error::Error + Send + Sync>>;

    /// A token that opens no file, for asking how full the path `path` is, which is said to be served at `url`.
    ///
    /// # Errors
    /// As [`PeerTokens::token`]; without an implementation, always.
    async fn stat_token(
        &self,
        url: &str,
        path: &StorageId,
    ) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        Err(format!("no token is given here for asking how full path {path} is at {url}").into())
    }
}

/// One token for every use.
pub(crate) struct OneToken(pub(crate) String);

#[async_trait]
impl PeerTokens for OneToken {
    async fn token(&self, _: TokenUse<'_>) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.0.clone())
    }

    async fn stat_token(
        &self,
        _: &str,
        _: &StorageId,
    ) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.0.clone())
    }
}

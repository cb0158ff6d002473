//! Tokens: what they allow, how they are made and checked. HS256 JSON web tokens with exactly Lotus's payload,
//! `{"Allow":["read","write"]}`: no expiry, no subject. A token of ours for one purpose has an empty `Allow`, so that it
//! opens nothing at a Lotus, and the claim `Sealyard` beside it; see [`Scope`]. Never stores anything; see
//! [`crate::keystore`].

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::str::FromStr;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use sealtasks::{FetchScope, FetchVerb};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One thing a token allows. None implies another: a token lists each one it allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    /// Ask.
    Read,
    /// Change sectors.
    Write,
    /// Sign; kept for Lotus's sake.
    Sign,
    /// Change workers, storage and tokens.
    Admin,
}

impl Permission {
    /// All four, in Lotus's order.
    pub const ALL: [Self; 4] = [Self::Read, Self::Write, Self::Sign, Self::Admin];

    /// `read`, `write`, `sign` or `admin`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Sign => "sign",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Permission {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let known = Self::ALL.into_iter().find(|permission| permission.name() == text);
        known.ok_or_else(|| TokenError::Permission { text: text.chars().take(TEXT_MAX).collect() })
    }
}

/// What a token of ours is for, when it is for one purpose only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// To fetch files, and what belongs to that, under `/remote`; no call of any API.
    Fetch(FetchScope),
    /// The same, for being shown to a Lotus worker. That asks its manager for permissions alone, so ours calls this one
    /// `admin` when it is asked so; it opens what a [`Scope::Fetch`] opens everywhere else, and no call of ours.
    Lotus(FetchScope),
    /// A Sealyard worker's own token: it may join, return results and speak of its storage; see
    /// [`crate::server::WORKER_METHODS`].
    Worker {
        /// Tells one worker's token from another's. Minted with it, never used twice.
        id: Uuid,
    },
    /// The manager's call of the worker whose own token has this id. It opens that worker and nothing else.
    Call {
        /// The worker's token.
        worker: Uuid,
    },
}

/// Everything that a token allows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Grant {
    /// Lotus's permissions.
    pub permissions: Vec<Permission>,
    /// Its one purpose, if it has one.
    pub scope: Option<Scope>,
}

impl Grant {
    /// Exactly these permissions.
    pub const fn of(permissions: Vec<Permission>) -> Self {
        Self { permissions, scope: None }
    }

    /// Whether it lists `permission`.
    pub fn has(&self, permission: Permission) -> bool {
        self.permissions.contains(&permission)
    }

    /// The id of a worker's own token.
    pub const fn worker_token(&self) -> Option<Uuid> {
        match self.scope {
            Some(Scope::Worker { id }) => Some(id),
            Some(Scope::Fetch(_) | Scope::Lotus(_) | Scope::Call { .. }) | None => None,
        }
    }

    /// What a fetch token names; `None` for every other token.
    pub fn into_fetch_scope(self) -> Option<FetchScope> {
        match self.scope {
            Some(Scope::Fetch(scope) | Scope::Lotus(scope)) => Some(scope),
            Some(Scope::Worker { .. } | Scope::Call { .. }) | None => None,
        }
    }
}

/// A refused text is repeated in the error up to this many characters.
const TEXT_MAX: usize = 64;

/// The key that signs a manager's tokens. Never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    key: Vec<u8>,
    /// Which of several managers with this key.
    issuer: Option<Uuid>,
}

impl Secret {
    /// Bytes in a new secret, as Lotus has it.
    pub const LENGTH: usize = 32;
    /// The shortest secret that is accepted from a keystore; a shorter one could be guessed.
    pub const LENGTH_MIN: usize = 16;

    /// A new secret of [`Secret::LENGTH`] bytes from the operating system.
    ///
    /// # Errors
    /// The operating system's source of randomness cannot be read.
    pub fn generate() -> io::Result<Self> {
        Ok(Self { key: random_bytes::<{ Self::LENGTH }>()?.to_vec(), issuer: None })
    }

    /// The secret with these bytes.
    ///
    /// # Errors
    /// Fewer than [`Secret::LENGTH_MIN`] bytes.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, TokenError> {
        if bytes.len() < Self::LENGTH_MIN {
            return Err(TokenError::ShortSecret { length: bytes.len() });
        }
        Ok(Self { key: bytes, issuer: None })
    }

    /// The key itself, for the keystore.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.key
    }

    /// The key of this manager among those that took over from one another and have it, too: a token for deleting a file that
    /// was issued by another one of them opens nothing.
    #[must_use]
    pub fn issued_by(self, manager: Uuid) -> Self {
        Self { issuer: Some(manager), ..self }
    }

    /// A token that allows `permissions`, for ever.
    ///
    /// # Errors
    /// The signing library refused; it does not for this algorithm and key.
    pub fn mint(&self, permissions: &[Permission]) -> Result<String, TokenError> {
        let allow = permissions.iter().map(|permission| permission.name().to_owned()).collect();
        self.sign(&Payload { allow: Some(allow), scope: None, issuer: None })
    }

    /// A token for one purpose. A Lotus that is shown it sees an empty `Allow`.
    ///
    /// # Errors
    /// As [`Secret::mint`].
    pub fn mint_scoped(&self, scope: Scope) -> Result<String, TokenError> {
        self.sign(&Payload { allow: Some(Vec::new()), scope: Some(scope), issuer: self.issuer })
    }

    fn sign(&self, payload: &Payload) -> Result<String, TokenError> {
        let key = EncodingKey::from_secret(&self.key);
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), payload, &key)
            .map_err(|source| TokenError::Sign { source })
    }

    /// What a token allows. Names of permissions that we do not know allow nothing and are left out.
    ///
    /// # Errors
    /// Not a token, another algorithm than HS256, or not signed with this secret.
    pub fn verify(&self, token: &str) -> Result<Vec<Permission>, TokenError> {
        self.grant(token).map(|grant| grant.permissions)
    }

    /// As [`Secret::verify`], with the token's one purpose. Whether that is over is for whoever has a clock to say.
    ///
    /// # Errors
    /// As [`Secret::verify`], and for a purpose that this version does not know.
    pub fn grant(&self, token: &str) -> Result<Grant, TokenError> {
        let mut rules = Validation::new(Algorithm::HS256);
        // Lotus's tokens never expire and name no audience; the library demands `exp` unless told otherwise.
        rules.required_spec_claims.clear();
        rules.validate_exp = false;
        rules.validate_aud = false;
        let payload = jsonwebtoken::decode::<Payload>(token, &DecodingKey::from_secret(&self.key), &rules)
            .map_err(|source| TokenError::Verify { source })?
            .claims;
        let permissions: Vec<Permission> =
            payload.allow.unwrap_or_default().iter().filter_map(|name| name.parse().ok()).collect();
        // A token cannot be both: whoever reads the one could miss the other.
        let scope = payload.scope.filter(|_| permissions.is_empty());
        let deletes = match &scope {
            Some(Scope::Fetch(scope) | Scope::Lotus(scope)) => {
                scope.verbs.iter().any(|verb| matches!(verb, FetchVerb::Delete | FetchVerb::Remove))
            }
            Some(Scope::Worker { .. } | Scope::Call { .. }) | None => false,
        };
        // One of an earlier version names no issuer.
        if let (true, Some(issuer), Some(own)) = (deletes, payload.issuer, self.issuer)
            && issuer != own
        {
            return Err(TokenError::Issuer { issuer });
        }
        Ok(Grant { permissions, scope })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.key.len())
    }
}

/// The token's payload. Strings and not [`Permission`]s, so that one unknown name does not spoil the others.
#[derive(Serialize, Deserialize)]
struct Payload {
    #[serde(rename = "Allow", default)]
    allow: Option<Vec<String>>,
    #[serde(rename = "Sealyard", default, skip_serializing_if = "Option::is_none")]
    scope: Option<Scope>,
    #[serde(rename = "SealyardIssuer", default, skip_serializing_if = "Option::is_none")]
    issuer: Option<Uuid>,
}

/// A fresh id for a worker's own token.
///
/// # Errors
/// The operating system's source of randomness cannot be read.
pub fn worker_token_id() -> io::Result<Uuid> {
    Ok(uuid::Builder::from_random_bytes(random_bytes::<16>()?).into_uuid())
}

/// Bytes that nobody can guess.
pub(crate) fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A token or permission that is no good.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Not one of the four names.
    #[error("{text:?} is no permission; known are read, write, sign and admin")]
    Permission {
        /// The text as given, cut to 64 characters.
        text: String,
    },
    /// The secret is too short to be safe.
    #[error("a token secret of {length} bytes is too short; at least 16 are needed, Lotus uses 32")]
    ShortSecret {
        /// How many bytes there are.
        length: usize,
    },
    /// The token could not be made.
    #[error("the token cannot be signed")]
    Sign {
        /// Why.
        #[source]
        source: jsonwebtoken::errors::Error,
    },
    /// The token is no token or not ours. The wording begins as Lotus's, which scripts look for.
    #[error("JWT Verification failed: the token was not made with this manager's secret")]
    Verify {
        /// Why.
        #[source]
        source: jsonwebtoken::errors::Error,
    },
    /// A manager from which this one took over, or another that did, wants a file deleted.
    #[error(
        "the token for deleting a file was issued by manager {issuer}, which is not the one that counts here"
    )]
    Issuer {
        /// Who issued it.
        issuer: Uuid,
    },
}

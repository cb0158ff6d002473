//! What can go wrong between a manager and a worker.

pub use sealtasks::chain;

/// A failed call. `Display` is for people; the stable code is [`ApiError::code`].
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Nobody answered: refused, timed out, hung up.
    #[error("{url} cannot be reached")]
    Unreachable {
        /// Whom we asked.
        url: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The token is missing, wrong or does not allow the method.
    #[error("{url} refuses the token (HTTP {status}); use one from `sealyard auth create-token`")]
    Unauthorized {
        /// Whom we asked.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The peer answered with a JSON-RPC error.
    #[error("{message}")]
    Remote {
        /// JSON-RPC code; Lotus's handlers always say 1.
        code: i64,
        /// The peer's words.
        message: String,
    },
    /// The answer could not be understood.
    #[error("{method}: the answer is malformed: {detail}")]
    Malformed {
        /// The method.
        method: String,
        /// What was wrong with it.
        detail: String,
    },
    /// Our own refusal, to be sent to the caller as a handler error.
    #[error("{message}")]
    Refused {
        /// Why, and what would be right.
        message: String,
    },
}

/// JSON-RPC's code.
const METHOD_NOT_FOUND: i64 = -32601;
/// Ours: the caller is, or serves, another manager than the one that counts here. Nothing was done.
pub const FENCED: i32 = -32050;

impl ApiError {
    /// A refusal with this text.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::Refused { message: message.into() }
    }

    /// What a peer says that does not know `method`.
    pub fn unknown_method(method: &str) -> Self {
        Self::Remote { code: METHOD_NOT_FOUND, message: format!("method '{method}' not found") }
    }

    /// Whether the peer does not know the method: it is not a Sealyard, or an older one.
    pub fn is_method_not_found(&self) -> bool {
        matches!(self, Self::Remote { code: METHOD_NOT_FOUND, .. })
    }

    /// Whether the peer serves, or is, another manager than the caller: the call was not even looked at.
    pub fn is_fenced(&self) -> bool {
        matches!(self, Self::Remote { code, .. } if *code == i64::from(FENCED))
    }

    /// Whether no connection came about: the peer cannot have heard of the call.
    pub fn was_not_sent(&self) -> bool {
        self.causes()
            .any(|error| error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_connect))
    }

    /// Whether nobody listens there any more, as the operating system there says. One that does not answer in time may be there.
    pub fn was_refused(&self) -> bool {
        self.causes()
            .filter_map(|error| error.downcast_ref::<std::io::Error>())
            .any(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    }

    /// Why the peer is not reached, from the outermost cause in; empty for every other error.
    fn causes(&self) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
        let outermost: Option<&(dyn std::error::Error + 'static)> = match self {
            Self::Unreachable { source, .. } => Some(source.as_ref()),
            _ => None,
        };
        std::iter::successors(outermost, |error| error.source())
    }

    /// Stable code for scripts and logs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "RPC001",
            Self::Unauthorized { .. } => "RPC002",
            Self::Remote { .. } => "RPC003",
            Self::Malformed { .. } => "RPC004",
            Self::Refused { .. } => "RPC005",
        }
    }
}

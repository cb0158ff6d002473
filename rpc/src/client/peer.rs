//! What kind of peer is at the other end. A Sealyard answers `Sealyard.Hello`; a Lotus does not know the method.

use std::sync::atomic::{AtomicU8, Ordering};

use super::Caller;
use crate::api::ApiResult;
use crate::error::ApiError;
use crate::extension::Hello;

const UNKNOWN: u8 = 0;
const LOTUS: u8 = 1;
const SEALYARD: u8 = 2;

/// A peer and what is known of it.
pub(super) struct Peer {
    pub(super) caller: Caller,
    kind: AtomicU8,
}

impl Peer {
    pub(super) fn new(caller: Caller) -> Self {
        Self { caller, kind: AtomicU8::new(UNKNOWN) }
    }

    /// Introduces us and remembers what the peer is. `None` from a Lotus, or a Sealyard that has no version in common.
    pub(super) async fn hello(&self, hello: Hello) -> ApiResult<Option<Hello>> {
        let answer = match self.caller.call::<_, Option<Hello>>("Sealyard.Hello", &(&hello,)).await {
            Ok(answer) => answer.filter(|theirs| hello.common_version(theirs).is_some()),
            Err(error) if error.is_method_not_found() => None,
            Err(error) => return Err(error),
        };
        self.kind.store(if answer.is_some() { SEALYARD } else { LOTUS }, Ordering::Relaxed);
        Ok(answer)
    }

    /// Whether the peer speaks our extension. Asks it the first time.
    pub(super) async fn is_sealyard(&self) -> ApiResult<bool> {
        match self.kind.load(Ordering::Relaxed) {
            SEALYARD => Ok(true),
            LOTUS => Ok(false),
            _ => Ok(self.hello(Hello::of_this_build(SOFTWARE)).await?.is_some()),
        }
    }

    /// For an answer to one of our own methods: whether the peer, which was a Sealyard, has been replaced by a Lotus.
    pub(super) fn turned_lotus<T>(&self, answer: &ApiResult<T>) -> bool {
        let turned = answer.as_ref().is_err_and(ApiError::is_method_not_found);
        if turned {
            self.kind.store(LOTUS, Ordering::Relaxed);
        }
        turned
    }
}

/// How a client introduces itself when its owner has not.
const SOFTWARE: &str = concat!("sealyard ", env!("CARGO_PKG_VERSION"));

//! Whether this manager's orders count. It is one of a family of managers that took over from one another; what it hears of
//! another reign, from a worker that serves it, may end its own: then it decides nothing more, also after a restart, and can
//! only be looked at. Never: asks anybody.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use rpc::extension::AlertView;
use rpc::server::AuthError;
use rpc::{ApiError, Authenticate, Grant, Permission, Secret};
use sealtasks::{Reign, Relation};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::driver::Input;
use crate::shared::Shared;
use crate::state::{MinerIdentity, State, StateError};

/// The reign, and whether it is over.
pub(crate) struct Standing {
    reign: Reign,
    /// By whom, and since when in Unix milliseconds.
    ended: OnceLock<(Reign, u64)>,
    /// Cancelled when it is over.
    over: CancellationToken,
    /// Cancelled when it is over, or the manager stops.
    acting: CancellationToken,
}

impl Standing {
    /// As the durable state has it. `stopping` is cancelled when the manager stops.
    pub(crate) async fn load(
        state: &State,
        miner: &MinerIdentity,
        secret: &Secret,
        stopping: &CancellationToken,
    ) -> Result<Self, StateError> {
        let takeovers = state.takeovers().await?;
        let reign = Reign { family: family(miner, secret), takeovers, epoch: state.epoch().get() };
        let standing = Self {
            reign,
            ended: OnceLock::new(),
            over: CancellationToken::new(),
            acting: stopping.child_token(),
        };
        if let Some((by, since_ms)) = state.overtaken().await? {
            standing.end(by, since_ms);
        }
        Ok(standing)
    }

    /// This manager's reign.
    pub(crate) const fn reign(&self) -> &Reign {
        &self.reign
    }

    /// Who has taken over.
    pub(crate) fn successor(&self) -> Option<&Reign> {
        self.ended.get().map(|(by, _)| by)
    }

    /// Cancelled when somebody has taken over.
    pub(crate) const fn over(&self) -> &CancellationToken {
        &self.over
    }

    /// Cancelled when nothing may be begun any more.
    pub(crate) const fn acting(&self) -> &CancellationToken {
        &self.acting
    }

    /// What operators must know.
    pub(crate) fn alert(&self) -> Option<AlertView> {
        let (by, since_ms) = self.ended.get()?;
        let (system, subject) = ("manager".to_owned(), "overtaken".to_owned());
        Some(AlertView { system, subject, text: self.words(by), since_ms: *since_ms })
    }

    /// Why nothing is decided here, if nothing is.
    pub(crate) fn refusal(&self) -> Option<ApiError> {
        self.successor().map(|by| ApiError::refused(self.words(by)))
    }

    fn words(&self, by: &Reign) -> String {
        format!(
            "MGR170: this one is {}, and {by} has taken over or is a later start of it; nothing is decided here any more, stop \
             it and ask that one",
            self.reign
        )
    }

    /// Whether that is news.
    fn end(&self, by: Reign, since_ms: u64) -> bool {
        let news = self.ended.set((by, since_ms)).is_ok();
        self.acting.cancel();
        self.over.cancel();
        news
    }
}

/// The same of all managers that have the secrets of one `init`. Those of rehearsals share their beacon.
fn family(miner: &MinerIdentity, secret: &Secret) -> Uuid {
    let mut hasher = blake3::Hasher::new_derive_key("sealyard manager: the family of one init");
    hasher.update(&miner.beacon);
    if miner.beacon == sealtasks::rehearsal::beacon() {
        // A token that is the same whenever it is made.
        hasher.update(secret.mint(&[]).unwrap_or_default().as_bytes());
    }
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    Uuid::from_bytes(bytes)
}

impl Shared {
    /// Hears whom a worker serves.
    ///
    /// # Errors
    /// It is not this manager, nor one from which this one took over: why nothing is taken from that worker, and it is not to
    /// be given anything.
    pub(crate) fn hear_of(&self, theirs: &Reign) -> Result<(), String> {
        let own = self.standing.reign();
        let is_later = match own.relation_of(theirs) {
            Relation::Successor => true,
            // A later start of this manager than this one: its repo was put back to what it was.
            Relation::Same => theirs.epoch > own.epoch,
            // Its worker has not heard of this one yet, or is about to join it.
            Relation::Earlier | Relation::Predecessor | Relation::Stranger => false,
            Relation::Rival => {
                return Err(format!(
                    "MGR171: this worker serves {theirs}, which was made from the same backup as {own}; stop one of the two"
                ));
            }
        };
        if is_later && self.standing.end(theirs.clone(), self.state.now_ms()) {
            tracing::error!(by = %theirs, own = %own, "this manager was taken over and gives no more orders");
            let (inputs, by) = (self.inputs.clone(), theirs.clone());
            self.tasks.spawn(async move { drop(inputs.send(Input::Overtaken { by }).await) });
        }
        match self.standing.successor() {
            Some(by) => Err(self.standing.words(by)),
            None => Ok(()),
        }
    }
}

/// Who may call the manager: its own tokens say, and the reign that a worker serves.
pub(crate) struct Doorkeeper(pub(crate) Arc<Shared>);

#[async_trait]
impl Authenticate for Doorkeeper {
    async fn permissions(&self, token: &str) -> Result<Vec<Permission>, AuthError> {
        Authenticate::permissions(&self.0.secret, token).await
    }

    async fn grant(&self, token: &str) -> Result<Grant, AuthError> {
        Authenticate::grant(&self.0.secret, token).await
    }

    fn admits(&self, theirs: &Reign) -> Result<(), String> {
        self.0.hear_of(theirs)
    }
}

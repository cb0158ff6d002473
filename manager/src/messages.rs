//! Messages to the chain for the sectors that want one: gathered into batches, sent once, waited for through
//! reorganisations. What a sector hears is an event of its pipeline. Never: decides a sector's next state, or sends
//! anything that the operator has not allowed.

mod doubts;
mod flushing;
mod gathered;
mod kept;
mod post;
mod stands;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chain::Lotus;
use chain::params::Method;
use chain::sending::{FileOutbox, Outbox as _, OutboxError, Sending, Stage};
use rpc::explain::UnsentMessage;
use sealtasks::{ChainEpoch, PieceInfo, Proof, SealedCid, SectorId, SectorRef, Seed, UnsealedCid};
use tokio::sync::mpsc;

use flushing::Question;
use kept::Kept;
pub(crate) use post::Post;

/// Wishes that wait to be looked at; beyond, whoever has one waits.
const WISHES_MAX: usize = 4096;

/// Questions to the clerk that wait; beyond, whoever has one waits.
const QUESTIONS_MAX: usize = 16;

/// What a sector wants of the chain.
pub(crate) enum Wish {
    /// A message.
    Send(Box<Wanted>),
    /// To hear how a message ends that was sent.
    Await {
        /// Which sector.
        sector: SectorId,
        /// What the message calls.
        method: Method,
        /// The message's CID.
        message: String,
    },
}

impl Wish {
    /// Whose it is.
    pub(crate) fn sector(&self) -> SectorId {
        match self {
            Self::Send(wanted) => wanted.sector.id,
            Self::Await { sector, .. } => *sector,
        }
    }
}

/// A message that a sector wants on chain.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) sector: SectorRef,
    /// CommR.
    pub(crate) sealed: SealedCid,
    /// The last height at which it can land.
    pub(crate) cutoff: ChainEpoch,
    pub(crate) what: What,
}

/// What it says.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// That the replica exists.
    PreCommit {
        ticket_epoch: ChainEpoch,
        /// CommD; `None` for zeros.
        unsealed: Option<UnsealedCid>,
    },
    /// Its proof.
    Prove {
        /// All of the sector's pieces in order; none for zeros.
        pieces: Vec<PieceInfo>,
        proof: Proof,
        /// What it answers, and its height.
        seed: (Seed, ChainEpoch),
    },
}

/// The post office, as the driver sees it.
pub(crate) struct Messages {
    wishes: mpsc::Sender<Wish>,
    questions: mpsc::Sender<Question>,
    pub(crate) sending: Sending,
    outbox: Arc<Kept>,
    /// What each sector's message waits for, in words.
    notes: Arc<Notes>,
}

#[derive(Default)]
pub(crate) struct Notes(Mutex<BTreeMap<SectorId, Note>>);

/// What is known of a sector's message.
#[derive(Clone, Default)]
struct Note {
    text: String,
    /// As it would be sent, with those of all sectors in it; `None`: it is not made, or not held back by the lack of leave.
    unsent: Option<Arc<UnsentMessage>>,
}

impl Notes {
    /// Whether it is news.
    fn set(&self, sector: SectorId, text: &str) -> bool {
        self.show(sector, text, None)
    }

    /// The same of a message that would be sent.
    fn show(&self, sector: SectorId, text: &str, unsent: Option<Arc<UnsentMessage>>) -> bool {
        let note = Note { text: text.to_owned(), unsent };
        self.notes().insert(sector, note).is_none_or(|before| before.text != text)
    }

    /// Unless something is known already.
    fn set_first(&self, sector: SectorId, text: &str) {
        self.notes().entry(sector).or_insert_with(|| Note { text: text.to_owned(), unsent: None });
    }

    /// Empty: nothing is known.
    fn get(&self, sector: SectorId) -> String {
        self.notes().get(&sector).map(|note| note.text.clone()).unwrap_or_default()
    }

    fn unsent(&self, sector: SectorId) -> Option<Arc<UnsentMessage>> {
        self.notes().get(&sector)?.unsent.clone()
    }

    fn clear(&self, sector: SectorId) {
        self.notes().remove(&sector);
    }

    fn notes(&self) -> MutexGuard<'_, BTreeMap<SectorId, Note>> {
        // Each change is one insertion or removal, so what a panic leaves is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Messages {
    /// The office and its clerk, who begins when he is run.
    pub(crate) fn open(lotus: Arc<Lotus>, outbox: FileOutbox, sending: Sending) -> (Self, Post) {
        let (wishes, waiting) = mpsc::channel(WISHES_MAX);
        let notes = Arc::new(Notes::default());
        let outbox = Arc::new(Kept::new(outbox));
        let (questions, asked) = mpsc::channel(QUESTIONS_MAX);
        let post = Post::new(lotus, outbox.clone(), sending, notes.clone(), (waiting, asked));
        (Self { wishes, questions, sending, outbox, notes }, post)
    }

    /// The first message about this sector whose end is not known. Reads files.
    pub(crate) fn open_message(&self, sector: SectorId) -> Result<Option<String>, OutboxError> {
        let about = |record: &chain::sending::Record| {
            let intent = &record.intent;
            intent.miner == sector.miner && intent.sectors.contains(&sector.number)
        };
        let open = self.outbox.all()?.into_iter().filter(about).find_map(|record| match record.stage {
            Stage::Intended { .. } => Some(record.intent.id.to_string()),
            Stage::Pushed { cid, .. } => Some(cid),
            Stage::Landed { .. } => None,
        });
        Ok(open)
    }

    /// Whether a pre-commitment of this sector was ever meant to be sent from here. May read files.
    pub(crate) fn has_promised(&self, sector: SectorId) -> Result<bool, OutboxError> {
        self.outbox.knows(Method::PreCommitSectorBatch2, sector)
    }

    /// Hands a wish over.
    pub(crate) async fn wish(&self, wish: Wish) {
        // It is watched from now on, however long the clerk is with another.
        self.notes.set_first(wish.sector(), "its message is handed in");
        // Nobody takes it when the manager stops.
        drop(self.wishes.send(wish).await);
    }

    /// Whether a wish of this sector is held, or its message is followed.
    pub(crate) fn watches(&self, sector: SectorId) -> bool {
        self.notes.notes().contains_key(&sector)
    }

    /// What this sector's message waits for; empty: nothing is known.
    pub(crate) fn note(&self, sector: SectorId) -> String {
        self.notes.get(sector)
    }

    /// The sector's message as it would be sent, where only the operator's leave is missing.
    pub(crate) fn unsent(&self, sector: SectorId) -> Option<Box<UnsentMessage>> {
        self.notes.unsent(sector).map(|message| Box::new((*message).clone()))
    }
}

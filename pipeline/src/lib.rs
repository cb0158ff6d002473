//! The life of a sector, with data or of committed capacity, from its beginning to proving, as a pure state machine.
//!
//! [`SectorRecord::next`] says what the sector waits for; whoever drives it does that and tells
//! [`SectorRecord::apply`] what came of it. The record is the durable form: the driver commits it after every event,
//! so a crash loses at most an event that will be told again. States carry Lotus's names; every move between them is
//! a row of [`TRANSITIONS`].
//!
//! This room never touches tokio, a file, a socket, a clock or randomness: the time comes with the events. It does not
//! know workers, attempts or placement; a result that is late or belongs to a superseded attempt is the driver's to
//! refuse.

mod apply;
mod awaited;
mod check;
mod event;
mod expiry;
mod fail;
mod filling;
mod force;
mod pledging;
mod rebuild;
mod record;
mod retry;
mod state;
mod table;

pub use check::RecordError;
pub use event::{SectorEvent, TransitionError};
pub use filling::{DATA_PIECES_MAX, DataPiece, FillingError, fillers, required_padding, without_fillers};
pub use pledging::{BEFORE_PC1_MAX, Hindrance, PathRoom, Pledging, take_room};
pub use rebuild::Refill;
pub use record::{
    OnChain, Progress, RandomnessSource, Rest, SealSeed, SealTicket, SectorCids, SectorRecord, Step,
    StopAfter,
};
pub use retry::{BackOff, Failure, PendingRetry, RetryWhen, back_off};
pub use state::{Outcome, SectorState, StateError};
pub use table::TRANSITIONS;

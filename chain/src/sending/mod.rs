//! Messages to the miner actor: when a batch is due ([`batch`]), what it costs and who pays, and how each is
//! sent exactly once although anything may be killed at any time ([`Courier`]).

pub mod batch;
mod courier;
mod draft;
mod exit_code;
mod outbox;
mod under_way;

pub use courier::{Courier, Nowhere, Outcome, REORGANISED_MAX, Sending, Sight, Submitted};
pub use draft::{Draft, Fees, Payment, SendError, draft_pre_commit, draft_prove_commit, own_payers};
pub use exit_code::ExitCode;
pub use outbox::{FileOutbox, Intent, Outbox, OutboxError, Record, Stage};
pub use under_way::UnderWay;

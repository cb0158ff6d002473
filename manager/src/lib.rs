//! The manager: feeds events to `sched` and `pipeline`, carries out their actions, keeps the durable state, serves the
//! API. Never: proofs, executors, printing; decisions about placement or a sector's next state are made in the pure
//! rooms and only carried out here.

pub mod state;

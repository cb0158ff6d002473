//! `run`: the manager.

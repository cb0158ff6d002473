//! The simulator: whether its clusters behave as the figures that they are built from say.

#[path = "../../benches/planted/bugs.rs"]
mod bugs;
mod cluster;
mod faults;
mod planted;

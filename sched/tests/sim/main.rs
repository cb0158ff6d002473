//! The simulator: whether its clusters behave as the figures that they are built from say.

mod cluster;
mod faults;

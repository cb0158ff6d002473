//! `sealyard simulate`: a capacity planner. A cluster file becomes a [`cluster::Cluster`], that a run of the scheduler's own
//! simulator, and that figures, a table and a chart. What is simulated is the scheduler that the manager uses, fed with
//! the file's times; nothing here talks to a manager, and nothing is measured on this machine.

mod axis;
pub mod bottleneck;
pub mod ceiling;
pub mod cluster;
pub mod figures;
pub mod file;
pub mod gantt;
mod lanes;
mod machine_file;
mod needs_file;
mod published;
mod reader;
pub mod run;
mod simplex;
pub mod table;
pub mod timeline;
mod units;
mod world;

pub use units::span;

#[cfg(test)]
mod mistakes;
#[cfg(test)]
mod tests;

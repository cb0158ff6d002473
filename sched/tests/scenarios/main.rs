//! What the scheduler does, told as stories, and random histories against a slow oracle.

mod deadline;
mod files;
mod life;
mod lotus;
mod lotus_rest;
mod oracle;
mod order;
mod reserve;
mod stage;
mod tables;
mod why;
mod world;

//! What the scheduler does, told as stories, and random histories against a slow oracle.

mod avoid;
mod checks;
mod deadline;
mod files;
mod headroom;
mod life;
mod lotus;
mod lotus_rest;
mod machines;
mod modes;
mod oracle;
mod order;
mod passing;
mod plans;
mod policies;
mod promises;
mod recount;
mod reserve;
mod stage;
mod stagger;
mod stuck;
mod tables;
mod trades;
mod why;
mod world;

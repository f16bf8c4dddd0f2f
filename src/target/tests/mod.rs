//! The target at the level of events, with everything that could take time held.

mod access;
mod barrier;
mod barrier_rules;
mod commands;
mod copies;
mod erase;
mod events;
mod interleavings;
mod kill;
mod medium;
mod mode;
mod nexuses;
mod setup;
mod task_management;
mod task_set;
mod tokens;

//! What the fuzz targets do with their input, as plain functions: libFuzzer calls them with what it makes up (`fuzz_targets/`), and
//! a test replays the inputs that are kept (`tests/corpus.rs`).
//!
//! # Contract
//!
//! * A target takes any bytes. It panics if vstgt does what it must not; that is a finding.
//! * It is a function of its bytes: whatever they are made into (a target, a state directory, a session) is made anew each time.
//! * It is bounded: in steps, in memory, and in time.
//! * Only what vstgt has made public is used. A model, where there is one, is written here and shares nothing with what it is compared to.

mod account;
pub mod cdb;
pub mod chains;
pub mod config;
mod front_end;
pub mod guest;
pub mod image;
pub mod inflight;
pub mod input;
mod service;
pub mod session;
pub mod srp;
pub mod state;

/// A target.
pub type Run = fn(&[u8]);

/// All targets, by name.
pub const TARGETS: &[(&str, Run)] = &[
    ("cdb", cdb::run),
    ("chains", chains::run),
    ("config", config::run),
    ("image", image::run),
    ("inflight", inflight::run),
    ("session", session::run),
    ("srp", srp::run),
    ("state", state::run),
];

//! Loss of power: who writes, what was promised, and an image that logs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, dead_code, reason = "test code")]

pub mod image;
pub mod promises;
#[path = "../storm/random.rs"]
pub mod random;
pub mod writer;

//! The same random commands to two disks, and what they make of them.
//!
//! ```text
//! shapes ─► stream ─(seed, index)─► command ─► sg ─┬─► the disk under test ─┐
//!                                                  └─► its peer ────────────┴─► compare ─► explained
//! ```
//!
//! * [`shapes`] is what commands look like: their fields, data and what they may change. Written apart from vstgt's own table.
//! * [`stream`] draws commands: which one comes at an index depends on the seed and the index alone.
//! * [`sg`] sends one to a disk by `SG_IO` and gives back all that came of it, which [`outcome`] describes.
//! * [`compare`] names each aspect in which two outcomes differ.
//! * [`explained`] is a list of differences that are understood: who is right, by which clause.
//! * [`run`] is the loop, with what it takes to keep both disks in the same state although they differ.
//!
//! The loop is a program of its own, `differential`, that runs inside a guest: a test hands it over, with the list, and reads its report.

pub mod compare;
pub mod explained;
pub mod outcome;
pub mod random;
pub mod run;
pub mod sg;
pub mod shapes;
pub mod stream;

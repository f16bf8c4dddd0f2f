//! Events in the C layout of `struct tgt_event`.

/// `sizeof(struct tgt_event)` on an LP64 machine.
pub const EVENT_SIZE: usize = 64;

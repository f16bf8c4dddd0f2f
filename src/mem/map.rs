//! One front-end's memory table at one moment.

/// One region of guest memory, mapped.
#[derive(Debug)]
pub struct Region {}

/// Why a region was refused.
#[derive(Debug, thiserror::Error)]
pub enum RegionError {}

/// One front-end's memory at one moment: immutable, its regions sorted by guest physical address.
#[derive(Debug, Default)]
pub struct MemoryMap {}

//! Data-buffer descriptors (SRP r16a 5.5).

/// A direct data-buffer descriptor; 16 bytes on the wire, big-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectDescriptor {
    /// Virtual address: here a guest physical address.
    pub va: u64,
    /// Memory handle: here always 0, a front-end has one memory map.
    pub key: u32,
    /// Length in bytes.
    pub len: u32,
}

//! SRP port identifiers.
//!
//! An SRP port is named by 16 bytes: an 8-byte identifier extension and an 8-byte GUID. Here both are derived from the
//! configured name of the port, by a rule that is **frozen** (persistent reservations remember initiator ports by it):
//!
//! > The identifier is the 128-bit FNV-1a hash, big-endian, of one byte for the role (`I` for an initiator port, `T` for a
//! > target port), a zero byte, and the bytes of the name.
//!
//! So a name gives the same identifier in every run and on every host, and an initiator and a target of one name differ.

/// A 16-byte SRP port identifier: identifier extension, then GUID.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub [u8; 16]);

impl PortId {
    /// The identifier of the initiator port of this name.
    pub fn of_initiator(name: &str) -> PortId {
        PortId::derive(b'I', name)
    }

    /// The identifier of the target port of this name.
    pub fn of_target(name: &str) -> PortId {
        PortId::derive(b'T', name)
    }

    /// IDENTIFIER EXTENSION: the first half.
    pub fn extension(&self) -> u64 {
        (u128::from_be_bytes(self.0) >> 64) as u64
    }

    /// GUID: the second half.
    pub fn guid(&self) -> u64 {
        u128::from_be_bytes(self.0) as u64
    }

    fn derive(role: u8, name: &str) -> PortId {
        let bytes = [role, 0].into_iter().chain(name.bytes());
        PortId(fnv1a(bytes).to_be_bytes())
    }
}

impl std::fmt::Debug for PortId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::fmt::Display for PortId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}:{:016x}", self.extension(), self.guid())
    }
}

/// FNV-1a with its 128-bit parameters.
fn fnv1a(bytes: impl Iterator<Item = u8>) -> u128 {
    const OFFSET_BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.fold(OFFSET_BASIS, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv1a_128() {
        // Published test vectors of the function.
        assert_eq!(fnv1a(b"".iter().copied()), 0x6c62272e07bb014262b821756295c58d);
        assert_eq!(fnv1a(b"a".iter().copied()), 0xd228cb696f1a8caf78912b704e4a8964);
        assert_eq!(fnv1a(b"foobar".iter().copied()), 0x343e1662793c64bf6f0d3597ba446f18);
    }
}

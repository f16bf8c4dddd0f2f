//! A command descriptor block whose length is proven by its operation code (SPC-4 4.2).

use super::FieldPointer;

/// Length of the longest CDB, a variable-length one with ADDITIONAL CDB LENGTH 252 (SPC-4 4.2.3).
pub const MAX_CDB_LENGTH: usize = 260;

/// Operation code of a variable-length CDB.
pub const VARIABLE_LENGTH: u8 = 0x7f;

/// A CDB with exactly the bytes its operation code asks for.
///
/// Transports hand over more (virtio-scsi always 32 bytes); what follows the CDB is not part of it. The accessors read
/// big-endian fields and cannot panic: a byte past the end reads as zero, and decoders only ask for bytes that their
/// row of the table says are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cdb<'a> {
    bytes: &'a [u8],
}

impl<'a> Cdb<'a> {
    /// Cuts the CDB out of what arrived; `None` if too little did, or if the operation code's group has no length (3 but
    /// for [`VARIABLE_LENGTH`], 6 and 7).
    pub fn new(bytes: &'a [u8]) -> Option<Cdb<'a>> {
        let bytes = bytes.get(..length(bytes)?)?;
        Some(Cdb { bytes })
    }

    /// All its bytes.
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// OPERATION CODE.
    pub fn opcode(self) -> u8 {
        self.u8(0)
    }

    /// SERVICE ACTION where this format has it: bytes 8–9 of a variable-length CDB, else the low five bits of byte 1.
    pub fn service_action(self) -> u16 {
        match self.opcode() {
            VARIABLE_LENGTH => self.u16(8),
            _ => u16::from(self.u8(1) & 0x1f),
        }
    }

    /// Where [`Cdb::service_action`] is, for a field pointer.
    pub fn service_action_field(self) -> FieldPointer {
        match self.opcode() {
            VARIABLE_LENGTH => FieldPointer::cdb(8, 7),
            _ => FieldPointer::cdb(1, 4),
        }
    }

    /// Where CONTROL is: byte 1 of a variable-length CDB, else the last byte.
    pub fn control_byte(self) -> usize {
        match self.opcode() {
            VARIABLE_LENGTH => 1,
            _ => self.bytes.len() - 1,
        }
    }

    /// NACA of CONTROL (SAM-5 5.2).
    pub fn naca(self) -> bool {
        self.bit(self.control_byte(), 2)
    }

    /// The byte at `at`.
    pub fn u8(self, at: usize) -> u8 {
        self.field::<1>(at)[0]
    }

    /// Bit `bit` (7 is the most significant) of the byte at `at`.
    pub fn bit(self, at: usize, bit: u8) -> bool {
        self.u8(at).checked_shr(u32::from(bit)).unwrap_or(0) & 1 == 1
    }

    /// Two bytes.
    pub fn u16(self, at: usize) -> u16 {
        u16::from_be_bytes(self.field(at))
    }

    /// Four bytes.
    pub fn u32(self, at: usize) -> u32 {
        u32::from_be_bytes(self.field(at))
    }

    /// Eight bytes.
    pub fn u64(self, at: usize) -> u64 {
        u64::from_be_bytes(self.field(at))
    }

    fn field<const N: usize>(self, at: usize) -> [u8; N] {
        let bytes = at.checked_add(N).and_then(|end| self.bytes.get(at..end));
        bytes.and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
    }
}

/// How long the CDB is that begins these bytes (SPC-4 table 20).
fn length(bytes: &[u8]) -> Option<usize> {
    let opcode = *bytes.first()?;
    match opcode >> 5 {
        0 => Some(6),
        1 | 2 => Some(10),
        3 if opcode == VARIABLE_LENGTH => match usize::from(*bytes.get(7)?) {
            additional if additional % 4 == 0 && additional > 0 => Some(8 + additional),
            _ => None,
        },
        4 => Some(16),
        5 => Some(12),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_code_proves_the_length() {
        let mut bytes = [0; 32];
        for (opcode, length) in
            [(0x00, 6), (0x1f, 6), (0x20, 10), (0x5f, 10), (0x80, 16), (0x9f, 16), (0xa0, 12), (0xbf, 12)]
        {
            bytes[0] = opcode;
            assert_eq!(Cdb::new(&bytes).unwrap().bytes().len(), length, "{opcode:02x}");
            assert_eq!(Cdb::new(&bytes[..length]).unwrap().bytes().len(), length);
            assert_eq!(Cdb::new(&bytes[..length - 1]), None);
        }
        for opcode in [0x60, 0x7e, 0xc0, 0xff] {
            bytes[0] = opcode;
            assert_eq!(Cdb::new(&bytes), None);
        }
        assert_eq!(Cdb::new(&[]), None);
    }

    #[test]
    fn a_variable_length_cdb_says_its_length() {
        let mut bytes = [0; 300];
        bytes[0] = 0x7f;
        assert_eq!(Cdb::new(&bytes[..7]), None);
        assert_eq!(Cdb::new(&bytes), None);
        bytes[7] = 0x18;
        assert_eq!(Cdb::new(&bytes).unwrap().bytes().len(), 32);
        bytes[7] = 0x17;
        assert_eq!(Cdb::new(&bytes), None);
        bytes[7] = 252;
        bytes[1] = 0x04;
        bytes[9] = 0x0b;
        let cdb = Cdb::new(&bytes).unwrap();
        assert_eq!(cdb.bytes().len(), MAX_CDB_LENGTH);
        assert_eq!(cdb.service_action(), 0x000b);
        assert!(cdb.naca());
        assert_eq!(Cdb::new(&bytes[..MAX_CDB_LENGTH - 1]), None);
    }

    #[test]
    fn fields_are_big_endian_and_end_with_the_cdb() {
        let bytes = [0x28, 0x08, 0x01, 0x02, 0x03, 0x04, 0x00, 0x05, 0x06, 0x04, 0xff, 0xff];
        let cdb = Cdb::new(&bytes).unwrap();
        assert_eq!((cdb.u32(2), cdb.u16(7), cdb.u8(1)), (0x0102_0304, 0x0506, 8));
        assert!(cdb.bit(1, 3) && !cdb.bit(1, 4) && !cdb.bit(1, 200));
        assert!(cdb.naca());
        assert_eq!((cdb.u8(10), cdb.u64(8), cdb.u16(usize::MAX)), (0, 0, 0));
        assert_eq!(cdb.service_action(), 0x08);
    }
}

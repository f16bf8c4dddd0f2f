//! Parameter data: written whole, cut to the allocation length in one place.

/// The data that a command returns, before the allocation length is applied.
///
/// Length fields inside it are always those of the whole, whatever is cut off later (SPC-4 4.2.5.6). All integers are
/// big-endian.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParameterData {
    bytes: Vec<u8>,
}

impl ParameterData {
    /// Nothing yet.
    pub fn new() -> ParameterData {
        ParameterData::default()
    }

    /// What goes to the initiator: at most `allocation_length` bytes of it.
    pub fn truncated(mut self, allocation_length: u32) -> Vec<u8> {
        self.bytes.truncate(usize::try_from(allocation_length).unwrap_or(usize::MAX));
        self.bytes
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How much was written.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Writes one byte.
    pub fn u8(&mut self, value: u8) -> &mut ParameterData {
        self.raw(&[value])
    }

    /// Writes two bytes.
    pub fn u16(&mut self, value: u16) -> &mut ParameterData {
        self.raw(&value.to_be_bytes())
    }

    /// Writes the low 24 bits.
    pub fn u24(&mut self, value: u32) -> &mut ParameterData {
        self.raw(&value.to_be_bytes()[1..])
    }

    /// Writes four bytes.
    pub fn u32(&mut self, value: u32) -> &mut ParameterData {
        self.raw(&value.to_be_bytes())
    }

    /// Writes eight bytes.
    pub fn u64(&mut self, value: u64) -> &mut ParameterData {
        self.raw(&value.to_be_bytes())
    }

    /// Writes `count` zeros.
    pub fn zeros(&mut self, count: usize) -> &mut ParameterData {
        self.bytes.resize(self.bytes.len() + count, 0);
        self
    }

    /// Writes bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut ParameterData {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Writes ASCII data: left-aligned in `width` bytes, padded with spaces, cut if longer; what is not printable ASCII
    /// becomes a space (SPC-4 4.3.1).
    pub fn ascii(&mut self, text: &str, width: usize) -> &mut ParameterData {
        self.text(text, width, b' ')
    }

    /// As [`ParameterData::ascii`], padded with zeros.
    pub fn ascii_nul(&mut self, text: &str, width: usize) -> &mut ParameterData {
        self.text(text, width, 0)
    }

    fn text(&mut self, text: &str, width: usize, padding: u8) -> &mut ParameterData {
        let printable = text.bytes().map(|byte| if matches!(byte, 0x20..=0x7e) { byte } else { b' ' });
        self.bytes.extend(printable.chain(std::iter::repeat(padding)).take(width));
        self
    }

    /// Writes a one-byte length field and what it counts.
    pub fn counted_u8(&mut self, write: impl FnOnce(&mut ParameterData)) -> &mut ParameterData {
        self.counted::<1>(write)
    }

    /// Writes a two-byte length field and what it counts.
    pub fn counted_u16(&mut self, write: impl FnOnce(&mut ParameterData)) -> &mut ParameterData {
        self.counted::<2>(write)
    }

    /// Writes a four-byte length field and what it counts.
    pub fn counted_u32(&mut self, write: impl FnOnce(&mut ParameterData)) -> &mut ParameterData {
        self.counted::<4>(write)
    }

    /// A length that does not fit its field becomes the greatest that does.
    fn counted<const WIDTH: usize>(&mut self, write: impl FnOnce(&mut ParameterData)) -> &mut ParameterData {
        let field = self.bytes.len();
        self.zeros(WIDTH);
        write(self);
        let length = (self.bytes.len() - field - WIDTH) as u64;
        let greatest = u64::MAX >> (64 - 8 * WIDTH);
        let length = length.min(greatest).to_be_bytes();
        if let Some(field) = self.bytes.get_mut(field..field + WIDTH) {
            field.copy_from_slice(&length[8 - WIDTH..]);
        }
        self
    }
}

/// Reads the big-endian integer of `N` bytes at `at`; `None` past the end.
pub fn be_bytes<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_count_what_follows_them() {
        let mut data = ParameterData::new();
        data.u8(0x80).counted_u16(|data| {
            data.u24(0x0a_0b_0c).counted_u8(|data| {
                data.ascii("ab", 4);
            });
        });
        data.counted_u32(|_| ());
        assert_eq!(data.bytes(), [0x80, 0, 8, 0x0a, 0x0b, 0x0c, 4, b'a', b'b', b' ', b' ', 0, 0, 0, 0]);
    }

    #[test]
    fn a_length_too_great_for_its_field_saturates() {
        let mut data = ParameterData::new();
        data.counted_u8(|data| {
            data.zeros(300);
        });
        assert_eq!(data.bytes()[0], 255);
        assert_eq!(data.len(), 301);
    }

    #[test]
    fn ascii_is_padded_cut_and_printable() {
        let mut data = ParameterData::new();
        data.ascii("IBM", 8).ascii("ä\n0123456789", 6);
        assert_eq!(data.bytes(), *b"IBM        012");
    }

    #[test]
    fn truncation_leaves_the_length_fields_alone() {
        let mut data = ParameterData::new();
        data.counted_u16(|data| {
            data.u64(1);
        });
        assert_eq!(data.clone().truncated(4), [0, 8, 0, 0]);
        assert_eq!(data.clone().truncated(0), []);
        assert_eq!(data.truncated(u32::MAX).len(), 10);
    }
}

//! TransportIDs of SRP (SPC-4 7.6.4.6): the name of an initiator port in parameter data.

use super::{ParameterData, be_bytes};

/// Length of an SRP TransportID in bytes.
pub const TRANSPORT_ID_LENGTH: usize = 24;

/// FORMAT CODE 00b and PROTOCOL IDENTIFIER 4h.
const SRP: u8 = 0x04;

/// The initiator port identifier of an SRP initiator port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransportId(pub [u8; 16]);

impl TransportId {
    /// The TransportID at the beginning of `bytes`.
    ///
    /// # Errors
    ///
    /// The offset of the first byte that an SRP TransportID does not have: another format or protocol, a reserved byte that is
    /// not zero, or where the bytes end too early.
    pub fn parse(bytes: &[u8]) -> Result<TransportId, usize> {
        let mut head = bytes.iter().take(8).enumerate();
        let wrong = head.find(|(at, byte)| **byte != if *at == 0 { SRP } else { 0 });
        if let Some((at, _)) = wrong {
            return Err(at);
        }
        be_bytes(bytes, 8).map(TransportId).ok_or(bytes.len())
    }

    /// Writes its 24 bytes.
    pub fn write(self, data: &mut ParameterData) {
        data.u8(SRP).zeros(7).raw(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; 16] = *b"\xfe\x80\0\0\0\0\0\x01\x02\x03\x04\x05\x06\x07\x08\x09";

    /// SPC-4 table 483: byte 0 04h, bytes 1–7 reserved, bytes 8–23 the initiator port identifier.
    #[test]
    fn the_port_identifier_is_in_bytes_8_to_23() {
        let mut data = ParameterData::new();
        TransportId(ID).write(&mut data);
        assert_eq!(
            data.bytes(),
            [
                0x04, 0, 0, 0, 0, 0, 0, 0, //
                0xfe, 0x80, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9,
            ]
        );
        assert_eq!(data.len(), TRANSPORT_ID_LENGTH);
        assert_eq!(TransportId::parse(data.bytes()), Ok(TransportId(ID)));
        let followed = [data.bytes(), &[0xff]].concat();
        assert_eq!(TransportId::parse(&followed), Ok(TransportId(ID)));
    }

    #[test]
    fn what_is_no_srp_transport_id_is_refused_at_its_first_wrong_byte() {
        let mut data = ParameterData::new();
        TransportId(ID).write(&mut data);
        for (at, byte) in [(0, 0x05), (0, 0x00), (0, 0x06), (0, 0x44), (0, 0x14), (1, 1), (4, 0x80), (7, 1)] {
            let mut bytes = data.bytes().to_vec();
            bytes[at] = byte;
            assert_eq!(TransportId::parse(&bytes), Err(at), "{at} {byte:02x}");
        }
        for length in 0..TRANSPORT_ID_LENGTH {
            assert_eq!(TransportId::parse(&data.bytes()[..length]), Err(length));
        }
    }
}

//! REPORT TIMESTAMP and SET TIMESTAMP parameter data (SPC-4 6.38, 6.46).

use crate::scsi::{AdditionalSense, FieldPointer, ParameterData, Sense, be_bytes};

/// Length of the parameter list of SET TIMESTAMP in bytes.
pub const SET_TIMESTAMP_LENGTH: u16 = 12;

/// TIMESTAMP ORIGIN, as far as vstgt has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TimestampOrigin {
    /// 010b: SET TIMESTAMP set it.
    SetTimestamp = 0b010,
    /// 011b: something else did.
    OutsideMeans = 0b011,
}

/// The parameter data of REPORT TIMESTAMP; `milliseconds` since 1970-01-01 00:00 UT, of which 48 bits are reported.
pub fn report_timestamp(origin: TimestampOrigin, milliseconds: u64) -> ParameterData {
    let mut data = ParameterData::new();
    data.counted_u16(|data| {
        data.u8(origin as u8).u8(0).raw(&milliseconds.to_be_bytes()[2..]).zeros(2);
    });
    data
}

/// The milliseconds in a parameter list of SET TIMESTAMP; `None` for an empty list, which changes nothing.
///
/// # Errors
///
/// PARAMETER LIST LENGTH ERROR for a list that ends before its fields do; INVALID FIELD IN PARAMETER LIST for a
/// reserved byte that is not zero.
pub fn set_timestamp(list: &[u8]) -> Result<Option<u64>, Sense> {
    if list.is_empty() {
        return Ok(None);
    }
    let bytes: [u8; 12] =
        be_bytes(list, 0).ok_or(Sense::illegal_request(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR))?;
    let [0, 0, 0, 0, a, b, c, d, e, f, 0, 0] = bytes else {
        let reserved = [0, 1, 2, 3, 10, 11].into_iter().find(|at| bytes.get(*at).is_some_and(|byte| *byte != 0));
        let field = FieldPointer::parameter_list(reserved.unwrap_or(0) as u16, 7);
        return Err(Sense::invalid_field_in_parameter_list(field));
    };
    Ok(Some(u64::from_be_bytes([0, 0, a, b, c, d, e, f])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_length_origin_and_48_bits() {
        let data = report_timestamp(TimestampOrigin::SetTimestamp, 0x1234_5678_9abc_def0);
        assert_eq!(data.bytes(), [0, 10, 0b010, 0, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0, 0, 0]);
    }

    #[test]
    fn takes_48_bits_and_no_stray_ones() {
        let list = [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 0, 0];
        assert_eq!(set_timestamp(&list), Ok(Some(0x0102_0304_0506)));
        assert_eq!(set_timestamp(&[]), Ok(None));
        for length in 1..12 {
            assert_eq!(set_timestamp(&list[..length]).unwrap_err().code.0, 0x1a00);
        }
        for at in [0, 1, 2, 3, 10, 11] {
            let mut list = list;
            list[at] = 1;
            let sense = set_timestamp(&list).unwrap_err();
            assert_eq!((sense.code.0, sense.field), (0x2600, Some(FieldPointer::parameter_list(at as u16, 7))));
        }
    }
}

//! READ DEFECT DATA.

use super::transfer::parameter_data;
use super::{Planned, Task};
use crate::scsi::ParameterData;

/// READ DEFECT DATA (SBC-3 5.17, 5.18). What is bad below the image is the host's affair: both lists are there, and empty,
/// in whatever format was asked for.
pub(super) fn read<'a>(
    task: Task<'a, '_>,
    twelve: bool,
    plist: bool,
    glist: bool,
    format: u8,
    allocation_length: u32,
) -> Planned<'a> {
    let mut data = ParameterData::new();
    data.u8(0).u8(u8::from(plist) << 4 | u8::from(glist) << 3 | format);
    match twelve {
        false => data.u16(0),
        // GENERATION CODE 0: the list never changes.
        true => data.u16(0).u32(0),
    };
    parameter_data(task.buf, data, allocation_length)
}

#[cfg(test)]
mod tests {
    use crate::device_server::testkit::{Bench, MemImage, check, good};
    use crate::scsi::{AdditionalSense, FieldPointer, Sense, SenseKey};

    fn bench() -> Bench {
        Bench::new(MemImage::patterned(51_200))
    }

    #[test]
    fn empty_lists_in_the_format_asked_for() {
        let b = bench();
        for format in 0..=5 {
            for lists in [0x00, 0x08, 0x10, 0x18] {
                let ten = b.data_in(&[0x37, 0, lists | format, 0, 0, 0, 0, 0, 64, 0], 64);
                assert_eq!((ten.answer, &ten.data[..4]), (good(4), &[0, lists | format, 0, 0][..]));
                let twelve = b.data_in(&[0xb7, lists | format, 0, 0, 0, 9, 0, 0, 0, 64, 0, 0], 64);
                assert_eq!((twelve.answer, &twelve.data[..8]), (good(8), &[0, lists | format, 0, 0, 0, 0, 0, 0][..]));
            }
        }
    }

    #[test]
    fn allocation_lengths() {
        let b = bench();
        for (length, ten, twelve) in [(0, 0, 0), (1, 1, 1), (4, 4, 4), (8, 4, 8), (9, 4, 8)] {
            let ran = b.data_in(&[0x37, 0, 0x18, 0, 0, 0, 0, 0, length, 0], 64);
            assert_eq!(ran.answer, good(ten));
            assert!(ran.data[ten as usize..].iter().all(|byte| *byte == 0xee));
            assert_eq!(b.data_in(&[0xb7, 0x18, 0, 0, 0, 0, 0, 0, 0, length, 0, 0], 64).answer, good(twelve));
        }
    }

    #[test]
    fn other_formats_and_bits() {
        let b = bench();
        let refused = |byte, bit| {
            let sense = Sense::new(SenseKey::IllegalRequest, AdditionalSense(0x2400));
            check(sense.with_field(FieldPointer::cdb(byte, bit)))
        };
        for format in [6, 7] {
            assert_eq!(b.data_in(&[0x37, 0, format, 0, 0, 0, 0, 0, 4, 0], 4).answer, refused(2, 2));
            assert_eq!(b.data_in(&[0xb7, format, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], 8).answer, refused(1, 2));
        }
        assert_eq!(b.data_in(&[0x37, 0, 0x20, 0, 0, 0, 0, 0, 4, 0], 4).answer, refused(2, 5));
        assert_eq!(b.data_in(&[0xb7, 0x20, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], 8).answer, refused(1, 5));
    }
}

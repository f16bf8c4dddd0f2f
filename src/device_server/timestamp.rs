//! REPORT TIMESTAMP and SET TIMESTAMP.

use super::transfer::{parameter_data, parameter_list};
use super::{Answer, Planned, Task};
use crate::lu::Attention;
use crate::scsi::spc::{self as data, SET_TIMESTAMP_LENGTH};
use crate::scsi::{FieldPointer, Sense};

/// REPORT TIMESTAMP (SPC-4 6.38).
pub(super) fn report<'a>(task: Task<'a, '_>, allocation_length: u32) -> Planned<'a> {
    let (origin, milliseconds) = task.itl.lu().records(|records| records.clock.now());
    parameter_data(task.buf, data::report_timestamp(origin, milliseconds), allocation_length)
}

/// SET TIMESTAMP (SPC-4 6.46). All nexuses but this one are told: TIMESTAMP CHANGED. The clock outlives the
/// process, if its unit is kept; a host that starts anew has its own again.
pub(super) fn set<'a>(task: Task<'a, '_>, parameter_list_length: u32) -> Planned<'a> {
    let length = u16::try_from(parameter_list_length).ok().filter(|length| *length <= SET_TIMESTAMP_LENGTH);
    let length = length.ok_or(Sense::invalid_field_in_cdb(FieldPointer::cdb(6, 7)))?;
    let list = parameter_list(task.buf, length)?;
    let lu = task.itl.lu();
    if let Some(milliseconds) = data::set_timestamp(&list)? {
        lu.records(|records| records.clock.set(milliseconds));
        lu.establish(Attention::TimestampChanged, Some(task.itl));
    }
    Ok(Answer::good(u64::from(length)).into())
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use crate::device_server::testkit::{Bench, MemImage, check, good};
    use crate::lu::Attention;
    use crate::scsi::{AdditionalSense, FieldPointer, Sense, SenseKey};

    /// REPORT TIMESTAMP A3h/0Fh: bytes 6–9 allocation length.
    const fn report(length: u8) -> [u8; 12] {
        [0xa3, 0x0f, 0, 0, 0, 0, 0, 0, 0, length, 0, 0]
    }

    /// SET TIMESTAMP A4h/0Fh: bytes 6–9 parameter list length.
    const fn set(length: u8) -> [u8; 12] {
        [0xa4, 0x0f, 0, 0, 0, 0, 0, 0, 0, length, 0, 0]
    }

    fn bench() -> Bench {
        Bench::new(MemImage::patterned(51_200))
    }

    fn milliseconds(data: &[u8]) -> u64 {
        data[4..10].iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    fn illegal(code: u16) -> Sense {
        Sense::new(SenseKey::IllegalRequest, AdditionalSense(code))
    }

    #[test]
    fn at_first_it_is_the_hosts() {
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        let ran = bench().data_in(&report(12), 12);
        let after = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        assert_eq!(ran.answer, good(12));
        assert_eq!(ran.data[..4], [0, 10, 0b011, 0]);
        assert!((before..=after).contains(&milliseconds(&ran.data)));
        assert_eq!(ran.data[10..], [0, 0]);
    }

    #[test]
    fn allocation_lengths() {
        let b = bench();
        for (length, moved) in [(0, 0), (1, 1), (11, 11), (12, 12), (13, 12), (255, 12)] {
            let ran = b.data_in(&report(length), 300);
            assert_eq!(ran.answer, good(moved), "{length}");
            assert!(ran.data[moved as usize..].iter().all(|byte| *byte == 0xee));
        }
    }

    #[test]
    fn setting_it_makes_it_run_from_there_and_tells_the_others() {
        let b = bench();
        let other = crate::device_server::testkit::nexus_of(b.itl.lu().clone(), None);
        assert_eq!(b.data_out(&set(12), &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]), good(12));
        let ran = b.data_in(&report(12), 12);
        assert_eq!(ran.data[2], 0b010);
        assert!((0x1_0000..0x1_0000 + 60_000).contains(&milliseconds(&ran.data)));
        assert_eq!(other.gate().take_attention(), Some(Attention::TimestampChanged));
        assert_eq!(b.itl.gate().take_attention(), None);
        b.itl.lu().reset();
        b.itl.gate().take_attention();
        assert_eq!(b.data_in(&report(12), 12).data[2], 0b010, "a reset does not take it away");
    }

    #[test]
    fn what_is_not_a_timestamp_sets_nothing() {
        let b = bench();
        assert_eq!(b.none(&set(0)), good(0));
        assert_eq!(b.data_out(&set(11), &[0; 11]), check(illegal(0x1a00)));
        assert_eq!(b.data_out(&set(13), &[0; 13]), check(illegal(0x2400).with_field(FieldPointer::cdb(6, 7))));
        let mut long = set(12);
        long[7] = 1;
        assert_eq!(b.data_out(&long, &[0; 12]), check(illegal(0x2400).with_field(FieldPointer::cdb(6, 7))));
        let stray = illegal(0x2600).with_field(FieldPointer::parameter_list(3, 7));
        assert_eq!(b.data_out(&set(12), &[0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0]), check(stray));
        assert_eq!(b.data_out(&set(12), &[0; 8]), good(12), "overflow");
        assert_eq!(b.data_in(&report(12), 12).data[2], 0b011);
    }
}

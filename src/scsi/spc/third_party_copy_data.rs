//! What a copy manager says of itself and of copies: the Third-party Copy VPD page (SPC-4 7.8.17), and the parameter data of RECEIVE COPY
//! OPERATING PARAMETERS, STATUS(LID1) and FAILURE DETAILS(LID1).

use super::{Peripheral, vpd, vpd_page};
use crate::scsi::ParameterData;

/// What a copy manager takes in one EXTENDED COPY, and at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyLimits {
    /// MAXIMUM CSCD DESCRIPTOR COUNT.
    pub cscd_descriptors: u16,
    /// MAXIMUM SEGMENT DESCRIPTOR COUNT.
    pub segment_descriptors: u16,
    /// MAXIMUM DESCRIPTOR LIST LENGTH: CSCD and segment descriptors together, in bytes.
    pub descriptor_list_length: u32,
    /// MAXIMUM SEGMENT LENGTH in bytes.
    pub segment_length: u32,
    /// MAXIMUM INLINE DATA LENGTH in bytes; 0: none is taken.
    pub inline_data_length: u32,
    /// MAXIMUM CONCURRENT COPIES with list identifiers, of one nexus.
    pub concurrent: u8,
    /// The type codes of the descriptors that are known, ascending.
    pub descriptors: &'static [u8],
    /// The CSCD descriptor IDs above 07FFh that are known, ascending.
    pub cscd_ids: &'static [u16],
}

/// Adds a descriptor of the Third-party Copy VPD page; `write` adds what follows its length. It is filled up to a multiple of four bytes.
pub fn third_party_copy_descriptor(data: &mut ParameterData, kind: u16, write: impl FnOnce(&mut ParameterData)) {
    data.u16(kind).counted_u16(|data| {
        let start = data.len();
        write(data);
        data.zeros((data.len() - start).next_multiple_of(4) - (data.len() - start));
    });
}

/// Page 8Fh (SPC-4 7.8.17) of a copy manager with these limits and these commands: operation codes, each with its service actions. `first` adds
/// descriptors of type 0000h, `more` those of types between 000Ch and 8001h.
pub fn third_party_copy(
    peripheral: Peripheral,
    limits: &CopyLimits,
    commands: &[(u8, Vec<u8>)],
    first: impl FnOnce(&mut ParameterData),
    more: impl FnOnce(&mut ParameterData),
) -> ParameterData {
    vpd(peripheral, vpd_page::THIRD_PARTY_COPY, |data| {
        first(data);
        // Supported Commands.
        third_party_copy_descriptor(data, 0x0001, |data| {
            data.counted_u8(|data| {
                for (opcode, service_actions) in commands {
                    data.u8(*opcode).counted_u8(|data| {
                        data.raw(service_actions);
                    });
                }
            });
        });
        // Parameter Data.
        third_party_copy_descriptor(data, 0x0004, |data| {
            data.zeros(4).u16(limits.cscd_descriptors).u16(limits.segment_descriptors);
            data.u32(limits.descriptor_list_length).u32(limits.inline_data_length).zeros(12);
        });
        // Supported Descriptors.
        third_party_copy_descriptor(data, 0x0008, |data| {
            data.counted_u8(|data| {
                data.raw(limits.descriptors);
            });
        });
        // Supported CSCD Descriptor IDs.
        third_party_copy_descriptor(data, 0x000c, |data| {
            data.counted_u16(|data| {
                for id in limits.cscd_ids {
                    data.u16(*id);
                }
            });
        });
        more(data);
        // General Copy Operations. How many copies run at one time is not limited for the whole of it.
        third_party_copy_descriptor(data, 0x8001, |data| {
            data.u32(0).u32(u32::from(limits.concurrent)).u32(limits.segment_length);
            data.u8(GRANULARITY).u8(0).zeros(18);
        });
        // Held Data: none is held.
        third_party_copy_descriptor(data, 0xc001, |data| {
            data.u32(0).u8(0).zeros(23);
        });
    })
}

/// DATA SEGMENT GRANULARITY: segments are multiples of 2 to this power of bytes, which every block length is.
const GRANULARITY: u8 = 9;

/// RECEIVE COPY OPERATING PARAMETERS (SPC-4 6.22).
pub fn copy_operating_parameters(limits: &CopyLimits) -> ParameterData {
    let mut data = ParameterData::new();
    data.counted_u32(|data| {
        // SNLID: a list need not have an identifier.
        data.u8(0x01).zeros(3);
        data.u16(limits.cscd_descriptors).u16(limits.segment_descriptors).u32(limits.descriptor_list_length);
        data.u32(limits.segment_length).u32(limits.inline_data_length);
        // HELD DATA LIMIT, MAXIMUM STREAM DEVICE TRANSFER SIZE.
        data.u32(0).u32(0);
        // TOTAL CONCURRENT COPIES: see the General Copy Operations descriptor.
        data.zeros(2).u16(0).u8(limits.concurrent);
        data.u8(GRANULARITY).u8(0).u8(0).zeros(3);
        data.counted_u8(|data| {
            data.raw(limits.descriptors);
        });
    });
    data
}

/// COPY MANAGER STATUS (SPC-4 table 180).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyManagerStatus {
    /// 00h.
    InProgress = 0x00,
    /// 01h.
    Completed = 0x01,
    /// 02h: with errors.
    Failed = 0x02,
}

/// RECEIVE COPY STATUS(LID1) (SPC-4 6.25). HDD is one: there is no data that could be received.
pub fn copy_status(status: CopyManagerStatus, segments: u16, bytes: u64) -> ParameterData {
    let mut data = ParameterData::new();
    let (units, count) = transfer_count(bytes);
    data.counted_u32(|data| {
        data.u8(0x80 | status as u8).u16(segments).u8(units).u32(count);
    });
    data
}

/// TRANSFER COUNT UNITS and TRANSFER COUNT (SPC-4 table 181): bytes, KiB, MiB …, whichever is the finest that fits; rounded down.
fn transfer_count(bytes: u64) -> (u8, u32) {
    let fits = |unit: &u8| u32::try_from(bytes >> (10 * unit)).is_ok();
    let unit = (0u8..4).find(fits).unwrap_or(4);
    (unit, u32::try_from(bytes >> (10 * unit)).unwrap_or(u32::MAX))
}

/// RECEIVE COPY FAILURE DETAILS(LID1) (SPC-4 6.23): status and sense data of a copy that failed; `None` for one that did not.
pub fn copy_failure_details(failure: Option<(u8, &[u8])>) -> ParameterData {
    let mut data = ParameterData::new();
    data.counted_u32(|data| {
        let Some((status, sense)) = failure else { return };
        data.zeros(52).u8(status).u8(0).counted_u16(|data| {
            data.raw(sense);
        });
    });
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: CopyLimits = CopyLimits {
        cscd_descriptors: 0x0102,
        segment_descriptors: 0x0304,
        descriptor_list_length: 0x0506_0708,
        segment_length: 0x090a_0b0c,
        inline_data_length: 0x0d0e_0f10,
        concurrent: 0x11,
        descriptors: &[0x02, 0xe4],
        cscd_ids: &[0xffff],
    };

    /// SPC-4 tables 632 to 640.
    #[test]
    fn the_page() {
        let commands = [(0x83, vec![0x00]), (0x84, vec![0x00, 0x03, 0x04])];
        let page = third_party_copy(
            Peripheral::DISK,
            &LIMITS,
            &commands,
            |_| (),
            |data| {
                third_party_copy_descriptor(data, 0x0106, |data| {
                    data.u8(7);
                });
            },
        );
        let expected: &[&[u8]] = &[
            &[0x00, 0x8f, 0x00, 0],
            &[0x00, 0x01, 0, 12, 8, 0x83, 1, 0x00, 0x84, 3, 0x00, 0x03, 0x04, 0, 0, 0],
            &[
                0x00, 0x04, 0, 28, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 13, 14, 15, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                0,
            ],
            &[0x00, 0x08, 0, 4, 2, 0x02, 0xe4, 0],
            &[0x00, 0x0c, 0, 4, 0, 2, 0xff, 0xff],
            &[0x01, 0x06, 0, 4, 7, 0, 0, 0],
            &[0x80, 0x01, 0, 32, 0, 0, 0, 0, 0, 0, 0, 17, 9, 10, 11, 12, 9, 0],
            &[0; 18],
            &[0xc0, 0x01, 0, 28],
            &[0; 28],
        ];
        let expected = expected.concat();
        assert_eq!((page.bytes()[..3].to_vec(), &page.bytes()[4..]), (vec![0x00, 0x8f, 0x00], &expected[4..]));
        assert_eq!(usize::from(page.bytes()[3]), expected.len() - 4);
    }

    #[test]
    fn operating_parameters() {
        assert_eq!(
            copy_operating_parameters(&LIMITS).bytes(),
            [
                0, 0, 0, 42, 0x01, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 0, 0, 0, 0, 0, 0, 0,
                0, 0, 0, 0, 0, 17, 9, 0, 0, 0, 0, 0, 2, 0x02, 0xe4
            ]
        );
    }

    #[test]
    fn status() {
        let data = |status, segments, bytes| copy_status(status, segments, bytes).bytes().to_vec();
        assert_eq!(data(CopyManagerStatus::Completed, 0x0102, 0x0304_0506), [0, 0, 0, 8, 0x81, 1, 2, 0, 3, 4, 5, 6]);
        assert_eq!(data(CopyManagerStatus::InProgress, 0, 0), [0, 0, 0, 8, 0x80, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(data(CopyManagerStatus::Failed, 1, 0xffff_ffff), [0, 0, 0, 8, 0x82, 0, 1, 0, 255, 255, 255, 255]);
        assert_eq!(data(CopyManagerStatus::Completed, 1, 1 << 32)[7..], [1, 0, 0x40, 0, 0]);
        assert_eq!(data(CopyManagerStatus::Completed, 1, u64::MAX)[7..], [4, 0, 0xff, 0xff, 0xff]);
    }

    #[test]
    fn failure_details() {
        assert_eq!(copy_failure_details(None).bytes(), [0, 0, 0, 0]);
        let details = copy_failure_details(Some((0x02, &[0x70, 0, 0x0a])));
        assert_eq!(details.bytes()[..4], [0, 0, 0, 59]);
        assert_eq!(details.bytes()[4..56], [0; 52]);
        assert_eq!(details.bytes()[56..], [0x02, 0, 0, 3, 0x70, 0, 0x0a]);
    }
}

//! What the copy manager says of itself.

use crate::device_server::rod_tokens;
use crate::lu::{Lu, MAX_COPIES};
use crate::scsi::ParameterData;
use crate::scsi::opcode::rows_of;
use crate::scsi::spc::{
    CSCD_IDENTIFICATION, CSCD_ITSELF, CopyLimits, Peripheral, SEGMENT_BLOCK_OFFSET_TO_BLOCK_OFFSET,
    SEGMENT_BLOCK_TO_BLOCK, third_party_copy, write_supported_rod_types,
};

/// What one EXTENDED COPY may ask for. Sixteen segments of at most 256 MiB: a command that needs blocks of the copy's for itself, and a
/// function that ends it, wait for a step of it; one that must be atomic waits for all of it.
pub(super) const LIMITS: CopyLimits = CopyLimits {
    cscd_descriptors: 8,
    segment_descriptors: 16,
    descriptor_list_length: 8 * 32 + 16 * 32,
    segment_length: 256 << 20,
    inline_data_length: 0,
    concurrent: MAX_COPIES as u8,
    descriptors: &[SEGMENT_BLOCK_TO_BLOCK, SEGMENT_BLOCK_OFFSET_TO_BLOCK_OFFSET, CSCD_IDENTIFICATION],
    cscd_ids: &[CSCD_ITSELF],
};

/// The Third-party Copy VPD page (SPC-4 7.8.17): the commands are those of the table.
pub(in crate::device_server) fn page(lu: &Lu) -> ParameterData {
    let commands = [0x83, 0x84].map(|opcode| {
        let actions = rows_of(opcode).iter().filter_map(|row| row.service_action);
        (opcode, actions.map(|action| action as u8).collect())
    });
    let tokens = rod_tokens::limits(lu);
    third_party_copy(Peripheral::DISK, &LIMITS, &commands, |data| tokens.write(data), |data| {
        rod_tokens::features().write(data);
        write_supported_rod_types(data);
    })
}

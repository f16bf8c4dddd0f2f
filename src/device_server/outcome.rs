//! What a backing error is to a SCSI initiator. The one place where one becomes the other.

use super::{Answer, Finish};
use crate::backing::BackingError;
use crate::scsi::{AdditionalSense, Sense, SenseKey};

/// WRITE ERROR - AUTO REALLOCATION FAILED: what a disk says that could not write (0C/00 is for tapes and CDs).
const WRITE_ERROR: AdditionalSense = AdditionalSense(0x0c02);

/// DATA PHASE ERROR.
const DATA_PHASE_ERROR: AdditionalSense = AdditionalSense(0x4b00);

/// The answer to a command whose plan was one operation. If it failed, so many blocks before the one that is to blame were
/// transferred.
pub fn io_done(finish: Finish, result: Result<(), BackingError>, intact: u64) -> Answer {
    match result {
        Ok(()) => Answer::good(finish.transferred),
        Err(error) => Answer::check(sense(error, finish.lba.saturating_add(intact))),
    }
}

/// Sense data for an error of an operation that began at `lba`.
pub(super) fn sense(error: BackingError, lba: u64) -> Sense {
    match error {
        BackingError::OutOfRange => {
            Sense::illegal_request(AdditionalSense::LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE).with_information(lba)
        }
        BackingError::ReadFailed => {
            Sense::new(SenseKey::MediumError, AdditionalSense::UNRECOVERED_READ_ERROR).with_information(lba)
        }
        BackingError::WriteFailed => Sense::new(SenseKey::MediumError, WRITE_ERROR).with_information(lba),
        // Neither the medium's fault nor the unit's: the data could not be moved between them and the initiator.
        BackingError::BufferGone => Sense::aborted_command(DATA_PHASE_ERROR),
        BackingError::NoSpace => {
            Sense::data_protect(AdditionalSense::SPACE_ALLOCATION_FAILED_WRITE_PROTECT).with_information(lba)
        }
        BackingError::ReadOnly => Sense::data_protect(AdditionalSense::WRITE_PROTECTED),
        // A hardware error, and not a medium error, because initiators retry the latter, and a second flush may succeed
        // without the data that the first one lost.
        BackingError::FlushFailed => Sense::new(SenseKey::HardwareError, AdditionalSense::INTERNAL_TARGET_FAILURE),
        // Only deallocation and zeroing may be unsupported; told so, an initiator stops asking and writes zeros.
        BackingError::Unsupported => Sense::illegal_request(AdditionalSense::INVALID_COMMAND_OPERATION_CODE),
        BackingError::Cancelled => Sense::aborted_command(AdditionalSense::NO_ADDITIONAL_SENSE_INFORMATION),
        BackingError::Miscompare(at) => {
            Sense::new(SenseKey::Miscompare, AdditionalSense::MISCOMPARE_DURING_VERIFY_OPERATION).with_information(at)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_sense_data() {
        let cases = [
            (BackingError::OutOfRange, 0x5, 0x2100, Some(7)),
            (BackingError::ReadFailed, 0x3, 0x1100, Some(7)),
            (BackingError::WriteFailed, 0x3, 0x0c02, Some(7)),
            (BackingError::BufferGone, 0xb, 0x4b00, None),
            (BackingError::NoSpace, 0x7, 0x2707, Some(7)),
            (BackingError::ReadOnly, 0x7, 0x2700, None),
            (BackingError::FlushFailed, 0x4, 0x4400, None),
            (BackingError::Unsupported, 0x5, 0x2000, None),
            (BackingError::Cancelled, 0xb, 0x0000, None),
            (BackingError::Miscompare(513), 0xe, 0x1d00, Some(513)),
        ];
        for (error, key, code, information) in cases {
            let answer = io_done(Finish { lba: 3, transferred: 512 }, Err(error), 4);
            let sense = answer.sense.unwrap();
            assert_eq!((sense.key as u8, sense.code.0, sense.information), (key, code, information), "{error:?}");
            assert_eq!(answer.status as u8, 0x02);
            assert_eq!(answer.transferred, 0);
        }
        assert_eq!(io_done(Finish { lba: 7, transferred: 512 }, Ok(()), 0), Answer::good(512));
    }
}

//! Logical unit numbers without a unit (SAM-5 4.7.4, SPC-4 6.6.1).

use super::transfer::parameter_data;
use super::{Answer, Planned, Request, spc};
use crate::mem::IoBuf;
use crate::scsi::opcode;
use crate::scsi::spc::{Peripheral, StandardInquiry, TargetPortGroupSupport, report_luns};
use crate::scsi::{AdditionalSense, Command, Sense};

const NOT_SUPPORTED: Sense = Sense::illegal_request(AdditionalSense::LOGICAL_UNIT_NOT_SUPPORTED);

/// Answers INQUIRY (nothing is here), REQUEST SENSE (as data) and REPORT LUNS; all else is LOGICAL UNIT NOT SUPPORTED, even
/// what no unit would know.
pub(super) fn start(request: &Request<'_>, buf: &mut IoBuf) -> Planned<'static> {
    match opcode::decode(request.cdb) {
        Ok((_, Command::Inquiry { page: None, allocation_length })) => {
            let inquiry = StandardInquiry {
                peripheral: Peripheral::ABSENT,
                removable: false,
                normal_aca: false,
                multi_port: false,
                third_party_copy: false,
                target_port_groups: TargetPortGroupSupport::None,
                vendor: "",
                product: "",
                revision: "",
                vendor_specific: "",
            };
            parameter_data(buf, inquiry.data(), allocation_length)
        }
        Ok((_, Command::RequestSense { descriptor, allocation_length })) => {
            spc::sense_data(buf, NOT_SUPPORTED, descriptor, allocation_length)
        }
        Ok((_, Command::ReportLuns { select_report, allocation_length })) => {
            parameter_data(buf, report_luns(select_report, request.luns)?, allocation_length)
        }
        // A malformed one of the three says what is wrong with it.
        Err(sense) if matches!(request.cdb.first(), Some(0x03 | 0x12 | 0xa0)) => Err(Answer::check(sense)),
        _ => Err(Answer::check(NOT_SUPPORTED)),
    }
}

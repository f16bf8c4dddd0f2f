//! The REPORT LUNS well-known logical unit (SPC-4 8.2).

use super::transfer::parameter_data;
use super::{Answer, Planned, Request, spc};
use crate::lu::{DEFAULT_PRODUCT, DEFAULT_REVISION, DEFAULT_VENDOR};
use crate::mem::IoBuf;
use crate::scsi::opcode::{self, Row};
use crate::scsi::spc::{
    Peripheral, StandardInquiry, report_luns, report_operation_codes, supported_vpd_pages, vpd_page,
};
use crate::scsi::{AdditionalSense, Command, FieldPointer, Sense};

/// Answers what such a unit supports. It has no medium and no state, so no unit attention and no reservation either.
pub(super) fn start(request: &Request<'_>, buf: &mut IoBuf) -> Planned<'static> {
    let (row, command) = opcode::decode(request.cdb)?;
    if !supported(row) {
        return Err(Sense::illegal_request(AdditionalSense::INVALID_COMMAND_OPERATION_CODE).into());
    }
    match command {
        Command::Inquiry { page: None, allocation_length } => {
            let inquiry = StandardInquiry {
                peripheral: Peripheral::WELL_KNOWN,
                removable: false,
                normal_aca: false,
                multi_port: false,
                vendor: DEFAULT_VENDOR,
                product: DEFAULT_PRODUCT,
                revision: DEFAULT_REVISION,
                vendor_specific: "",
            };
            parameter_data(buf, inquiry.data(), allocation_length)
        }
        Command::Inquiry { page: Some(vpd_page::SUPPORTED_PAGES), allocation_length } => {
            let pages = supported_vpd_pages(Peripheral::WELL_KNOWN, &[vpd_page::SUPPORTED_PAGES]);
            parameter_data(buf, pages, allocation_length)
        }
        Command::Inquiry { page: Some(_), .. } => Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(2, 7)).into()),
        Command::RequestSense { descriptor, allocation_length } => {
            spc::sense_data(buf, spc::NO_SENSE, descriptor, allocation_length)
        }
        Command::ReportLuns { select_report, allocation_length } => {
            parameter_data(buf, report_luns(select_report, request.luns)?, allocation_length)
        }
        Command::ReportSupportedOperationCodes { rctd, options, opcode, service_action, allocation_length } => {
            let data = report_operation_codes(rctd, options, opcode, service_action, supported)?;
            parameter_data(buf, data, allocation_length)
        }
        _ => Ok(Answer::good(0).into()),
    }
}

/// INQUIRY, REPORT LUNS, REQUEST SENSE, TEST UNIT READY and REPORT SUPPORTED OPERATION CODES.
fn supported(row: &Row) -> bool {
    matches!((row.opcode, row.service_action), (0x00 | 0x03 | 0x12 | 0xa0, None) | (0xa3, Some(0x0c)))
}

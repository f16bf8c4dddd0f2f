//! The REPORT LUNS well-known logical unit (SPC-4 8.2).

use super::transfer::parameter_data;
use super::{Answer, Planned, Request, ports, spc};
use crate::lu::{DEFAULT_PRODUCT, DEFAULT_REVISION, DEFAULT_VENDOR, Ports};
use crate::mem::IoBuf;
use crate::scsi::opcode::{self, Row};
use crate::scsi::spc::{
    Peripheral, StandardInquiry, TargetPortGroupSupport, device_identification, report_luns, report_operation_codes,
    scsi_ports, supported_vpd_pages, vpd_page,
};
use crate::scsi::{AdditionalSense, Command, FieldPointer, Sense};

/// Its VPD pages, ascending.
const VPD_PAGES: [u8; 3] = [vpd_page::SUPPORTED_PAGES, vpd_page::DEVICE_IDENTIFICATION, vpd_page::SCSI_PORTS];

/// Answers what such a unit supports. It has no medium and no state, so no unit attention and no reservation either.
pub(super) fn start(request: &Request<'_>, ports: Ports<'_>, buf: &mut IoBuf) -> Planned<'static> {
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
                multi_port: ports.several(),
                // It has no medium, so there are no better and worse ways to it.
                third_party_copy: false,
                target_port_groups: TargetPortGroupSupport::None,
                vendor: DEFAULT_VENDOR,
                product: DEFAULT_PRODUCT,
                revision: DEFAULT_REVISION,
                vendor_specific: "",
            };
            parameter_data(buf, inquiry.data(), allocation_length)
        }
        Command::Inquiry { page: Some(vpd_page::SUPPORTED_PAGES), allocation_length } => {
            parameter_data(buf, supported_vpd_pages(Peripheral::WELL_KNOWN, &VPD_PAGES), allocation_length)
        }
        Command::Inquiry { page: Some(vpd_page::DEVICE_IDENTIFICATION), allocation_length } => {
            // A well-known unit has no name of its own (SPC-4 7.8.5): its port does.
            let page = device_identification(Peripheral::WELL_KNOWN, &ports::designators(ports));
            parameter_data(buf, page, allocation_length)
        }
        Command::Inquiry { page: Some(vpd_page::SCSI_PORTS), allocation_length } => {
            let page = scsi_ports(Peripheral::WELL_KNOWN, &ports::scsi_ports(ports));
            parameter_data(buf, page, allocation_length)
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

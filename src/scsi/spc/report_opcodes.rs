//! REPORT SUPPORTED OPERATION CODES parameter data (SPC-4 6.35), out of the one table.

use crate::scsi::opcode::{self, Row};
use crate::scsi::{FieldPointer, ParameterData, Sense};

/// What REPORT SUPPORTED OPERATION CODES returns for these fields of its CDB.
///
/// `supported` says which rows this logical unit has (a read-only or well-known unit may have fewer). Command timeouts
/// descriptors, with `rctd`, indicate no timeouts.
///
/// # Errors
///
/// INVALID FIELD IN CDB pointing at REPORTING OPTIONS: 001b for an operation code with service actions, 010b for one
/// without, and reserved values.
pub fn report_operation_codes(
    rctd: bool,
    options: u8,
    operation_code: u8,
    service_action: u16,
    supported: impl Fn(&Row) -> bool,
) -> Result<ParameterData, Sense> {
    let invalid = Sense::invalid_field_in_cdb(FieldPointer::cdb(2, 2));
    let mut rows = opcode::rows_of(operation_code).iter().filter(|row| supported(row)).peekable();
    let has_service_actions = rows.peek().map(|row| row.service_action.is_some());
    let row = match options {
        0b000 => return Ok(all_commands(rctd, supported)),
        0b001 if has_service_actions == Some(true) => return Err(invalid),
        0b001 => rows.next(),
        0b010 if has_service_actions == Some(false) => return Err(invalid),
        0b010 => rows.find(|row| row.service_action == Some(service_action)),
        // An operation code without service actions has the one 0 here.
        0b011 => rows.find(|row| row.service_action.unwrap_or(0) == service_action),
        _ => return Err(invalid),
    };
    Ok(one_command(rctd, row))
}

/// SPC-4 6.35.2: a command descriptor for each row.
fn all_commands(rctd: bool, supported: impl Fn(&Row) -> bool) -> ParameterData {
    let mut data = ParameterData::new();
    data.counted_u32(|data| {
        for row in opcode::rows().iter().filter(|row| supported(row)) {
            let servactv = u8::from(row.service_action.is_some());
            let ctdp = u8::from(rctd) << 1;
            data.u8(row.opcode).u8(0).u16(row.service_action.unwrap_or(0)).u8(0).u8(ctdp | servactv);
            data.u16(row.usage.cdb_length() as u16);
            if rctd {
                timeouts(data);
            }
        }
    });
    data
}

/// SPC-4 6.35.3: SUPPORT 011b (as the standard says) with the usage data, or 001b (not supported).
fn one_command(rctd: bool, row: Option<&Row>) -> ParameterData {
    let mut data = ParameterData::new();
    data.u8(0);
    match row {
        None => data.u8(0b001).u16(0),
        Some(row) => {
            let ctdp = u8::from(rctd) << 7;
            data.u8(ctdp | 0b011).counted_u16(|data| {
                data.raw(row.usage.bytes());
            });
            if rctd {
                timeouts(&mut data);
            }
            &mut data
        }
    };
    data
}

/// SPC-4 6.35.4: a command timeouts descriptor that indicates nothing.
fn timeouts(data: &mut ParameterData) {
    data.counted_u16(|data| {
        data.zeros(10);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rctd: bool, options: u8, opcode: u8, service_action: u16) -> Result<Vec<u8>, Sense> {
        report_operation_codes(rctd, options, opcode, service_action, |_| true).map(|data| data.bytes().to_vec())
    }

    const INVALID: Sense = Sense::invalid_field_in_cdb(FieldPointer::cdb(2, 2));

    #[test]
    fn one_command_by_operation_code() {
        let read10 = [0x00, 0x03, 0x00, 0x0a, 0x28, 0x18, 0xff, 0xff, 0xff, 0xff, 0x1f, 0xff, 0xff, 0x04];
        assert_eq!(report(false, 1, 0x28, 0).unwrap(), read10);
        assert_eq!(report(false, 3, 0x28, 0).unwrap(), read10);
        assert_eq!(report(false, 3, 0x28, 1).unwrap(), [0x00, 0x01, 0x00, 0x00]);
        assert_eq!(report(false, 1, 0xc0, 0).unwrap(), [0x00, 0x01, 0x00, 0x00]);
        assert_eq!(report(false, 1, 0xa3, 0), Err(INVALID));
    }

    #[test]
    fn one_command_by_service_action() {
        let rsoc = [0x00, 0x03, 0x00, 0x0c, 0xa3, 0x0c, 0x87, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 0x04];
        assert_eq!(report(false, 2, 0xa3, 0x0c).unwrap(), rsoc);
        assert_eq!(report(false, 3, 0xa3, 0x0c).unwrap(), rsoc);
        assert_eq!(report(false, 2, 0xa3, 0x1f).unwrap(), [0x00, 0x01, 0x00, 0x00]);
        assert_eq!(report(true, 2, 0xc0, 0x1f).unwrap(), [0x00, 0x01, 0x00, 0x00]);
        assert_eq!(report(false, 2, 0x28, 0), Err(INVALID));
        assert_eq!(report(false, 4, 0x28, 0), Err(INVALID));
    }

    #[test]
    fn timeouts_follow_the_usage_data() {
        let tur = report(true, 1, 0x00, 0).unwrap();
        assert_eq!(tur, [0x00, 0x83, 0x00, 6, 0, 0, 0, 0, 0, 4, 0x00, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn all_commands_are_listed_once() {
        let all = report(false, 0, 0, 0).unwrap();
        assert_eq!(all.len(), 4 + 8 * opcode::rows().len());
        assert_eq!(all[..4], (8 * opcode::rows().len() as u32).to_be_bytes());
        assert_eq!(all[4..12], [0x00, 0, 0, 0, 0, 0, 0, 6]);
        let capacity = all[4..].chunks(8).find(|each| each[0] == 0x9e).unwrap();
        assert_eq!(capacity, [0x9e, 0, 0x00, 0x10, 0, 0x01, 0, 16]);
        let timed = report(true, 0, 0, 0).unwrap();
        assert_eq!(timed.len(), 4 + 20 * opcode::rows().len());
        assert_eq!(timed[4..24], [0, 0, 0, 0, 0, 2, 0, 6, 0x00, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn what_a_unit_does_not_have_is_left_out() {
        let data = report_operation_codes(false, 0, 0, 0, |row| row.opcode == 0x12).unwrap();
        assert_eq!(data.bytes(), [0, 0, 0, 8, 0x12, 0, 0, 0, 0, 0, 0, 6]);
        let one = report_operation_codes(false, 1, 0x28, 0, |_| false).unwrap();
        assert_eq!(one.bytes(), [0, 1, 0, 0]);
    }
}

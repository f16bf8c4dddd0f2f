//! REPORT LUNS parameter data (SPC-4 6.33.2).

use crate::scsi::{FieldPointer, Lun, ParameterData, Sense};

/// The LUN inventory that SELECT REPORT asks for; `luns` are the numbers of the units below the target, ascending.
///
/// The REPORT LUNS well-known unit is listed where well-known units are asked for. Numbers above
/// [`MAX_LUN`](crate::scsi::MAX_LUN) cannot be addressed and are left out.
///
/// # Errors
///
/// INVALID FIELD IN CDB for a SELECT REPORT other than 00h, 01h and 02h.
pub fn report_luns(select_report: u8, luns: &[u16]) -> Result<ParameterData, Sense> {
    let (units, well_known) = match select_report {
        0x00 => (luns, false),
        0x01 => (&[][..], true),
        0x02 => (luns, true),
        _ => return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(2, 7))),
    };
    let units = units.iter().filter_map(|lun| Lun::listed(*lun));
    let list = units.chain(well_known.then_some(Lun::REPORT_LUNS));
    let mut data = ParameterData::new();
    // LUN LIST LENGTH does not count the four reserved bytes after it.
    let bytes: Vec<u8> = list.flat_map(|lun| lun.0).collect();
    data.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX)).zeros(4).raw(&bytes);
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_selection() {
        let luns = [0, 255, 256];
        let units = report_luns(0, &luns).unwrap();
        assert_eq!(
            units.bytes(),
            [
                0, 0, 0, 24, 0, 0, 0, 0, //
                0, 0, 0, 0, 0, 0, 0, 0, //
                0, 255, 0, 0, 0, 0, 0, 0, //
                0x41, 0, 0, 0, 0, 0, 0, 0,
            ]
        );
        let well_known = report_luns(1, &luns).unwrap();
        assert_eq!(well_known.bytes(), [0, 0, 0, 8, 0, 0, 0, 0, 0xc1, 0x01, 0, 0, 0, 0, 0, 0]);
        let all = report_luns(2, &luns).unwrap();
        assert_eq!(all.len(), 8 + 32);
        assert_eq!(all.bytes()[32..], Lun::REPORT_LUNS.0);
        for select in [0x03, 0x10, 0xff] {
            assert_eq!(report_luns(select, &luns), Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(2, 7))));
        }
        assert_eq!(report_luns(0, &[]).unwrap().bytes(), [0; 8]);
    }
}

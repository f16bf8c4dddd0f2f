//! MODE SELECT parameter lists (SPC-4 6.9, 7.5.4).

use super::mode::{ModePage, ModeState, ModeUnit};
use crate::scsi::{AdditionalSense, FieldPointer, Sense, be_bytes};

/// The fields of MODE SELECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeSelectFields {
    /// MODE SELECT(10) rather than (6).
    pub ten: bool,
    /// PF: the pages have the standard's format.
    pub page_format: bool,
    /// SP: save the parameters.
    pub save: bool,
}

/// What the parameter list makes of the current parameters. Nothing is to change unless all of it is right.
///
/// `list` is the whole parameter list; an empty one changes nothing. MODE DATA LENGTH, WP, DPOFUA and PS mean nothing in
/// MODE SELECT and are not looked at, so that what MODE SENSE returned can be sent back.
///
/// # Errors
///
/// INVALID FIELD IN CDB for SP if the unit saves nothing, and for pages without PF; PARAMETER LIST LENGTH ERROR where the list
/// ends within a header, a descriptor or a page; INVALID FIELD IN PARAMETER LIST, with a field pointer, for a medium
/// type, a block descriptor that would change the capacity or block length, a page that is not supported or has
/// another length, a bit changed that is not changeable, and a reserved value of a field that is.
pub fn mode_select(fields: ModeSelectFields, list: &[u8], unit: &ModeUnit) -> Result<ModeState, Sense> {
    if fields.save && unit.saved.is_none() {
        return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(1, 0)));
    }
    let mut state = unit.current;
    if list.is_empty() {
        return Ok(state);
    }
    let mut at = pages_begin(fields.ten, list, unit)?;
    if at < list.len() && !fields.page_format {
        return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(1, 4)));
    }
    while at < list.len() {
        at = take_page(list, at, unit, &mut state)?;
    }
    Ok(state)
}

const TRUNCATED: Sense = Sense::illegal_request(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR);

fn invalid(byte: usize, bit: u8) -> Sense {
    // A parameter list has at most 65535 bytes.
    Sense::invalid_field_in_parameter_list(FieldPointer::parameter_list(byte as u16, bit))
}

/// Checks the mode parameter header and the block descriptor; where the first page begins.
fn pages_begin(ten: bool, list: &[u8], unit: &ModeUnit) -> Result<usize, Sense> {
    let (header, medium_type, long, descriptor_length) = match ten {
        false => {
            let [_, medium_type, _, length] = be_bytes(list, 0).ok_or(TRUNCATED)?;
            (4, (1, medium_type), false, usize::from(length))
        }
        true => {
            let [_, _, medium_type, _, flags, _, high, low] = be_bytes(list, 0).ok_or(TRUNCATED)?;
            (8, (2, medium_type), flags & 1 == 1, usize::from(u16::from_be_bytes([high, low])))
        }
    };
    if medium_type.1 != 0 {
        return Err(invalid(medium_type.0, 7));
    }
    let descriptor = list.get(header..header + descriptor_length).ok_or(TRUNCATED)?;
    let wanted = match (descriptor_length, long) {
        (0, _) => return Ok(header),
        (8, false) => {
            let [b0, b1, b2, b3, _, l0, l1, l2] = be_bytes(descriptor, 0).ok_or(TRUNCATED)?;
            let blocks = u32::from_be_bytes([b0, b1, b2, b3]);
            let current = u32::try_from(unit.blocks).unwrap_or(u32::MAX);
            let same = blocks == 0 || blocks == current || blocks == u32::MAX;
            (same, u32::from_be_bytes([0, l0, l1, l2]), header + 5)
        }
        (16, true) => {
            let blocks = u64::from_be_bytes(be_bytes(descriptor, 0).ok_or(TRUNCATED)?);
            let same = blocks == 0 || blocks == unit.blocks || blocks == u64::MAX;
            (same, u32::from_be_bytes(be_bytes(descriptor, 12).ok_or(TRUNCATED)?), header + 12)
        }
        _ => return Err(invalid(header - if ten { 2 } else { 1 }, 7)),
    };
    match wanted {
        (false, _, _) => Err(invalid(header, 7)),
        (true, length, field) if length != unit.block_length => Err(invalid(field, 7)),
        _ => Ok(header + descriptor_length),
    }
}

/// Takes one mode page; where the next one begins.
fn take_page(list: &[u8], at: usize, unit: &ModeUnit, state: &mut ModeState) -> Result<usize, Sense> {
    let [code] = be_bytes(list, at).ok_or(TRUNCATED)?;
    let (page, has_subpage) = (code & 0x3f, code & 0x40 != 0);
    let (subpage, length_field, length) = match has_subpage {
        false => {
            let [length] = be_bytes(list, at + 1).ok_or(TRUNCATED)?;
            (0, 1, usize::from(length))
        }
        true => {
            let [subpage, high, low] = be_bytes(list, at + 1).ok_or(TRUNCATED)?;
            (subpage, 2, usize::from(u16::from_be_bytes([high, low])))
        }
    };
    if !ModePage::any(page) {
        return Err(invalid(at, 5));
    }
    let known = ModePage::find(page, subpage, unit).filter(|known| has_subpage == (known.subpage != 0));
    let known = known.ok_or_else(|| invalid(at + usize::from(has_subpage), if has_subpage { 7 } else { 6 }))?;
    let current = known.image(*state, unit);
    if length != current.len() {
        return Err(invalid(at + length_field, 7));
    }
    let parameters_at = at + if has_subpage { 4 } else { 2 };
    let parameters = list.get(parameters_at..parameters_at + length).ok_or(TRUNCATED)?;
    let changes = parameters.iter().zip(&current).zip(known.changeable(unit));
    for (byte, ((wanted, current), changeable)) in changes.enumerate() {
        let refused = (wanted ^ current) & !changeable;
        if refused != 0 {
            return Err(invalid(parameters_at + byte, 7 - refused.leading_zeros() as u8));
        }
    }
    (known.take)(parameters, state).map_err(|reserved| invalid(parameters_at + reserved.byte, reserved.bit))?;
    Ok(parameters_at + length)
}

#[cfg(test)]
#[path = "mode_select_tests.rs"]
mod tests;

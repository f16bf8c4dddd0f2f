//! PERSISTENT RESERVE IN parameter data and PERSISTENT RESERVE OUT parameter lists (SPC-4 6.15, 6.16).

use crate::scsi::{AdditionalSense, FieldPointer, ParameterData, Sense, TRANSPORT_ID_LENGTH, TransportId, be_bytes};

/// LU_SCOPE: the only scope there is (SPC-4 table 209).
pub const LU_SCOPE: u8 = 0x0;

/// Length in bytes of a parameter list without TransportIDs, and of the part of any list that is in front of them.
pub const PERSISTENT_RESERVE_OUT_LENGTH: u16 = 24;

/// READ KEYS (SPC-4 6.15.2): all keys, in the order of their registrations, as many times as they are registered.
pub fn read_keys(generation: u32, keys: impl IntoIterator<Item = u64>) -> ParameterData {
    let mut data = ParameterData::new();
    data.u32(generation).counted_u32(|data| {
        for key in keys {
            data.u64(key);
        }
    });
    data
}

/// READ RESERVATION (SPC-4 6.15.3): the RESERVATION KEY and the TYPE, if there is a reservation.
pub fn read_reservation(generation: u32, reservation: Option<(u64, u8)>) -> ParameterData {
    let mut data = ParameterData::new();
    data.u32(generation).counted_u32(|data| {
        if let Some((key, kind)) = reservation {
            data.u64(key).zeros(5).u8(scope_and_type(kind)).zeros(2);
        }
    });
    data
}

/// What REPORT CAPABILITIES says of a unit that does everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservationCapabilities {
    /// PTPL_C: reservations can be kept through a loss of power.
    pub persists_through_power_loss: bool,
    /// PTPL_A: they are.
    pub persistence_active: bool,
}

/// RLR_C, CRH, SIP_C and ATP_C.
const CAPABLE: u8 = 0x80 | 0x10 | 0x08 | 0x04;
const PTPL_C: u8 = 0x01;
const TMV: u8 = 0x80;
/// TEST UNIT READY is allowed under every type; MODE SENSE, READ BUFFER, RECEIVE DIAGNOSTIC RESULTS, REPORT SUPPORTED OPERATION CODES
/// and the like are under those that only exclude writing (SPC-4 table 213).
const ALLOW_COMMANDS: u8 = 0b011 << 4;
const PTPL_A: u8 = 0x01;
/// WR_EX_AR, EX_AC_RO, WR_EX_RO, EX_AC, WR_EX; then EX_AC_AR.
const TYPE_MASK: [u8; 2] = [0x80 | 0x40 | 0x20 | 0x08 | 0x02, 0x01];

/// REPORT CAPABILITIES (SPC-4 6.15.4).
pub fn report_capabilities(capabilities: ReservationCapabilities) -> ParameterData {
    let flag = |set, bit| if set { bit } else { 0 };
    let mut data = ParameterData::new();
    data.u16(8)
        .u8(CAPABLE | flag(capabilities.persists_through_power_loss, PTPL_C))
        .u8(TMV | ALLOW_COMMANDS | flag(capabilities.persistence_active, PTPL_A))
        .raw(&TYPE_MASK)
        .zeros(2);
    data
}

/// One registration, as READ FULL STATUS describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FullStatus {
    /// RESERVATION KEY.
    pub key: u64,
    /// R_HOLDER, and then the TYPE.
    pub holds: Option<u8>,
    /// RELATIVE TARGET PORT IDENTIFIER.
    pub port: u16,
    /// TransportID.
    pub initiator: TransportId,
}

/// READ FULL STATUS (SPC-4 6.15.5). Each descriptor is of one I_T nexus: ALL_TG_PT is zero in it, even if one command made
/// registrations through all target ports.
pub fn read_full_status(generation: u32, registrations: impl IntoIterator<Item = FullStatus>) -> ParameterData {
    const R_HOLDER: u8 = 0x01;
    let mut data = ParameterData::new();
    data.u32(generation).counted_u32(|data| {
        for each in registrations {
            let (flags, scope_and_type) = each.holds.map_or((0, 0), |kind| (R_HOLDER, scope_and_type(kind)));
            data.u64(each.key).zeros(4).u8(flags).u8(scope_and_type).zeros(4).u16(each.port);
            data.counted_u32(|data| each.initiator.write(data));
        }
    });
    data
}

const fn scope_and_type(kind: u8) -> u8 {
    LU_SCOPE << 4 | kind & 0x0f
}

/// The parameter list of every service action but REGISTER AND MOVE (SPC-4 6.16.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReserveOutList {
    /// RESERVATION KEY.
    pub key: u64,
    /// SERVICE ACTION RESERVATION KEY.
    pub service_action_key: u64,
    /// SPEC_I_PT, and then the TransportIDs.
    pub initiators: Option<Vec<TransportId>>,
    /// ALL_TG_PT.
    pub all_target_ports: bool,
    /// APTPL.
    pub aptpl: bool,
}

/// Where APTPL is in that list.
pub const APTPL_FIELD: FieldPointer = FieldPointer::parameter_list(20, 0);

/// Parses a list; `register` if it came with REGISTER, which alone may have SPEC_I_PT.
///
/// The obsolete bytes 16–19, 22 and 23 (scope-specific address, extent length) are not looked at.
///
/// # Errors
///
/// PARAMETER LIST LENGTH ERROR if the list is shorter or longer than its fields say; INVALID FIELD IN PARAMETER LIST, with a field
/// pointer, for a reserved bit, SPEC_I_PT out of place and a TransportID that is none of SRP.
pub fn reserve_out_list(list: &[u8], register: bool) -> Result<ReserveOutList, Sense> {
    const SPEC_I_PT: u8 = 0x08;
    const ALL_TG_PT: u8 = 0x04;
    const APTPL: u8 = 0x01;
    let (key, service_action_key) = keys(list)?;
    let [flags, reserved] = be_bytes(list, 20).ok_or(WRONG_LENGTH)?;
    stray(20, flags & !(SPEC_I_PT | ALL_TG_PT | APTPL))?;
    stray(21, reserved)?;
    let initiators = match flags & SPEC_I_PT != 0 {
        true if register => Some(transport_ids(list)?),
        true => return Err(Sense::invalid_field_in_parameter_list(FieldPointer::parameter_list(20, 3))),
        false if list.len() == usize::from(PERSISTENT_RESERVE_OUT_LENGTH) => None,
        false => return Err(WRONG_LENGTH),
    };
    Ok(ReserveOutList {
        key,
        service_action_key,
        initiators,
        all_target_ports: flags & ALL_TG_PT != 0,
        aptpl: flags & APTPL != 0,
    })
}

/// The parameter list of REGISTER AND MOVE (SPC-4 6.16.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterAndMoveList {
    /// RESERVATION KEY.
    pub key: u64,
    /// SERVICE ACTION RESERVATION KEY.
    pub service_action_key: u64,
    /// UNREG.
    pub unregister: bool,
    /// APTPL.
    pub aptpl: bool,
    /// RELATIVE TARGET PORT IDENTIFIER.
    pub port: u16,
    /// TransportID.
    pub initiator: TransportId,
}

/// Where APTPL is in that list.
pub const MOVE_APTPL_FIELD: FieldPointer = FieldPointer::parameter_list(17, 0);

/// Parses a list.
///
/// # Errors
///
/// As [`reserve_out_list`].
pub fn register_and_move_list(list: &[u8]) -> Result<RegisterAndMoveList, Sense> {
    const UNREG: u8 = 0x02;
    const APTPL: u8 = 0x01;
    let (key, service_action_key) = keys(list)?;
    let [reserved, flags] = be_bytes(list, 16).ok_or(WRONG_LENGTH)?;
    stray(16, reserved)?;
    stray(17, flags & !(UNREG | APTPL))?;
    let port = be_bytes(list, 18).map(u16::from_be_bytes).ok_or(WRONG_LENGTH)?;
    let [initiator] = transport_ids_at(list, 20)?[..] else {
        return Err(Sense::invalid_field_in_parameter_list(FieldPointer::parameter_list(20, 7)));
    };
    Ok(RegisterAndMoveList {
        key,
        service_action_key,
        unregister: flags & UNREG != 0,
        aptpl: flags & APTPL != 0,
        port,
        initiator,
    })
}

const WRONG_LENGTH: Sense = Sense::illegal_request(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR);

/// RESERVATION KEY and SERVICE ACTION RESERVATION KEY. No list is shorter than the common one.
fn keys(list: &[u8]) -> Result<(u64, u64), Sense> {
    if list.len() < usize::from(PERSISTENT_RESERVE_OUT_LENGTH) {
        return Err(WRONG_LENGTH);
    }
    let key = |at| be_bytes(list, at).map(u64::from_be_bytes).ok_or(WRONG_LENGTH);
    Ok((key(0)?, key(8)?))
}

/// Refuses bits of the byte at `at` that must be zero.
fn stray(at: u16, bits: u8) -> Result<(), Sense> {
    match bits.checked_ilog2() {
        None => Ok(()),
        Some(bit) => Err(Sense::invalid_field_in_parameter_list(FieldPointer::parameter_list(at, bit as u8))),
    }
}

/// TRANSPORTID PARAMETER DATA LENGTH and what it counts, behind the common list.
fn transport_ids(list: &[u8]) -> Result<Vec<TransportId>, Sense> {
    transport_ids_at(list, usize::from(PERSISTENT_RESERVE_OUT_LENGTH))
}

/// A length of four bytes at `at`, and as many bytes of TransportIDs, with which the list ends.
fn transport_ids_at(list: &[u8], at: usize) -> Result<Vec<TransportId>, Sense> {
    let length = be_bytes(list, at).map(u32::from_be_bytes).ok_or(WRONG_LENGTH)?;
    let ids = list.get(at + 4..).ok_or(WRONG_LENGTH)?;
    if u32::try_from(ids.len()) != Ok(length) {
        return Err(WRONG_LENGTH);
    }
    let invalid = |byte: usize| {
        // A field pointer has 16 bits; lists have no more bytes.
        let byte = u16::try_from(byte).unwrap_or(u16::MAX);
        Sense::invalid_field_in_parameter_list(FieldPointer::parameter_list(byte, 7))
    };
    let parse = |(i, id): (usize, &[u8])| {
        TransportId::parse(id).map_err(|wrong| match wrong < id.len() {
            true => invalid(at + 4 + i * TRANSPORT_ID_LENGTH + wrong),
            // The last one ends early: what is wrong is the length.
            false => invalid(at),
        })
    };
    ids.chunks(TRANSPORT_ID_LENGTH).enumerate().map(parse).collect()
}

#[cfg(test)]
#[path = "persistent_reserve_tests.rs"]
mod tests;

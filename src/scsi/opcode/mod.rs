//! The one table of commands: one row per (operation code, service action).
//!
//! A row serves decoding, REPORT SUPPORTED OPERATION CODES, unit-attention exemption, readiness, access states and the
//! reservation class; no field has a default, so a command without, say, a reservation class does not compile.
//!
//! Decoding is strict: a bit that is set where the row's usage data has none is refused (INVALID FIELD IN CDB, with a field
//! pointer to it). That covers reserved and obsolete bits, protection information (nothing here has it) and CONTROL's bits but
//! NACA, which every command may have: [`naca`] says whether one has. A GROUP NUMBER is taken wherever SBC-3 has that field
//! (GROUP_SUP is 1); what a group collects is left to the device server (SBC-3 4.22), and here it is nothing.

#[cfg(test)]
mod conformance_table;
mod decode;
mod decode_erase;
mod decode_management;
mod decode_reserve;
mod decode_third_party_copy;
mod decode_token;
mod replay;
mod table;
#[cfg(test)]
mod tests;

pub use replay::{Replay, replay_of};

use super::{AdditionalSense, Cdb, Command, FieldPointer, Sense, SenseKey, StartStopFields};

/// What a command is, apart from what it does.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// OPERATION CODE.
    pub opcode: u8,
    /// SERVICE ACTION, if this operation code has them.
    pub service_action: Option<u16>,
    /// The standard's name.
    pub name: &'static str,
    /// Where the standard defines it: its name and the clause, such as `SBC-3 5.35`.
    pub clause: &'static str,
    /// Which bits of the CDB mean something; also how long it is.
    pub usage: Usage,
    /// Which way its data goes.
    pub direction: DataDirection,
    /// What it does about a pending unit attention.
    pub attention: Attention,
    /// Whether it needs a unit that is ready, at its least; see [`Row::readiness`].
    pub readiness: Readiness,
    /// In which access states of its target port's group it is performed.
    pub access: Access,
    /// What it is to the reservation of another nexus, at its strictest; see [`Row::reservation`].
    pub reservation: Reservation,
    /// From a CDB with no bit set outside `usage` to what it means.
    decode: fn(Cdb<'_>) -> Result<Command, Sense>,
}

impl Row {
    /// What this command is to a reservation, with its fields looked at: starting a unit and allowing medium removal
    /// conflict with nothing.
    pub fn reservation(&self, command: &Command) -> Reservation {
        match command {
            Command::StartStopUnit(StartStopFields { start: true, power_condition: 0, .. })
            | Command::PreventAllowMediumRemoval { prevent: 0 } => Reservation::ALLOWED,
            _ => self.reservation,
        }
    }

    /// What this command needs to be ready, with its fields looked at: a self-test reads the medium. (100b is no test: it ends one.)
    pub fn readiness(&self, command: &Command) -> Readiness {
        match command {
            Command::SendDiagnostic { self_test: true, .. } => Readiness::Medium,
            Command::SendDiagnostic { self_test_code: 1..=3 | 5..=7, .. } => Readiness::Medium,
            _ => self.readiness,
        }
    }
}

/// Which way a command's data goes, if it has any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataDirection {
    /// No data.
    None,
    /// Data-In: to the initiator.
    In,
    /// Data-Out: from the initiator. (Some forms of a command have none: NDOB of WRITE SAME, BYTCHK 00b of VERIFY.)
    Out,
}

/// What a command does about a pending unit attention (SAM-5 5.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// It ends with CHECK CONDITION, reporting it.
    Reports,
    /// It is performed all the same (INQUIRY, REPORT LUNS, REQUEST SENSE).
    Exempt,
}

/// What of a logical unit a command needs to be ready (SBC-3 4.20); it ends with NOT READY otherwise. Each needs what those after it
/// need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The unit is ready: TEST UNIT READY and what accesses the medium.
    Ready,
    /// There is a medium, stopped or not.
    Medium,
    /// Nothing is done to the whole medium, as FORMAT UNIT and SANITIZE do.
    Unoccupied,
    /// What `Ready` needs, except that the command itself looks at what is or was done to the whole medium: FORMAT UNIT and SANITIZE.
    Occupies,
    /// It is performed whatever is or is done to the unit.
    Any,
}

/// In which asymmetric access states a command is performed (SPC-4's lists for each state, and what else does no harm there);
/// elsewhere it ends with NOT READY. Each includes those before it; all include the active states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// In the active states only.
    Active,
    /// In standby, too: it manages the unit.
    Standby,
    /// In unavailable and offline, too: everywhere but on the way between states.
    Settled,
    /// Always: it tells of the unit, or touches nothing of it.
    Always,
}

/// What a command is to a reservation that another nexus holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// To a reservation made with RESERVE(6) or RESERVE(10) (SPC-2 5.5.1 and the command sets' tables).
    pub spc2: Spc2,
    /// To a persistent reservation (SPC-4 5.13.1, table 65 and SBC-3 table 13).
    pub persistent: Persistent,
}

/// A command's row in SPC-2's table of reservations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spc2 {
    /// Allowed whoever holds the reservation.
    Allowed,
    /// RESERVATION CONFLICT for every nexus but the holder's.
    Conflicts,
}

/// A command's row in the tables of persistent reservations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistent {
    /// Allowed under every type.
    Allowed,
    /// Reads the medium or the unit's settings: conflicts with the Exclusive Access types.
    Reads,
    /// Writes the medium or changes the unit: conflicts with the Exclusive Access and Write Exclusive types.
    Writes,
}

impl Reservation {
    /// Conflicts with nothing.
    pub const ALLOWED: Reservation = Reservation { spc2: Spc2::Allowed, persistent: Persistent::Allowed };
    /// Conflicts with RESERVE only.
    pub const SPC2_ONLY: Reservation = Reservation { spc2: Spc2::Conflicts, persistent: Persistent::Allowed };
    /// Reads the medium or the unit's settings.
    pub const READS: Reservation = Reservation { spc2: Spc2::Conflicts, persistent: Persistent::Reads };
    /// Writes the medium or changes the unit.
    pub const WRITES: Reservation = Reservation { spc2: Spc2::Conflicts, persistent: Persistent::Writes };
}

/// CDB usage data (SPC-4 6.35.3): the operation code and service action as the CDB has them, elsewhere a one for every
/// bit that is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    bytes: &'static [u8],
    /// The bits of the first 16 bytes that must be zero, byte 0 in front; none past the end of the CDB.
    reserved: u128,
}

impl Usage {
    const fn new(bytes: &'static [u8]) -> Usage {
        let mut reserved = 0;
        let mut at = 0;
        while at < 16 && at < bytes.len() {
            reserved |= (!bytes[at] as u128) << (120 - 8 * at);
            at += 1;
        }
        Usage { bytes, reserved }
    }

    /// As REPORT SUPPORTED OPERATION CODES returns it.
    pub const fn bytes(&self) -> &'static [u8] {
        self.bytes
    }

    /// CDB LENGTH in bytes.
    pub const fn cdb_length(&self) -> usize {
        self.bytes.len()
    }

    /// The first bit that is set and must not be: its byte, and its number within it. `cdb` may be longer.
    fn stray_bit(&self, cdb: &[u8]) -> Option<(u16, u8)> {
        let mut head = [0; 16];
        match cdb.first_chunk::<16>() {
            Some(first) => head = *first,
            None => head.iter_mut().zip(cdb).for_each(|(head, byte)| *head = *byte),
        }
        let stray = u128::from_be_bytes(head) & self.reserved;
        if stray != 0 {
            let zeros = stray.leading_zeros();
            return Some(((zeros / 8) as u16, 7 - (zeros % 8) as u8));
        }
        if self.bytes.len() <= head.len() {
            return None;
        }
        let mut tail = self.bytes.iter().zip(cdb).enumerate().skip(16);
        let (at, stray) =
            tail.find_map(|(at, (usage, byte))| Some((at, byte & !usage)).filter(|(_, stray)| *stray != 0))?;
        Some((at as u16, 7 - stray.leading_zeros() as u8))
    }
}

/// All rows, by ascending operation code and service action.
pub fn rows() -> &'static [Row] {
    &table::ROWS
}

/// The rows of an operation code; empty if it is not supported.
pub fn rows_of(opcode: u8) -> &'static [Row] {
    let opcode = usize::from(opcode);
    table::ROWS.get(usize::from(table::FIRST[opcode])..usize::from(table::FIRST[opcode + 1])).unwrap_or_default()
}

/// The row of an operation code and service action.
///
/// `service_action` is looked at only if the operation code has service actions.
pub fn lookup(opcode: u8, service_action: u16) -> Option<&'static Row> {
    rows_of(opcode).iter().find(|row| row.service_action.is_none_or(|of_row| of_row == service_action))
}

/// What the CDB at the beginning of `cdb` means; bytes after it are not looked at.
///
/// # Errors
///
/// INVALID COMMAND OPERATION CODE for an operation code without rows; INVALID FIELD IN CDB, with a field pointer, for a
/// service action without a row, for a bit set outside the row's usage data and for field values that are
/// reserved; INVALID FIELD IN CDB without one if `cdb` ends before the CDB does.
pub fn decode(cdb: &[u8]) -> Result<(&'static Row, Command), Sense> {
    let rows = rows_of(*cdb.first().ok_or(UNKNOWN_OPCODE)?);
    let first = rows.first().ok_or(UNKNOWN_OPCODE)?;
    let parsed = Cdb::new(cdb).ok_or(TOO_SHORT)?;
    let row = match first.service_action {
        None => first,
        Some(_) => {
            let service_action = parsed.service_action();
            let found = rows.iter().find(|row| row.service_action == Some(service_action));
            found.ok_or_else(|| Sense::invalid_field_in_cdb(parsed.service_action_field()))?
        }
    };
    if parsed.bytes().len() != row.usage.cdb_length() {
        // Only the length of a variable-length CDB can differ: its ADDITIONAL CDB LENGTH is wrong.
        return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(7, 7)));
    }
    if let Some((byte, bit)) = row.usage.stray_bit(cdb) {
        return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(byte, bit)));
    }
    Ok((row, (row.decode)(parsed)?))
}

/// NACA of the CDB at the beginning of `cdb` (SAM-5 5.2): an error of this command establishes an auto contingent
/// allegiance. No if [`decode`] finds no CDB there.
pub fn naca(cdb: &[u8]) -> bool {
    Cdb::new(cdb).is_some_and(Cdb::naca)
}

const UNKNOWN_OPCODE: Sense = Sense::new(SenseKey::IllegalRequest, AdditionalSense::INVALID_COMMAND_OPERATION_CODE);
const TOO_SHORT: Sense = Sense::new(SenseKey::IllegalRequest, AdditionalSense::INVALID_FIELD_IN_CDB);

//! Asymmetric access states of target port groups: what REPORT TARGET PORT GROUPS (SPC-4 6.37) returns and SET TARGET PORT GROUPS
//! (SPC-4 6.45) brings.

use crate::scsi::{FieldPointer, ParameterData, Sense, be_bytes};

/// ASYMMETRIC ACCESS STATE of a target port group, for one unit; the discriminant is its code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AccessState {
    /// 0h: everything works, at its best.
    #[default]
    ActiveOptimized = 0x0,
    /// 1h: everything works, perhaps more slowly.
    ActiveNonOptimized = 0x1,
    /// 2h: commands that access the medium do not work; those that manage the unit and its paths do.
    Standby = 0x2,
    /// 3h: only commands that tell of the unit, and of its access states, work.
    Unavailable = 0x3,
    /// Eh: the ports of the group are taken out of service.
    Offline = 0xe,
    /// Fh: on its way from one state to another.
    Transitioning = 0xf,
}

impl AccessState {
    /// The state of a code; `None` for 4h (no unit here is LBA dependent) and reserved ones.
    pub const fn from_code(code: u8) -> Option<AccessState> {
        Some(match code {
            0x0 => AccessState::ActiveOptimized,
            0x1 => AccessState::ActiveNonOptimized,
            0x2 => AccessState::Standby,
            0x3 => AccessState::Unavailable,
            0xe => AccessState::Offline,
            0xf => AccessState::Transitioning,
            _ => return None,
        })
    }
}

/// STATUS CODE: how a group came to be in its state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum AccessStatus {
    /// 00h: that is not told.
    #[default]
    NotTold = 0x00,
    /// 01h: by SET TARGET PORT GROUPS.
    Explicit = 0x01,
}

/// A target port group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPortGroup {
    /// TARGET PORT GROUP.
    pub group: u16,
    /// ASYMMETRIC ACCESS STATE.
    pub state: AccessState,
    /// PREF: the group to be preferred.
    pub preferred: bool,
    /// STATUS CODE.
    pub status: AccessStatus,
    /// RELATIVE TARGET PORT IDENTIFIER of its ports, up to 255.
    pub ports: Vec<u16>,
}

/// T_SUP, O_SUP, U_SUP, S_SUP, AN_SUP and AO_SUP: every state but LBA dependent can be seen.
const SUPPORTED: u8 = 0x80 | 0x40 | 0x08 | 0x04 | 0x02 | 0x01;

/// What REPORT TARGET PORT GROUPS returns, with the length only header or the extended one. IMPLICIT TRANSITION TIME in the latter is
/// 0: nothing is said of it.
pub fn report_target_port_groups(extended: bool, groups: &[TargetPortGroup]) -> ParameterData {
    const EXTENDED_HEADER: u8 = 0b001 << 4;
    let mut data = ParameterData::new();
    data.counted_u32(|data| {
        if extended {
            data.u8(EXTENDED_HEADER).zeros(3);
        }
        for group in groups {
            let ports = group.ports.get(..255).unwrap_or(&group.ports);
            data.u8(u8::from(group.preferred) << 7 | group.state as u8).u8(SUPPORTED).u16(group.group);
            data.u8(0).u8(group.status as u8).u8(0).u8(ports.len() as u8);
            for port in ports {
                data.u16(0).u16(*port);
            }
        }
    });
    data
}

/// The groups of a SET TARGET PORT GROUPS parameter list and the states they are to be in. `known` says whether there is such a
/// group and its state is an initiator's to set.
///
/// # Errors
///
/// INVALID FIELD IN CDB for a list that ends within its header or a descriptor; INVALID FIELD IN PARAMETER LIST for a state that is reserved,
/// that the standard does not let be set (LBA dependent, transitioning), or that here only the configuration sets (offline: it takes a
/// port away from everybody), and for a group that is not `known`.
pub fn set_target_port_groups_list(list: &[u8], known: impl Fn(u16) -> bool) -> Result<Vec<(u16, AccessState)>, Sense> {
    let refused = |at: usize, byte: usize, bit| {
        let byte = u16::try_from(at * 4 + byte).unwrap_or(u16::MAX);
        Sense::invalid_field_in_parameter_list(FieldPointer::parameter_list(byte, bit))
    };
    if list.is_empty() {
        return Ok(Vec::new());
    }
    if list.len() < 4 || !list.len().is_multiple_of(4) {
        return Err(Sense::invalid_field_in_cdb(FieldPointer::cdb(6, 7)));
    }
    let descriptor = |(at, bytes): (usize, &[u8])| {
        let code = bytes.first().map_or(0, |byte| byte & 0x0f);
        let state = AccessState::from_code(code)
            .filter(|state| !matches!(state, AccessState::Offline | AccessState::Transitioning))
            .ok_or_else(|| refused(at, 0, 3))?;
        let group = u16::from_be_bytes(be_bytes(bytes, 2).unwrap_or_default());
        if known(group) { Ok((group, state)) } else { Err(refused(at, 2, 7)) }
    };
    // The first four bytes are reserved.
    list.chunks(4).enumerate().skip(1).map(descriptor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scsi::{AdditionalSense, SenseKey};

    #[test]
    fn codes() {
        for code in 0..=u8::MAX {
            let state = AccessState::from_code(code);
            assert_eq!(state.is_some(), matches!(code, 0..=3 | 0xe | 0xf), "{code:x}");
            assert!(state.is_none_or(|state| state as u8 == code));
        }
    }

    /// SPC-4 6.37: both headers, and the target port group descriptor.
    #[test]
    fn reports() {
        let groups = [
            TargetPortGroup {
                group: 0x0102,
                state: AccessState::ActiveOptimized,
                preferred: true,
                status: AccessStatus::NotTold,
                ports: vec![3, 0x0405],
            },
            TargetPortGroup {
                group: 7,
                state: AccessState::Transitioning,
                preferred: false,
                status: AccessStatus::Explicit,
                ports: vec![],
            },
        ];
        let descriptors = [
            0x80, 0xcf, 0x01, 0x02, 0, 0x00, 0, 2, 0, 0, 0, 3, 0, 0, 4, 5, //
            0x0f, 0xcf, 0x00, 0x07, 0, 0x01, 0, 0,
        ];
        assert_eq!(report_target_port_groups(false, &groups).bytes(), [&[0, 0, 0, 24], &descriptors[..]].concat());
        let extended = [&[0, 0, 0, 28, 0x10, 0, 0, 0], &descriptors[..]].concat();
        assert_eq!(report_target_port_groups(true, &groups).bytes(), extended);
        assert_eq!(report_target_port_groups(true, &[]).bytes(), [0, 0, 0, 4, 0x10, 0, 0, 0]);
    }

    #[test]
    fn a_group_tells_of_as_many_ports_as_its_count_can() {
        let ports = (1..=300).collect();
        let (state, status) = Default::default();
        let group = TargetPortGroup { group: 1, state, preferred: false, status, ports };
        let data = report_target_port_groups(false, &[group]);
        assert_eq!((data.bytes()[11], data.len()), (255, 4 + 8 + 255 * 4));
    }

    fn list(bytes: &[u8]) -> Result<Vec<(u16, AccessState)>, Sense> {
        set_target_port_groups_list(bytes, |group| group == 1 || group == 0x0203)
    }

    #[test]
    fn lists() {
        use AccessState::*;
        assert_eq!(list(&[]), Ok(vec![]));
        assert_eq!(list(&[0xff; 4]), Ok(vec![]), "the header is reserved");
        let one = [0, 0, 0, 0, 0x02, 0, 0, 1];
        assert_eq!(list(&one), Ok(vec![(1, Standby)]));
        let both = [0, 0, 0, 0, 0xf3, 0xff, 0, 1, 0x01, 0, 2, 3];
        assert_eq!(
            list(&both),
            Ok(vec![(1, Unavailable), (0x0203, ActiveNonOptimized)]),
            "reserved bits are not looked at"
        );
    }

    #[test]
    fn lists_that_are_refused() {
        for length in [1, 3, 5, 6, 7, 9] {
            let sense = Sense::invalid_field_in_cdb(FieldPointer::cdb(6, 7));
            assert_eq!(list(&vec![0; length]), Err(sense), "{length}");
        }
        for state in (0x4..=0xd).chain([0xe, 0xf]) {
            let sense = list(&[0, 0, 0, 0, 0x00, 0, 0, 1, state, 0, 0, 1]).unwrap_err();
            assert_eq!(
                (sense.key, sense.code),
                (SenseKey::IllegalRequest, AdditionalSense::INVALID_FIELD_IN_PARAMETER_LIST)
            );
            assert_eq!(sense.field, Some(FieldPointer::parameter_list(8, 3)), "{state:x}");
        }
        let sense = list(&[0, 0, 0, 0, 0x00, 0, 0, 2]).unwrap_err();
        assert_eq!(sense.field, Some(FieldPointer::parameter_list(6, 7)));
    }
}

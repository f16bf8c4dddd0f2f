//! REPORT IDENTIFYING INFORMATION and SET IDENTIFYING INFORMATION.

use std::sync::Arc;

use super::change::{Change, Fence};
use super::transfer::{parameter_data, parameter_list};
use super::{Answer, Plan, Planned, Task};
use crate::lu::Itl;
use crate::scsi::spc::{self as data, IDENTIFYING_INFORMATION_SUPPORTED, IdentifyingInformationType};
use crate::scsi::{AdditionalSense, FieldPointer, Sense, SenseKey};

fn known(kind: u8) -> Result<IdentifyingInformationType, Sense> {
    IdentifyingInformationType::from_code(kind).ok_or(Sense::invalid_field_in_cdb(FieldPointer::cdb(10, 7)))
}

/// REPORT IDENTIFYING INFORMATION (SPC-4 6.32).
pub(super) fn report<'a>(task: Task<'a, '_>, kind: u8, allocation_length: u32) -> Planned<'a> {
    let data = if kind == IDENTIFYING_INFORMATION_SUPPORTED {
        data::report_identifying_information_types()
    } else {
        let kind = known(kind)?;
        task.itl.lu().records(|records| data::report_identifying_information(records.identifying.get(kind)))
    };
    parameter_data(task.buf, data, allocation_length)
}

/// SET IDENTIFYING INFORMATION (SPC-4 6.43). It is durable, if anything of the unit is, before it is answered. All nexuses but this one
/// are told: DEVICE IDENTIFIER CHANGED.
pub(super) fn set<'a>(task: Task<'a, '_>, kind: u8, parameter_list_length: u32) -> Planned<'a> {
    let kind = known(kind)?;
    let length = u16::try_from(parameter_list_length).ok().filter(|length| *length <= kind.maximum_length());
    let length = length.ok_or(Sense::invalid_field_in_cdb(FieldPointer::cdb(6, 7)))?;
    let information = parameter_list(task.buf, length)?;
    kind.check(&information)?;
    Ok(Plan::Change(Box::new(SetIdentifying { itl: Arc::clone(task.itl), kind, information, evaluated: false })))
}

/// The unit's state cannot be written down.
const NOT_KEPT: Sense = Sense::new(SenseKey::HardwareError, AdditionalSense::INTERNAL_TARGET_FAILURE);

/// A SET IDENTIFYING INFORMATION on its way.
struct SetIdentifying {
    itl: Arc<Itl>,
    kind: IdentifyingInformationType,
    information: Vec<u8>,
    /// The unit expects it.
    evaluated: bool,
}

impl SetIdentifying {
    fn abandon(&mut self) {
        if std::mem::take(&mut self.evaluated) {
            self.itl.lu().expect_identifying(&self.itl, None);
        }
    }
}

impl Change for SetIdentifying {
    fn evaluate(&mut self) -> Result<Fence, Answer> {
        let lu = self.itl.lu();
        if lu.is_kept() {
            lu.expect_identifying(&self.itl, Some((self.kind, self.information.clone())));
            self.evaluated = true;
        }
        Ok(Fence { persists: self.evaluated, ..Fence::default() })
    }

    fn persist(&mut self) -> Result<(), Answer> {
        self.itl.lu().persist().map_err(|_| {
            self.abandon();
            NOT_KEPT.into()
        })
    }

    fn apply(&mut self) {
        self.evaluated = false;
        self.itl.lu().set_identifying(&self.itl, self.kind, self.information.clone());
    }

    fn grant(&mut self) -> Plan<'static> {
        self.made()
    }

    fn made(&mut self) -> Plan<'static> {
        Answer::good(self.information.len() as u64).into()
    }
}

impl Drop for SetIdentifying {
    fn drop(&mut self) {
        self.abandon();
    }
}

#[cfg(test)]
mod tests {
    use crate::device_server::testkit::{Bench, MemImage, check, good};
    use crate::lu::Attention;
    use crate::scsi::{AdditionalSense, FieldPointer, Sense, SenseKey};

    const PERIPHERAL: u8 = 0;
    const TEXT: u8 = 2;

    /// REPORT IDENTIFYING INFORMATION A3h/05h: bytes 6–9 allocation length, byte 10 type.
    fn report(kind: u8, length: u16) -> [u8; 12] {
        let [hi, lo] = length.to_be_bytes();
        [0xa3, 0x05, 0, 0, 0, 0, 0, 0, hi, lo, kind << 1, 0]
    }

    /// SET IDENTIFYING INFORMATION A4h/06h: bytes 6–9 parameter list length, byte 10 type.
    fn set(kind: u8, length: u16) -> [u8; 12] {
        let [hi, lo] = length.to_be_bytes();
        [0xa4, 0x06, 0, 0, 0, 0, 0, 0, hi, lo, kind << 1, 0]
    }

    fn bench() -> Bench {
        Bench::new(MemImage::patterned(51_200))
    }

    fn invalid_field(byte: u16) -> Sense {
        Sense::new(SenseKey::IllegalRequest, AdditionalSense(0x2400)).with_field(FieldPointer::cdb(byte, 7))
    }

    #[test]
    fn each_type_is_kept_by_itself() {
        let b = bench();
        let other = crate::device_server::testkit::nexus_of(b.itl.lu().clone(), None);
        let none = b.data_in(&report(PERIPHERAL, 100), 100);
        assert_eq!((none.answer, &none.data[..4]), (good(4), &[0, 0, 0, 0][..]));
        assert_eq!(b.data_out(&set(PERIPHERAL, 3), &[1, 0xff, 3]), good(3));
        assert_eq!(other.gate().take_attention(), Some(Attention::DeviceIdentifierChanged));
        assert_eq!(b.itl.gate().take_attention(), None);
        assert_eq!(b.data_out(&set(TEXT, 5), b"name\0"), good(5));
        let ran = b.data_in(&report(PERIPHERAL, 100), 100);
        assert_eq!((ran.answer, &ran.data[..7]), (good(7), &[0, 0, 0, 3, 1, 0xff, 3][..]));
        let ran = b.data_in(&report(TEXT, 100), 100);
        assert_eq!((ran.answer, &ran.data[..9]), (good(9), &b"\0\0\0\x05name\0"[..]));
        assert_eq!(b.none(&set(PERIPHERAL, 0)), good(0));
        assert_eq!(b.data_in(&report(PERIPHERAL, 100), 100).answer, good(4), "taken away");
        b.itl.lu().reset();
        b.itl.gate().take_attention();
        assert_eq!(b.data_in(&report(TEXT, 100), 100).answer, good(9), "resets leave it");
    }

    #[test]
    fn supported_types_and_allocation_lengths() {
        let b = bench();
        let whole = [0, 0, 0, 8, 0, 0, 0, 64, 4, 0, 1, 0];
        for (length, moved) in [(0, 0), (1, 1), (12, 12), (13, 12), (0xffff, 12)] {
            let ran = b.data_in(&report(0x7f, length), 300);
            assert_eq!(ran.answer, good(moved as u64), "{length}");
            assert_eq!(ran.data[..moved], whole[..moved]);
            assert!(ran.data[moved..].iter().all(|byte| *byte == 0xee));
        }
    }

    #[test]
    fn the_longest_and_longer() {
        let b = bench();
        for (kind, longest) in [(PERIPHERAL, 64), (TEXT, 256)] {
            assert_eq!(b.data_out(&set(kind, longest), &vec![0; 300]), good(u64::from(longest)));
            assert_eq!(b.data_in(&report(kind, 1000), 1000).answer, good(4 + u64::from(longest)));
            assert_eq!(b.data_out(&set(kind, longest + 1), &vec![0; 300]), check(invalid_field(6)));
        }
        let mut long = set(PERIPHERAL, 0);
        long[6] = 1;
        assert_eq!(b.data_out(&long, &[0; 64]), check(invalid_field(6)));
    }

    #[test]
    fn refused() {
        let b = bench();
        for kind in (0..0x80).filter(|kind| ![PERIPHERAL, TEXT].contains(kind)) {
            assert_eq!(b.data_out(&set(kind, 1), &[0]), check(invalid_field(10)), "{kind}");
            if kind != 0x7f {
                assert_eq!(b.data_in(&report(kind, 8), 8).answer, check(invalid_field(10)), "{kind}");
            }
        }
        let endless = Sense::new(SenseKey::IllegalRequest, AdditionalSense(0x2600));
        let endless = endless.with_field(FieldPointer::parameter_list(3, 7));
        assert_eq!(b.data_out(&set(TEXT, 4), b"name"), check(endless));
        assert_eq!(b.data_in(&report(TEXT, 8), 8).answer, good(4), "nothing was kept");
        assert_eq!(b.data_out(&set(TEXT, 8), b"name"), good(8), "overflow");
    }
}

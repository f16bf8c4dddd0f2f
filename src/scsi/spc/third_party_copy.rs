//! The parameter list of EXTENDED COPY(LID1) (SPC-4 6.5), as far as disks copy to disks.
//!
//! Known are identification CSCD descriptors (E4h, SPC-4 6.4.5.6) and segment descriptors block → block (02h, SPC-4 6.4.6.5) and block with offset
//! → block with offset (0Ah, SPC-4 6.4.6.9). What is wrong with a list is found before anything is copied, and pointed at.

use super::{CopyLimits, Designation};
use crate::scsi::{AdditionalSense, FieldPointer, Sense, be_bytes};

/// Length of the header.
const HEADER: usize = 16;
/// Length of every CSCD descriptor that there is, but for extensions.
const CSCD: usize = 32;
/// Identification CSCD descriptor.
pub const CSCD_IDENTIFICATION: u8 = 0xe4;
/// Segment descriptor: block device to block device.
pub const SEGMENT_BLOCK_TO_BLOCK: u8 = 0x02;
/// Segment descriptor: block device with offset to block device with offset.
pub const SEGMENT_BLOCK_OFFSET_TO_BLOCK_OFFSET: u8 = 0x0a;
/// The CSCD descriptor ID of the unit that the command was sent to (SPC-4 table 109).
pub const CSCD_ITSELF: u16 = 0xffff;

/// By which name a copy is known afterwards (SPC-4 table 102, LIST ID USAGE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListId {
    /// 00b: this list identifier, and what became of the copy is kept for the initiator to ask.
    Kept(u8),
    /// 10b: this one, while it runs.
    Passing(u8),
    /// 11b: none.
    None,
}

/// A parameter list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtendedCopy {
    /// LIST IDENTIFIER and LIST ID USAGE. (STR and PRIORITY do not matter to disks.)
    pub list: ListId,
    /// The CSCD descriptors.
    pub cscds: Vec<Cscd>,
    /// The segment descriptors.
    pub segments: Vec<Segment>,
}

/// A CSCD descriptor: a source or destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cscd {
    /// Where it is in the parameter list.
    pub at: u16,
    /// PERIPHERAL DEVICE TYPE.
    pub device_type: u8,
    descriptor: [u8; CSCD],
    designator_length: usize,
}

impl Cscd {
    /// The unit's name.
    pub fn designation(&self) -> Designation<'_> {
        let [_, _, _, _, code_set, designator_type, ..] = self.descriptor;
        Designation {
            code_set: code_set & 0x0f,
            association: designator_type >> 4 & 0x03,
            designator_type: designator_type & 0x0f,
            designator: self.descriptor.get(8..8 + self.designator_length).unwrap_or_default(),
        }
    }

    /// PAD: a destination block that is not filled is filled with zeros, a source block of which something is left is left.
    pub fn pad(&self) -> bool {
        self.descriptor[28] & 0x04 != 0
    }

    /// DISK BLOCK LENGTH.
    pub fn block_length(&self) -> u32 {
        let [.., high, middle, low] = self.descriptor;
        u32::from_be_bytes([0, high, middle, low])
    }
}

/// A segment descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it is in the parameter list.
    pub at: u16,
    /// CAT: what does not fill a block goes on in the next segment.
    pub cat: bool,
    /// SOURCE CSCD DESCRIPTOR ID.
    pub source: u16,
    /// DESTINATION CSCD DESCRIPTOR ID.
    pub destination: u16,
    /// SOURCE BLOCK DEVICE LOGICAL BLOCK ADDRESS.
    pub source_lba: u64,
    /// DESTINATION BLOCK DEVICE LOGICAL BLOCK ADDRESS.
    pub destination_lba: u64,
    /// How much it copies.
    pub amount: Amount,
}

/// How much a segment copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// 02h: so many blocks of the source; with DC, of the destination.
    Blocks {
        /// BLOCK DEVICE NUMBER OF BLOCKS.
        blocks: u16,
        /// DC: destination count.
        destination: bool,
    },
    /// 0Ah: so many bytes, from and to somewhere in the first blocks.
    Bytes {
        /// NUMBER OF BYTES.
        bytes: u32,
        /// SOURCE BLOCK DEVICE BYTE OFFSET.
        source: u16,
        /// DESTINATION BLOCK DEVICE BYTE OFFSET.
        destination: u16,
    },
}

impl Segment {
    /// Where its fields are in it, for a segment pointer: SOURCE CSCD DESCRIPTOR ID.
    pub const SOURCE: FieldPointer = FieldPointer::parameter_list(4, 7);
    /// DESTINATION CSCD DESCRIPTOR ID.
    pub const DESTINATION: FieldPointer = FieldPointer::parameter_list(6, 7);
    /// SOURCE BLOCK DEVICE LOGICAL BLOCK ADDRESS.
    pub const SOURCE_LBA: FieldPointer = FieldPointer::parameter_list(12, 7);
    /// DESTINATION BLOCK DEVICE LOGICAL BLOCK ADDRESS.
    pub const DESTINATION_LBA: FieldPointer = FieldPointer::parameter_list(20, 7);
}

const LENGTH_ERROR: Sense = Sense::illegal_request(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR);

/// The field whose most significant bit is `bit` of byte `at`.
fn field(at: usize, bit: u8) -> FieldPointer {
    FieldPointer::parameter_list(u16::try_from(at).unwrap_or(u16::MAX), bit)
}

fn invalid(at: usize, bit: u8) -> Sense {
    Sense::invalid_field_in_parameter_list(field(at, bit))
}

fn u8_at(list: &[u8], at: usize) -> u8 {
    list.get(at).copied().unwrap_or_default()
}

fn u16_at(list: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(be_bytes(list, at).unwrap_or_default())
}

fn u32_at(list: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(be_bytes(list, at).unwrap_or_default())
}

fn u64_at(list: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(be_bytes(list, at).unwrap_or_default())
}

impl ExtendedCopy {
    /// Parses a parameter list, which is not empty. What follows its descriptors is not looked at.
    ///
    /// # Errors
    ///
    /// ILLEGAL REQUEST with what is wrong (SPC-4 6.4.3 to 6.4.6) and a field pointer: PARAMETER LIST LENGTH ERROR for descriptors that are cut off or
    /// too long together, TOO MANY …, UNSUPPORTED …, INLINE DATA LENGTH EXCEEDED (none is taken), and INVALID FIELD IN PARAMETER LIST.
    pub fn parse(list: &[u8], limits: &CopyLimits) -> Result<ExtendedCopy, Sense> {
        if list.len() < HEADER {
            return Err(LENGTH_ERROR);
        }
        let flags = u8_at(list, 1);
        if flags & 0xc0 != 0 {
            return Err(invalid(1, 7 - flags.leading_zeros() as u8));
        }
        if let Some(at) = (4..8).find(|at| u8_at(list, *at) != 0) {
            return Err(invalid(at, 7));
        }
        let id = u8_at(list, 0);
        let id = match flags >> 3 & 0b11 {
            0b00 => ListId::Kept(id),
            0b10 => ListId::Passing(id),
            0b11 if id == 0 => ListId::None,
            0b11 => return Err(invalid(0, 7)),
            _ => return Err(invalid(1, 4)),
        };
        let (cscd_length, segment_length) = (usize::from(u16_at(list, 2)), u32_at(list, 8) as usize);
        let total = cscd_length.saturating_add(segment_length);
        let cut_off = list.len() - HEADER < total;
        if total > limits.descriptor_list_length as usize || cut_off || !cscd_length.is_multiple_of(CSCD) {
            return Err(LENGTH_ERROR);
        }
        if u32_at(list, 12) > limits.inline_data_length {
            return Err(Sense::illegal_request(AdditionalSense::INLINE_DATA_LENGTH_EXCEEDED).with_field(field(12, 7)));
        }
        if cscd_length / CSCD > usize::from(limits.cscd_descriptors) {
            return Err(Sense::illegal_request(AdditionalSense::TOO_MANY_TARGET_DESCRIPTORS).with_field(field(2, 7)));
        }
        let descriptors = list.get(HEADER..).unwrap_or_default();
        let (cscds, segments) = descriptors.split_at_checked(cscd_length).ok_or(LENGTH_ERROR)?;
        let segments = segments.get(..segment_length).ok_or(LENGTH_ERROR)?;
        Ok(ExtendedCopy {
            list: id,
            cscds: parse_cscds(cscds)?,
            segments: parse_segments(segments, HEADER + cscd_length, limits)?,
        })
    }
}

fn parse_cscds(list: &[u8]) -> Result<Vec<Cscd>, Sense> {
    let (descriptors, _) = list.as_chunks::<CSCD>();
    let parse = |(number, descriptor): (usize, &[u8; CSCD])| {
        let at = HEADER + number * CSCD;
        if descriptor[0] != CSCD_IDENTIFICATION {
            let code = AdditionalSense::UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE;
            return Err(Sense::illegal_request(code).with_field(field(at, 7)));
        }
        // LU ID TYPE, NUL and RELATIVE INITIATOR PORT IDENTIFIER do not matter: there is one way to each unit here.
        let designator_length = usize::from(descriptor[7]);
        if designator_length > 20 {
            return Err(invalid(at + 7, 7));
        }
        let device_type = descriptor[1] & 0x1f;
        Ok(Cscd { at: at as u16, device_type, descriptor: *descriptor, designator_length })
    };
    descriptors.iter().enumerate().map(parse).collect()
}

/// `start` is where the list begins in the parameter list.
fn parse_segments(list: &[u8], start: usize, limits: &CopyLimits) -> Result<Vec<Segment>, Sense> {
    let mut segments = Vec::new();
    let mut rest = list;
    while let Some(kind) = rest.first() {
        let at = start + list.len() - rest.len();
        if segments.len() == usize::from(limits.segment_descriptors) {
            let code = AdditionalSense::TOO_MANY_SEGMENT_DESCRIPTORS;
            return Err(Sense::illegal_request(code).with_field(field(at, 7)));
        }
        let length = match *kind {
            SEGMENT_BLOCK_TO_BLOCK => 0x18,
            SEGMENT_BLOCK_OFFSET_TO_BLOCK_OFFSET => 0x1c,
            _ => {
                let code = AdditionalSense::UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE;
                return Err(Sense::illegal_request(code).with_field(field(at, 7)));
            }
        };
        let (descriptor, following) = rest.split_at_checked(4 + length).ok_or(LENGTH_ERROR)?;
        if usize::from(u16_at(descriptor, 2)) != length {
            return Err(invalid(at + 2, 7));
        }
        segments.push(parse_segment(*kind, descriptor, at, limits)?);
        rest = following;
    }
    Ok(segments)
}

fn parse_segment(kind: u8, descriptor: &[u8], at: usize, limits: &CopyLimits) -> Result<Segment, Sense> {
    let flags = u8_at(descriptor, 1);
    let (known, amount) = match kind {
        SEGMENT_BLOCK_TO_BLOCK => {
            (0x03, Amount::Blocks { blocks: u16_at(descriptor, 10), destination: flags & 0x02 != 0 })
        }
        _ => {
            let bytes = u32_at(descriptor, 8);
            if bytes > limits.segment_length {
                return Err(invalid(at + 8, 7));
            }
            (0x01, Amount::Bytes { bytes, source: u16_at(descriptor, 28), destination: u16_at(descriptor, 30) })
        }
    };
    let stray = flags & !known;
    if stray != 0 {
        return Err(invalid(at + 1, 7 - stray.leading_zeros() as u8));
    }
    Ok(Segment {
        at: at as u16,
        cat: flags & 0x01 != 0,
        source: u16_at(descriptor, 4),
        destination: u16_at(descriptor, 6),
        source_lba: u64_at(descriptor, 12),
        destination_lba: u64_at(descriptor, 20),
        amount,
    })
}

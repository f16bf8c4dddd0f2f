//! Parameter lists of POPULATE TOKEN and WRITE USING TOKEN (SBC-3 5.6, 5.51), and what the Third-party Copy VPD page says of them.

use super::Extent;
use crate::scsi::spc::{ROD_TOKEN_SIZE, RodToken, rod_type};
use crate::scsi::{AdditionalSense, FieldPointer, ParameterData, Sense, be_bytes};

/// Length of one block device range descriptor.
const DESCRIPTOR: usize = 16;

/// What begins the list of POPULATE TOKEN, and what begins that of WRITE USING TOKEN.
const POPULATE_HEADER: usize = 16;
const WRITE_HEADER: usize = 536;

/// The most bytes of either list that can mean something: a header, and as many descriptors as their length field can count.
pub const MAX_TOKEN_LIST: usize = WRITE_HEADER + u16::MAX as usize;

/// What one of these commands may ask for, as the Third-party Copy VPD page tells, and the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenLimits {
    /// MAXIMUM RANGE DESCRIPTORS.
    pub descriptors: u16,
    /// MAXIMUM INACTIVITY TIMEOUT in seconds.
    pub maximum_inactivity: u32,
    /// DEFAULT INACTIVITY TIMEOUT in seconds.
    pub default_inactivity: u32,
    /// MAXIMUM TOKEN TRANSFER SIZE in blocks.
    pub blocks: u64,
    /// OPTIMAL TRANSFER COUNT in blocks.
    pub optimal_blocks: u64,
    /// The unit's number of logical blocks.
    pub capacity: u64,
}

impl TokenLimits {
    /// Block Device ROD Token Limits third-party copy descriptor, 0000h (SBC-3 6.6.9.3).
    pub fn write(&self, data: &mut ParameterData) {
        data.u16(0x0000).counted_u16(|data| {
            data.zeros(6).u16(self.descriptors);
            data.u32(self.maximum_inactivity).u32(self.default_inactivity);
            data.u64(self.blocks).u64(self.optimal_blocks);
        });
    }
}

/// What POPULATE TOKEN asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PopulateToken {
    /// ROD TYPE of the token to be made.
    pub rod_type: u32,
    /// How long it lives unused, in seconds.
    pub inactivity: u32,
    /// The blocks it represents, in this order; none twice, and no range empty.
    pub ranges: Vec<Extent>,
}

/// What WRITE USING TOKEN asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteUsingToken {
    /// DEL_TKN.
    pub delete: bool,
    /// OFFSET INTO ROD, in blocks of this unit.
    pub offset: u64,
    /// ROD TOKEN.
    pub token: RodToken,
    /// The blocks to be written, in this order; none twice, and no range empty.
    pub ranges: Vec<Extent>,
    /// Where in the list each of them stands.
    pub fields: Vec<u16>,
}

/// Either list, as far as status goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Immediate<T> {
    /// IMMED: errors that come up later are not the command's, but are told by RECEIVE ROD TOKEN INFORMATION.
    pub immed: bool,
    /// The rest.
    pub what: T,
}

/// Reads the parameter list of POPULATE TOKEN. With RTV zero the token is change vulnerable; so it is if any kind will do.
///
/// # Errors
///
/// PARAMETER LIST LENGTH ERROR if the list ends before its header does; INVALID FIELD IN PARAMETER LIST, with a pointer to it, if a field is
/// beyond a limit or asks for what is not here, and for blocks that are in two ranges; TOO MANY SEGMENT DESCRIPTORS; LOGICAL BLOCK ADDRESS OUT
/// OF RANGE.
pub fn populate_token(list: &[u8], limits: &TokenLimits) -> Result<Immediate<PopulateToken>, Sense> {
    let flags = *list.get(..POPULATE_HEADER).and_then(|header| header.get(2)).ok_or(TRUNCATED)?;
    let length = lengths(list, POPULATE_HEADER)?;
    let inactivity = match u32::from_be_bytes(be_bytes(list, 4).ok_or(TRUNCATED)?) {
        0 => limits.default_inactivity,
        asked if asked > limits.maximum_inactivity => return Err(invalid(4)),
        asked => asked,
    };
    let asked = u32::from_be_bytes(be_bytes(list, 8).ok_or(TRUNCATED)?);
    let rod_type = match asked {
        _ if flags & 0x02 == 0 => rod_type::POINT_IN_TIME_CHANGE_VULNERABLE,
        rod_type::POINT_IN_TIME_ANY => rod_type::POINT_IN_TIME_CHANGE_VULNERABLE,
        rod_type::POINT_IN_TIME_DEFAULT | rod_type::POINT_IN_TIME_CHANGE_VULNERABLE => asked,
        _ => return Err(invalid(8)),
    };
    let (ranges, _) = ranges(list, POPULATE_HEADER, length, limits)?;
    Ok(Immediate { immed: flags & 0x01 != 0, what: PopulateToken { rod_type, inactivity, ranges } })
}

/// Reads the parameter list of WRITE USING TOKEN. The token is not looked at.
///
/// # Errors
///
/// As [`populate_token`].
pub fn write_using_token(list: &[u8], limits: &TokenLimits) -> Result<Immediate<WriteUsingToken>, Sense> {
    let flags = *list.get(..WRITE_HEADER).and_then(|header| header.get(2)).ok_or(TRUNCATED)?;
    let length = lengths(list, WRITE_HEADER)?;
    let offset = u64::from_be_bytes(be_bytes(list, 8).ok_or(TRUNCATED)?);
    let token = RodToken::received(&be_bytes::<ROD_TOKEN_SIZE>(list, 16).ok_or(TRUNCATED)?);
    let (ranges, fields) = ranges(list, WRITE_HEADER, length, limits)?;
    let what = WriteUsingToken { delete: flags & 0x02 != 0, offset, token, ranges, fields };
    Ok(Immediate { immed: flags & 0x01 != 0, what })
}

/// The data length in front of a list and BLOCK DEVICE RANGE DESCRIPTOR LENGTH at the end of its header; the latter. There must be room for one
/// descriptor, and the former must cover the latter.
fn lengths(list: &[u8], header: usize) -> Result<usize, Sense> {
    let data_length = field(list, 0)?;
    // It does not count itself.
    if data_length < header - 2 + DESCRIPTOR {
        return Err(invalid(0));
    }
    let length = field(list, header - 2)?;
    if length < DESCRIPTOR {
        return Err(invalid(header - 2));
    }
    if data_length < header - 2 + length {
        return Err(invalid(0));
    }
    Ok(length)
}

/// The ranges of a list, and where their descriptors stand. A descriptor that its length or the end of the list cuts is ignored; one of no blocks
/// asks for nothing, but its LBA must be one of the unit or the one behind its last.
fn ranges(list: &[u8], at: usize, length: usize, limits: &TokenLimits) -> Result<(Vec<Extent>, Vec<u16>), Sense> {
    let end = list.len().min(at + length);
    let descriptors = list.get(at..end).unwrap_or_default().chunks_exact(DESCRIPTOR);
    if descriptors.len() > usize::from(limits.descriptors) {
        return Err(Sense::illegal_request(AdditionalSense::TOO_MANY_SEGMENT_DESCRIPTORS));
    }
    let (mut ranges, mut fields) = (Vec::with_capacity(descriptors.len()), Vec::with_capacity(descriptors.len()));
    let mut total = 0;
    for (index, descriptor) in descriptors.enumerate() {
        let at = at + index * DESCRIPTOR;
        let lba = u64::from_be_bytes(be_bytes(descriptor, 0).ok_or(TRUNCATED)?);
        let blocks = u64::from(u32::from_be_bytes(be_bytes(descriptor, 8).ok_or(TRUNCATED)?));
        if lba.checked_add(blocks).is_none_or(|end| end > limits.capacity) {
            return Err(Sense::lba_out_of_range(pointer(at)));
        }
        // At most 4095 descriptors of 32 bits each.
        total += blocks;
        if total > limits.blocks {
            return Err(invalid(at + 8));
        }
        if blocks > 0 {
            ranges.push(Extent { lba, blocks });
            fields.push(at as u16);
        }
    }
    if let Some(again) = first_overlap(&ranges) {
        return Err(invalid(fields.get(again).map_or(at, |at| usize::from(*at))));
    }
    Ok((ranges, fields))
}

/// The index of a range that has a block of another one, of which it is the later in the list.
fn first_overlap(ranges: &[Extent]) -> Option<usize> {
    let mut sorted: Vec<(usize, &Extent)> = ranges.iter().enumerate().collect();
    sorted.sort_by_key(|(_, range)| range.lba);
    let neighbours = sorted.iter().zip(sorted.iter().skip(1));
    // None is empty, so if any two overlap, two neighbours do.
    let overlapping = neighbours.filter(|((_, a), (_, b))| b.lba < a.lba + a.blocks);
    overlapping.map(|((a, _), (b, _))| *a.max(b)).min()
}

const TRUNCATED: Sense = Sense::illegal_request(AdditionalSense::PARAMETER_LIST_LENGTH_ERROR);

fn pointer(byte: usize) -> FieldPointer {
    // Less than MAX_TOKEN_LIST; and what counts descriptors is bounded by the limit on them.
    FieldPointer::parameter_list(u16::try_from(byte).unwrap_or(u16::MAX), 7)
}

fn invalid(byte: usize) -> Sense {
    Sense::invalid_field_in_parameter_list(pointer(byte))
}

fn field(list: &[u8], at: usize) -> Result<usize, Sense> {
    be_bytes(list, at).map(u16::from_be_bytes).map(usize::from).ok_or(TRUNCATED)
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;

//! SRP_CMD: a command (SRP r16a 6.8).

use super::buffer::Parsed;
use super::iu::{IuType, be64, field, fixed, put};
use super::{BufferFormat, Buffers, DirectDescriptor, IuError};
use crate::scsi::{Lun, TaskAttribute};

/// Length of the fixed part, up to and with the first 16 bytes of the CDB.
const HEAD_LEN: usize = 48;
/// What the ADDITIONAL CDB LENGTH field can say at most: 63 words.
const ADDITIONAL_CDB_MAX: usize = 252;
/// How many bytes of a CDB lie in the fixed part.
pub const CDB_LEN: usize = 16;

/// SOLICITED NOTIFICATION bits of CMD and TSK_MGMT: which answers are to interrupt the initiator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SolicitedNotification {
    /// SCSOLNT: an answer of success.
    pub successful: bool,
    /// UCSOLNT: any other.
    pub unsuccessful: bool,
}

impl SolicitedNotification {
    pub(super) fn to_byte(self) -> u8 {
        u8::from(self.successful) << 1 | u8::from(self.unsuccessful) << 2
    }

    pub(super) fn from_byte(b: u8) -> SolicitedNotification {
        SolicitedNotification { successful: b & 0x02 != 0, unsuccessful: b & 0x04 != 0 }
    }
}

/// A command. Borrows its CDB and its descriptors: making one copies nothing and allocates nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cmd<'a> {
    /// Which answers are to interrupt the initiator.
    pub notify: SolicitedNotification,
    /// The initiator's name for the command. It may repeat: initiators are not trusted with names.
    pub tag: u64,
    /// The logical unit addressed.
    pub lun: Lun,
    /// Task attribute.
    pub attribute: TaskAttribute,
    /// The whole CDB: the first 16 bytes and the additional ones.
    pub cdb: &'a [u8],
    /// Where Data-Out comes from.
    pub data_out: Buffers<'a>,
    /// Where Data-In goes.
    pub data_in: Buffers<'a>,
}

impl<'a> Cmd<'a> {
    /// The first 16 bytes of the CDB, padded with zeros: what `CMD_REQ` carries as `scb`.
    pub fn scb(&self) -> [u8; CDB_LEN] {
        let mut scb = [0; CDB_LEN];
        for (to, from) in scb.iter_mut().zip(self.cdb) {
            *to = *from;
        }
        scb
    }

    /// The CDB past its 16th byte.
    pub fn additional_cdb(&self) -> &'a [u8] {
        self.cdb.get(CDB_LEN..).unwrap_or(&[])
    }

    /// The wire form. Additional CDB bytes are padded to whole words; [`IuError::TooLong`] if there are more than 252.
    pub fn encode(&self) -> Result<Vec<u8>, IuError> {
        let extra = self.additional_cdb();
        let padded = extra.len().next_multiple_of(4);
        if padded > ADDITIONAL_CDB_MAX {
            return Err(IuError::TooLong);
        }
        let mut out = vec![0; HEAD_LEN + padded];
        out[0] = IuType::Cmd as u8;
        out[1] = self.notify.to_byte();
        out[5] = (self.data_out.format() as u8) << 4 | self.data_in.format() as u8;
        out[6] = self.data_out.count();
        out[7] = self.data_in.count();
        put(&mut out, 8, &self.tag.to_be_bytes());
        put(&mut out, 20, &self.lun.0);
        out[29] = attribute_code(self.attribute);
        out[31] = padded as u8;
        put(&mut out, 32, &self.scb());
        put(&mut out, HEAD_LEN, extra);
        self.data_out.encode(&mut out);
        self.data_in.encode(&mut out);
        Ok(out)
    }

    /// Reads the wire form. The descriptors are put into `pieces`, which is emptied first.
    pub fn decode(bytes: &'a [u8], pieces: &'a mut Vec<DirectDescriptor>) -> Result<Cmd<'a>, IuError> {
        let head = fixed::<HEAD_LEN>(bytes, IuType::Cmd)?;
        let extra = usize::from(head[31] & 0xfc);
        let cdb = bytes.get(32..HEAD_LEN + extra).ok_or(IuError::Short)?;
        let rest = bytes.get(HEAD_LEN + extra..).ok_or(IuError::Short)?;
        pieces.clear();
        let (out, rest) = Parsed::decode(BufferFormat::try_from(head[5] >> 4)?, head[6], rest, pieces)?;
        let (inn, _) = Parsed::decode(BufferFormat::try_from(head[5] & 0x0f)?, head[7], rest, pieces)?;
        let (out_pieces, in_pieces) = pieces.split_at_checked(out.pieces()).ok_or(IuError::Short)?;
        Ok(Cmd {
            notify: SolicitedNotification::from_byte(head[1]),
            tag: be64(head, 8),
            lun: Lun(field(head, 20)),
            attribute: attribute_from_code(head[29] & 0x07)?,
            cdb,
            data_out: out.over(out_pieces),
            data_in: inn.over(in_pieces),
        })
    }
}

fn attribute_code(attribute: TaskAttribute) -> u8 {
    match attribute {
        TaskAttribute::Simple => 0,
        TaskAttribute::HeadOfQueue => 1,
        TaskAttribute::Ordered => 2,
        TaskAttribute::Aca => 4,
    }
}

fn attribute_from_code(code: u8) -> Result<TaskAttribute, IuError> {
    match code {
        0 => Ok(TaskAttribute::Simple),
        1 => Ok(TaskAttribute::HeadOfQueue),
        2 => Ok(TaskAttribute::Ordered),
        4 => Ok(TaskAttribute::Aca),
        other => Err(IuError::Attribute(other)),
    }
}

//! SRP_RSP: the answer to a command or a task management function (SRP r16a 6.9).

use super::IuError;
use super::iu::{IuType, be32, be64, fixed, put};
use crate::mem::Direction;
use crate::scsi::{CommandResult, FunctionResponse, HostByte, Status};

/// Length of the fixed part.
const HEAD_LEN: usize = 36;
/// Length of the response data: three reserved bytes and the code.
const RESPONSE_LEN: usize = 4;

const RSPVALID: u8 = 0x01;
const SNSVALID: u8 = 0x02;
const DOOVER: u8 = 0x04;
const DOUNDER: u8 = 0x08;
const DIOVER: u8 = 0x10;
const DIUNDER: u8 = 0x20;

/// How far a data transfer missed the data buffer's length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Residual {
    /// The buffer was used up exactly.
    #[default]
    None,
    /// This many bytes of the buffer were not used.
    Under(u32),
    /// The buffer was this many bytes too short.
    Over(u32),
}

impl Residual {
    /// What is left when a command that moves `moved` bytes meets a buffer of `data_len` bytes.
    pub fn of(moved: u64, data_len: u64) -> Residual {
        let clamp = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        match moved.cmp(&data_len) {
            std::cmp::Ordering::Equal => Residual::None,
            std::cmp::Ordering::Less => Residual::Under(clamp(data_len - moved)),
            std::cmp::Ordering::Greater => Residual::Over(clamp(moved - data_len)),
        }
    }

    /// The residual count; 0 without one.
    pub fn count(self) -> u32 {
        match self {
            Residual::None => 0,
            Residual::Under(n) | Residual::Over(n) => n,
        }
    }

    fn flags(self, over: u8, under: u8) -> u8 {
        match self {
            Residual::None => 0,
            Residual::Under(_) => under,
            Residual::Over(_) => over,
        }
    }

    fn from_flags(flags: u8, over: u8, under: u8, count: u32) -> Residual {
        if flags & over != 0 {
            Residual::Over(count)
        } else if flags & under != 0 {
            Residual::Under(count)
        } else {
            Residual::None
        }
    }
}

/// RSP_CODE of the response data (SRP r16a table 24; the last two are SRP-2's).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ResponseCode {
    /// No failure, or task management function complete.
    Complete = 0x00,
    /// Request fields invalid.
    FieldsInvalid = 0x02,
    /// Task management function not supported.
    NotSupported = 0x04,
    /// Task management function failed.
    Failed = 0x05,
    /// Task management function succeeded.
    Succeeded = 0x08,
    /// Incorrect logical unit number.
    IncorrectLun = 0x09,
}

impl From<FunctionResponse> for ResponseCode {
    fn from(response: FunctionResponse) -> ResponseCode {
        match response {
            FunctionResponse::Complete => ResponseCode::Complete,
            FunctionResponse::Rejected => ResponseCode::NotSupported,
            FunctionResponse::Failed => ResponseCode::Failed,
            FunctionResponse::Succeeded => ResponseCode::Succeeded,
            FunctionResponse::IncorrectLun => ResponseCode::IncorrectLun,
        }
    }
}

impl TryFrom<u8> for ResponseCode {
    type Error = IuError;

    fn try_from(code: u8) -> Result<ResponseCode, IuError> {
        Ok(match code {
            0x00 => ResponseCode::Complete,
            0x02 => ResponseCode::FieldsInvalid,
            0x04 => ResponseCode::NotSupported,
            0x05 => ResponseCode::Failed,
            0x08 => ResponseCode::Succeeded,
            0x09 => ResponseCode::IncorrectLun,
            other => return Err(IuError::Code(u32::from(other))),
        })
    }
}

/// The answer to a command or a task management function. Borrows its sense data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rsp<'a> {
    /// SOLNT: interrupt the initiator.
    pub solicited: bool,
    /// REQUEST LIMIT DELTA: how many requests more the initiator may have outstanding.
    pub req_lim_delta: i32,
    /// The initiator's name for what is answered.
    pub tag: u64,
    /// SAM status byte.
    pub status: u8,
    /// How far Data-Out missed its buffer.
    pub data_out: Residual,
    /// How far Data-In missed its buffer.
    pub data_in: Residual,
    /// Response data, where the answer is not a SAM status or not only one.
    pub response: Option<ResponseCode>,
    /// Sense data; empty: none.
    pub sense: &'a [u8],
    /// How delivery ended. Not on the wire, where it shows as status and response code; kept for a transport that
    /// can say more.
    pub host: HostByte,
}

impl<'a> Rsp<'a> {
    /// The answer to a command.
    ///
    /// `moved` is how many bytes it moved or would have moved through its buffer of `data_len` bytes. Delivery failures become
    /// what SRP has for them: TASK ABORTED for what was ended by someone else, "request fields invalid" for a target that is
    /// not there and for a command that could not be carried out. It gives one credit back.
    pub fn to_command(
        tag: u64,
        result: CommandResult,
        moved: u64,
        data_len: u64,
        direction: Direction,
        sense: &'a [u8],
    ) -> Rsp<'a> {
        let residual = Residual::of(moved, data_len);
        let (data_out, data_in) = match direction {
            Direction::Out => (residual, Residual::None),
            Direction::In => (Residual::None, residual),
            // A command that wanted to move data and had no buffer: which way is not known here, and neither field says
            // "no buffer". As for Data-In, where initiators look first.
            Direction::None => (Residual::None, residual),
        };
        let (status, response) = match result.host {
            HostByte::Ok => (result.status, None),
            HostByte::Abort | HostByte::Reset | HostByte::TransportDisrupted => (Status::TaskAborted, None),
            HostByte::BadTarget | HostByte::Error => (Status::Good, Some(ResponseCode::FieldsInvalid)),
        };
        Rsp {
            solicited: false,
            req_lim_delta: 1,
            tag,
            status: status as u8,
            data_out,
            data_in,
            response,
            sense,
            host: result.host,
        }
    }

    /// The answer to a task management function. It gives one credit back.
    pub fn to_task_management(tag: u64, response: FunctionResponse) -> Rsp<'static> {
        Rsp {
            solicited: false,
            req_lim_delta: 1,
            tag,
            status: Status::Good as u8,
            data_out: Residual::None,
            data_in: Residual::None,
            response: Some(response.into()),
            sense: &[],
            host: HostByte::Ok,
        }
    }

    /// The residual of a command that moves data one way only.
    pub fn residual(&self) -> Residual {
        match self.data_out {
            Residual::None => self.data_in,
            out => out,
        }
    }

    /// The flags byte: RSPVALID, SNSVALID, and how residuals are meant.
    pub fn flags(&self) -> u8 {
        let response = if self.response.is_some() { RSPVALID } else { 0 };
        let sense = if self.sense.is_empty() { 0 } else { SNSVALID };
        response | sense | self.data_out.flags(DOOVER, DOUNDER) | self.data_in.flags(DIOVER, DIUNDER)
    }

    /// The wire form: response data before sense data.
    pub fn encode(&self) -> Result<Vec<u8>, IuError> {
        let sense_len = u32::try_from(self.sense.len()).map_err(|_| IuError::TooLong)?;
        let mut out = vec![0; HEAD_LEN];
        out[0] = IuType::Rsp as u8;
        out[1] = u8::from(self.solicited);
        put(&mut out, 4, &self.req_lim_delta.to_be_bytes());
        put(&mut out, 8, &self.tag.to_be_bytes());
        out[18] = self.flags();
        out[19] = self.status;
        put(&mut out, 20, &self.data_out.count().to_be_bytes());
        put(&mut out, 24, &self.data_in.count().to_be_bytes());
        put(&mut out, 28, &sense_len.to_be_bytes());
        if let Some(code) = self.response {
            put(&mut out, 32, &(RESPONSE_LEN as u32).to_be_bytes());
            out.extend_from_slice(&[0, 0, 0, code as u8]);
        }
        out.extend_from_slice(self.sense);
        Ok(out)
    }

    /// Reads the wire form.
    pub fn decode(bytes: &'a [u8]) -> Result<Rsp<'a>, IuError> {
        let head = fixed::<HEAD_LEN>(bytes, IuType::Rsp)?;
        let flags = head[18];
        let mut rest = bytes.get(HEAD_LEN..).unwrap_or(&[]);
        let mut take = |valid: bool, at: usize| -> Result<&'a [u8], IuError> {
            if !valid {
                return Ok(&[]);
            }
            let len = usize::try_from(be32(head, at)).map_err(|_| IuError::Short)?;
            let (taken, after) = rest.split_at_checked(len).ok_or(IuError::Short)?;
            rest = after;
            Ok(taken)
        };
        let response = match take(flags & RSPVALID != 0, 32)? {
            [] if flags & RSPVALID == 0 => None,
            [_, _, _, code, ..] => Some(ResponseCode::try_from(*code)?),
            _ => return Err(IuError::Short),
        };
        let sense = take(flags & SNSVALID != 0, 28)?;
        Ok(Rsp {
            solicited: head[1] & 0x01 != 0,
            req_lim_delta: be32(head, 4).cast_signed(),
            tag: be64(head, 8),
            status: head[19],
            data_out: Residual::from_flags(flags, DOOVER, DOUNDER, be32(head, 20)),
            data_in: Residual::from_flags(flags, DIOVER, DIUNDER, be32(head, 24)),
            response,
            sense,
            host: HostByte::Ok,
        })
    }
}

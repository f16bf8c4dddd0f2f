//! SRP_CRED_REQ, SRP_CRED_RSP, SRP_AER_REQ, SRP_AER_RSP (SRP r16a 6.10–6.13): what a target asks of its initiator.

use super::IuError;
use super::iu::{IuType, be32, be64, field, fixed, put};
use crate::scsi::Lun;

/// Length of AER_REQ's fixed part.
const AER_HEAD_LEN: usize = 36;

/// Changes the request limit apart from any answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CredReq {
    /// SOLNT: interrupt the initiator.
    pub solicited: bool,
    /// By how much the request limit grows.
    pub req_lim_delta: i32,
    /// The target's name for this request.
    pub tag: u64,
}

impl CredReq {
    /// Length on the wire.
    pub const LEN: usize = 16;

    /// The wire form.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut b = [0; Self::LEN];
        b[0] = IuType::CredReq as u8;
        b[1] = u8::from(self.solicited);
        put(&mut b, 4, &self.req_lim_delta.to_be_bytes());
        put(&mut b, 8, &self.tag.to_be_bytes());
        b
    }

    /// Reads the wire form.
    pub fn decode(bytes: &[u8]) -> Result<CredReq, IuError> {
        let b = fixed::<{ Self::LEN }>(bytes, IuType::CredReq)?;
        Ok(CredReq { solicited: b[1] & 0x01 != 0, req_lim_delta: be32(b, 4).cast_signed(), tag: be64(b, 8) })
    }
}

/// Answers a [`CredReq`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CredRsp {
    /// The request's name.
    pub tag: u64,
}

impl CredRsp {
    /// Length on the wire.
    pub const LEN: usize = 16;

    /// The wire form.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut b = [0; Self::LEN];
        b[0] = IuType::CredRsp as u8;
        put(&mut b, 8, &self.tag.to_be_bytes());
        b
    }

    /// Reads the wire form.
    pub fn decode(bytes: &[u8]) -> Result<CredRsp, IuError> {
        let b = fixed::<{ Self::LEN }>(bytes, IuType::CredRsp)?;
        Ok(CredRsp { tag: be64(b, 8) })
    }
}

/// Reports an asynchronous event of a logical unit. Borrows its sense data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AerReq<'a> {
    /// SOLNT: interrupt the initiator.
    pub solicited: bool,
    /// By how much the request limit grows.
    pub req_lim_delta: i32,
    /// The target's name for this request.
    pub tag: u64,
    /// The logical unit.
    pub lun: Lun,
    /// What happened, as sense data.
    pub sense: &'a [u8],
}

impl<'a> AerReq<'a> {
    /// The wire form.
    pub fn encode(&self) -> Result<Vec<u8>, IuError> {
        let sense_len = u32::try_from(self.sense.len()).map_err(|_| IuError::TooLong)?;
        let mut out = vec![0; AER_HEAD_LEN];
        out[0] = IuType::AerReq as u8;
        out[1] = u8::from(self.solicited);
        put(&mut out, 4, &self.req_lim_delta.to_be_bytes());
        put(&mut out, 8, &self.tag.to_be_bytes());
        put(&mut out, 20, &self.lun.0);
        put(&mut out, 28, &sense_len.to_be_bytes());
        out.extend_from_slice(self.sense);
        Ok(out)
    }

    /// Reads the wire form.
    pub fn decode(bytes: &'a [u8]) -> Result<AerReq<'a>, IuError> {
        let b = fixed::<{ AER_HEAD_LEN }>(bytes, IuType::AerReq)?;
        let len = usize::try_from(be32(b, 28)).map_err(|_| IuError::Short)?;
        let rest = bytes.get(AER_HEAD_LEN..).unwrap_or(&[]);
        Ok(AerReq {
            solicited: b[1] & 0x01 != 0,
            req_lim_delta: be32(b, 4).cast_signed(),
            tag: be64(b, 8),
            lun: Lun(field(b, 20)),
            sense: rest.get(..len).ok_or(IuError::Short)?,
        })
    }
}

/// Answers an [`AerReq`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AerRsp {
    /// The request's name.
    pub tag: u64,
}

impl AerRsp {
    /// Length on the wire.
    pub const LEN: usize = 16;

    /// The wire form.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut b = [0; Self::LEN];
        b[0] = IuType::AerRsp as u8;
        put(&mut b, 8, &self.tag.to_be_bytes());
        b
    }

    /// Reads the wire form.
    pub fn decode(bytes: &[u8]) -> Result<AerRsp, IuError> {
        let b = fixed::<{ Self::LEN }>(bytes, IuType::AerRsp)?;
        Ok(AerRsp { tag: be64(b, 8) })
    }
}

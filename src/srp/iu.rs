//! What all information units share: type codes, errors, fields of fixed place.

use super::{AerReq, AerRsp, CredReq, CredRsp, DirectDescriptor, ILogout, LoginRej, LoginReq, LoginRsp};
use super::{Cmd, Rsp, TLogout, TskMgmt};

/// TYPE codes: byte 0 of every information unit. Bit 7 is set in what a target sends of its own accord or as an answer
/// with data, bit 6 in answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum IuType {
    /// SRP_LOGIN_REQ.
    LoginReq = 0x00,
    /// SRP_TSK_MGMT.
    TskMgmt = 0x01,
    /// SRP_CMD.
    Cmd = 0x02,
    /// SRP_I_LOGOUT.
    ILogout = 0x03,
    /// SRP_CRED_RSP.
    CredRsp = 0x41,
    /// SRP_AER_RSP.
    AerRsp = 0x42,
    /// SRP_T_LOGOUT.
    TLogout = 0x80,
    /// SRP_CRED_REQ.
    CredReq = 0x81,
    /// SRP_AER_REQ.
    AerReq = 0x82,
    /// SRP_LOGIN_RSP.
    LoginRsp = 0xc0,
    /// SRP_RSP.
    Rsp = 0xc1,
    /// SRP_LOGIN_REJ.
    LoginRej = 0xc2,
}

/// Why bytes are not an information unit, or a struct cannot become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IuError {
    /// Fewer bytes than its fields need.
    #[error("information unit too short")]
    Short,
    /// A type code that does not exist, or another one than was asked for.
    #[error("unexpected information unit type {0:#04x}")]
    Type(u8),
    /// A buffer format code that does not exist.
    #[error("unknown data-buffer descriptor format {0:#x}")]
    BufferFormat(u8),
    /// A task attribute code that does not exist.
    #[error("unknown task attribute {0}")]
    Attribute(u8),
    /// A status, reason or response code that does not exist.
    #[error("unknown code {0:#x}")]
    Code(u32),
    /// A length that its field cannot hold.
    #[error("too long for its length field")]
    TooLong,
}

/// Any information unit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants carry the structs that document them")]
pub enum Iu<'a> {
    LoginReq(LoginReq),
    LoginRsp(LoginRsp),
    LoginRej(LoginRej),
    Cmd(Cmd<'a>),
    Rsp(Rsp<'a>),
    TskMgmt(TskMgmt),
    ILogout(ILogout),
    TLogout(TLogout),
    CredReq(CredReq),
    CredRsp(CredRsp),
    AerReq(AerReq<'a>),
    AerRsp(AerRsp),
}

impl<'a> Iu<'a> {
    /// Reads any information unit; the descriptors of a CMD are put into `pieces`, which is emptied first.
    pub fn decode(bytes: &'a [u8], pieces: &'a mut Vec<DirectDescriptor>) -> Result<Iu<'a>, IuError> {
        let code = *bytes.first().ok_or(IuError::Short)?;
        Ok(match IuType::try_from(code)? {
            IuType::LoginReq => Iu::LoginReq(LoginReq::decode(bytes)?),
            IuType::LoginRsp => Iu::LoginRsp(LoginRsp::decode(bytes)?),
            IuType::LoginRej => Iu::LoginRej(LoginRej::decode(bytes)?),
            IuType::Cmd => Iu::Cmd(Cmd::decode(bytes, pieces)?),
            IuType::Rsp => Iu::Rsp(Rsp::decode(bytes)?),
            IuType::TskMgmt => Iu::TskMgmt(TskMgmt::decode(bytes)?),
            IuType::ILogout => Iu::ILogout(ILogout::decode(bytes)?),
            IuType::TLogout => Iu::TLogout(TLogout::decode(bytes)?),
            IuType::CredReq => Iu::CredReq(CredReq::decode(bytes)?),
            IuType::CredRsp => Iu::CredRsp(CredRsp::decode(bytes)?),
            IuType::AerReq => Iu::AerReq(AerReq::decode(bytes)?),
            IuType::AerRsp => Iu::AerRsp(AerRsp::decode(bytes)?),
        })
    }

    /// The wire form.
    pub fn encode(&self) -> Result<Vec<u8>, IuError> {
        Ok(match self {
            Iu::LoginReq(iu) => iu.encode().to_vec(),
            Iu::LoginRsp(iu) => iu.encode().to_vec(),
            Iu::LoginRej(iu) => iu.encode().to_vec(),
            Iu::Cmd(iu) => iu.encode()?,
            Iu::Rsp(iu) => iu.encode()?,
            Iu::TskMgmt(iu) => iu.encode().to_vec(),
            Iu::ILogout(iu) => iu.encode().to_vec(),
            Iu::TLogout(iu) => iu.encode().to_vec(),
            Iu::CredReq(iu) => iu.encode().to_vec(),
            Iu::CredRsp(iu) => iu.encode().to_vec(),
            Iu::AerReq(iu) => iu.encode()?,
            Iu::AerRsp(iu) => iu.encode().to_vec(),
        })
    }
}

impl TryFrom<u8> for IuType {
    type Error = IuError;

    fn try_from(code: u8) -> Result<IuType, IuError> {
        Ok(match code {
            0x00 => IuType::LoginReq,
            0x01 => IuType::TskMgmt,
            0x02 => IuType::Cmd,
            0x03 => IuType::ILogout,
            0x41 => IuType::CredRsp,
            0x42 => IuType::AerRsp,
            0x80 => IuType::TLogout,
            0x81 => IuType::CredReq,
            0x82 => IuType::AerReq,
            0xc0 => IuType::LoginRsp,
            0xc1 => IuType::Rsp,
            0xc2 => IuType::LoginRej,
            other => return Err(IuError::Type(other)),
        })
    }
}

/// The fixed part of an information unit: its first `N` bytes, of the type asked for.
pub(super) fn fixed<const N: usize>(bytes: &[u8], kind: IuType) -> Result<&[u8; N], IuError> {
    let head = bytes.first_chunk::<N>().ok_or(IuError::Short)?;
    if bytes.first() == Some(&(kind as u8)) { Ok(head) } else { Err(IuError::Type(head.first().copied().unwrap_or(0))) }
}

/// `L` bytes of a fixed part at `at`. Both are constants of the layout; the tests decode every unit.
pub(super) const fn field<const L: usize, const N: usize>(bytes: &[u8; N], at: usize) -> [u8; L] {
    let mut out = [0; L];
    let mut i = 0;
    while i < L {
        out[i] = bytes[at + i];
        i += 1;
    }
    out
}

/// A big-endian u32 of a fixed part.
pub(super) fn be32<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes(field(bytes, at))
}

/// A big-endian u64 of a fixed part.
pub(super) fn be64<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    u64::from_be_bytes(field(bytes, at))
}

/// A big-endian u16 of a fixed part.
pub(super) fn be16<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes(field(bytes, at))
}

/// Puts `value` at `at`.
pub(super) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

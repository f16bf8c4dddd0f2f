//! SRP_LOGIN_REQ, SRP_LOGIN_RSP, SRP_LOGIN_REJ, SRP_I_LOGOUT, SRP_T_LOGOUT (SRP r16a 6.2–6.6).

use super::iu::{IuType, be16, be32, be64, field, fixed, put};
use super::{FormatSet, IuError, PortId};

/// Asks for an RDMA channel and an I_T nexus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginReq {
    /// The initiator's name for this request.
    pub tag: u64,
    /// REQUESTED INITIATOR TO TARGET IU LENGTH: the longest unit that the initiator will send.
    pub req_it_iu_len: u32,
    /// Descriptor formats that the initiator will use.
    pub formats: FormatSet,
    /// MULTI-CHANNEL ACTION 01b: keep other channels of this nexus (00b: end them).
    pub multi_channel: bool,
    /// Who asks.
    pub initiator: PortId,
    /// Who is meant.
    pub target: PortId,
}

impl LoginReq {
    /// Length on the wire.
    pub const LEN: usize = 64;

    /// The wire form.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut b = [0; Self::LEN];
        b[0] = IuType::LoginReq as u8;
        put(&mut b, 8, &self.tag.to_be_bytes());
        put(&mut b, 16, &self.req_it_iu_len.to_be_bytes());
        put(&mut b, 24, &self.formats.0.to_be_bytes());
        b[26] = u8::from(self.multi_channel);
        put(&mut b, 32, &self.initiator.0);
        put(&mut b, 48, &self.target.0);
        b
    }

    /// Reads the wire form.
    pub fn decode(bytes: &[u8]) -> Result<LoginReq, IuError> {
        let b = fixed::<{ Self::LEN }>(bytes, IuType::LoginReq)?;
        let multi_channel = match b[26] & 0x03 {
            0 => false,
            1 => true,
            other => return Err(IuError::Code(u32::from(other))),
        };
        Ok(LoginReq {
            tag: be64(b, 8),
            req_it_iu_len: be32(b, 16),
            formats: FormatSet(be16(b, 24)),
            multi_channel,
            initiator: PortId(field(b, 32)),
            target: PortId(field(b, 48)),
        })
    }
}

/// Grants a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginRsp {
    /// The request limit to begin with.
    pub req_lim_delta: i32,
    /// The request's name.
    pub tag: u64,
    /// The longest unit that the initiator may send.
    pub max_it_iu_len: u32,
    /// The longest unit that the target will send.
    pub max_ti_iu_len: u32,
    /// Descriptor formats that may be used.
    pub formats: FormatSet,
}

impl LoginRsp {
    /// Length on the wire.
    pub const LEN: usize = 52;

    /// The wire form.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut b = [0; Self::LEN];
        b[0] = IuType::LoginRsp as u8;
        put(&mut b, 4, &self.req_lim_delta.to_be_bytes());
        put(&mut b, 8, &self.tag.to_be_bytes());
        put(&mut b, 16, &self.max_it_iu_len.to_be_bytes());
        put(&mut b, 20, &self.max_ti_iu_len.to_be_bytes());
        put(&mut b, 24, &self.formats.0.to_be_bytes());
        b
    }

    /// Reads the wire form.
    pub fn decode(bytes: &[u8]) -> Result<LoginRsp, IuError> {
        let b = fixed::<{ Self::LEN }>(bytes, IuType::LoginRsp)?;
        Ok(LoginRsp {
            req_lim_delta: be32(b, 4).cast_signed(),
            tag: be64(b, 8),
            max_it_iu_len: be32(b, 16),
            max_ti_iu_len: be32(b, 20),
            formats: FormatSet(be16(b, 24)),
        })
    }
}

/// Why a login is refused (SRP r16a table 14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(u32)]
pub enum RejectReason {
    /// No RDMA channel can be established, no reason specified.
    #[error("no channel can be established")]
    CannotEstablish = 0x0001_0000,
    /// Insufficient RDMA channel resources.
    #[error("no resources")]
    NoResources = 0x0001_0001,
    /// Requested initiator to target IU length too large.
    #[error("requested information unit length too large")]
    IuTooLong = 0x0001_0002,
    /// Unable to associate the channel with an I_T nexus.
    #[error("no such target port")]
    CannotAssociate = 0x0001_0003,
    /// Unsupported data-buffer descriptor formats.
    #[error("unsupported data-buffer descriptor format")]
    DescriptorFormat = 0x0001_0004,
    /// The target port does not support multiple channels per nexus.
    #[error("several channels per nexus are not supported")]
    MultiChannel = 0x0001_0005,
    /// The limit of channels is reached: here one, another connection of this initiator port is alive.
    #[error("another connection of this initiator port is alive")]
    ChannelLimit = 0x0001_0006,
}

impl TryFrom<u32> for RejectReason {
    type Error = IuError;

    fn try_from(code: u32) -> Result<RejectReason, IuError> {
        Ok(match code {
            0x0001_0000 => RejectReason::CannotEstablish,
            0x0001_0001 => RejectReason::NoResources,
            0x0001_0002 => RejectReason::IuTooLong,
            0x0001_0003 => RejectReason::CannotAssociate,
            0x0001_0004 => RejectReason::DescriptorFormat,
            0x0001_0005 => RejectReason::MultiChannel,
            0x0001_0006 => RejectReason::ChannelLimit,
            other => return Err(IuError::Code(other)),
        })
    }
}

/// Refuses a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginRej {
    /// Why.
    pub reason: RejectReason,
    /// The request's name.
    pub tag: u64,
    /// Descriptor formats that would be accepted.
    pub formats: FormatSet,
}

impl LoginRej {
    /// Length on the wire.
    pub const LEN: usize = 32;

    /// The wire form.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut b = [0; Self::LEN];
        b[0] = IuType::LoginRej as u8;
        put(&mut b, 4, &(self.reason as u32).to_be_bytes());
        put(&mut b, 8, &self.tag.to_be_bytes());
        put(&mut b, 24, &self.formats.0.to_be_bytes());
        b
    }

    /// Reads the wire form.
    pub fn decode(bytes: &[u8]) -> Result<LoginRej, IuError> {
        let b = fixed::<{ Self::LEN }>(bytes, IuType::LoginRej)?;
        Ok(LoginRej { reason: be32(b, 4).try_into()?, tag: be64(b, 8), formats: FormatSet(be16(b, 24)) })
    }
}

/// The initiator ends its login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ILogout {
    /// The initiator's name for this request.
    pub tag: u64,
}

impl ILogout {
    /// Length on the wire.
    pub const LEN: usize = 16;

    /// The wire form.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut b = [0; Self::LEN];
        b[0] = IuType::ILogout as u8;
        put(&mut b, 8, &self.tag.to_be_bytes());
        b
    }

    /// Reads the wire form.
    pub fn decode(bytes: &[u8]) -> Result<ILogout, IuError> {
        let b = fixed::<{ Self::LEN }>(bytes, IuType::ILogout)?;
        Ok(ILogout { tag: be64(b, 8) })
    }
}

/// Why the target ends a login (SRP r16a table 16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum LogoutReason {
    /// No reason specified.
    None = 0x0000_0000,
    /// Inactive RDMA channel.
    Inactive = 0x0000_0001,
    /// Invalid information unit type code.
    InvalidType = 0x0000_0002,
    /// A response that answers nothing.
    SpuriousResponse = 0x0000_0003,
    /// Disconnected by a login with MULTI-CHANNEL ACTION 00b.
    MultiChannelAction = 0x0000_0004,
    /// An unsupported Data-Out buffer format.
    DataOutFormat = 0x0000_0006,
    /// An unsupported Data-In buffer format.
    DataInFormat = 0x0000_0007,
    /// An invalid indirect descriptor count.
    DescriptorCount = 0x0000_0008,
}

impl TryFrom<u32> for LogoutReason {
    type Error = IuError;

    fn try_from(code: u32) -> Result<LogoutReason, IuError> {
        Ok(match code {
            0 => LogoutReason::None,
            1 => LogoutReason::Inactive,
            2 => LogoutReason::InvalidType,
            3 => LogoutReason::SpuriousResponse,
            4 => LogoutReason::MultiChannelAction,
            6 => LogoutReason::DataOutFormat,
            7 => LogoutReason::DataInFormat,
            8 => LogoutReason::DescriptorCount,
            other => return Err(IuError::Code(other)),
        })
    }
}

/// The target ends a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TLogout {
    /// SOLNT: interrupt the initiator.
    pub solicited: bool,
    /// Why.
    pub reason: LogoutReason,
    /// The target's name for this request.
    pub tag: u64,
}

impl TLogout {
    /// Length on the wire.
    pub const LEN: usize = 16;

    /// The wire form.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut b = [0; Self::LEN];
        b[0] = IuType::TLogout as u8;
        b[1] = u8::from(self.solicited);
        put(&mut b, 4, &(self.reason as u32).to_be_bytes());
        put(&mut b, 8, &self.tag.to_be_bytes());
        b
    }

    /// Reads the wire form.
    pub fn decode(bytes: &[u8]) -> Result<TLogout, IuError> {
        let b = fixed::<{ Self::LEN }>(bytes, IuType::TLogout)?;
        Ok(TLogout { solicited: b[1] & 0x01 != 0, reason: be32(b, 4).try_into()?, tag: be64(b, 8) })
    }
}

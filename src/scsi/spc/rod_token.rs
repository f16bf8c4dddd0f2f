//! ROD tokens (SPC-4 5.17.6): 512 bytes that stand for data, given to an initiator to be given back, perhaps by another one.
//!
//! | bytes | field | here |
//! |---|---|---|
//! | 0–3 | ROD TYPE | [`rod_type`] |
//! | 6–7 | ROD TOKEN LENGTH | 01F8h: what follows |
//! | 8–15 | COPY MANAGER ROD TOKEN IDENTIFIER | no other token of the process has it |
//! | 16–47 | CREATOR LOGICAL UNIT DESCRIPTOR | an Identification Descriptor CSCD descriptor with the unit's NAA name |
//! | 48–63 | NUMBER OF BYTES REPRESENTED | |
//! | 96–127 | device type specific data | of READ CAPACITY(16) (SBC-3 6.7) |
//! | 128–255 | TARGET DEVICE DESCRIPTOR | the name of the target device |
//! | 256–511 | EXTENDED ROD TOKEN DATA | random, all of it: that is what cannot be guessed |

use std::hint::black_box;

use super::Designator;
use crate::scsi::{AdditionalSense, ParameterData, Sense, be_bytes};

/// How many bytes a token has.
pub const ROD_TOKEN_SIZE: usize = 512;

/// How many of them are random.
pub const ROD_TOKEN_RANDOM: usize = 256;

/// ROD TOKEN LENGTH of every token: the bytes after that field.
const ROD_TOKEN_LENGTH: u16 = 0x01f8;

/// ROD TYPE values (SPC-4 table 110, SBC-3 4.28.3).
pub mod rod_type {
    /// Point in time copy – default: how the copy manager keeps the data is its own business.
    pub const POINT_IN_TIME_DEFAULT: u32 = 0x0080_0000;
    /// Point in time copy – change vulnerable: it becomes invalid when the data is about to change.
    pub const POINT_IN_TIME_CHANGE_VULNERABLE: u32 = 0x0080_0001;
    /// Point in time copy – any: a persistent one if there are such, or else a change vulnerable one. Only in requests.
    pub const POINT_IN_TIME_ANY: u32 = 0x0080_ffff;
    /// Block device zero ROD token: nobody makes it, everybody knows it.
    pub const BLOCK_DEVICE_ZERO: u32 = 0xffff_0001;
}

/// A token.
#[derive(Clone)]
pub struct RodToken(Box<[u8; ROD_TOKEN_SIZE]>);

/// What a new token says.
#[derive(Debug)]
pub struct RodTokenFields {
    /// ROD TYPE.
    pub rod_type: u32,
    /// COPY MANAGER ROD TOKEN IDENTIFIER.
    pub identifier: u64,
    /// NAA name of the unit that creates it.
    pub naa: u64,
    /// NUMBER OF BYTES REPRESENTED.
    pub bytes: u64,
    /// Logical block length of the unit, in bytes.
    pub block_size: u32,
    /// LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT of the unit.
    pub physical_exponent: u8,
    /// LBPME and LBPRZ of the unit.
    pub thin: bool,
    /// A name of the target device, type 2h, 3h or 8h.
    pub target_device: Designator,
    /// From a secure source.
    pub random: [u8; ROD_TOKEN_RANDOM],
}

/// What a token that an initiator presents may be, by its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PresentedToken {
    /// The block device zero ROD token: as many zeros as one likes.
    Zeros,
    /// One that a copy manager made.
    Made {
        /// COPY MANAGER ROD TOKEN IDENTIFIER.
        identifier: u64,
    },
}

impl RodTokenFields {
    /// The token.
    pub fn token(&self) -> RodToken {
        let mut data = ParameterData::new();
        data.u32(self.rod_type).u16(0).u16(ROD_TOKEN_LENGTH).u64(self.identifier);
        // Identification Descriptor CSCD descriptor (SPC-4 6.4.5.6): descriptor type code, a disk, no initiator port; the unit's
        // name; and the parameters of block devices.
        data.u8(0xe4).u8(0x00).u16(0);
        Designator::Naa8(self.naa.to_be_bytes()).write(&mut data);
        data.zeros(12);
        data.u8(0).u24(self.block_size);
        data.u64(0).u64(self.bytes);
        data.zeros(32);
        // SBC-3 6.7: no protection information, physical blocks begin at LBA 0.
        let provisioning = if self.thin { 0xc000 } else { 0 };
        data.u32(self.block_size).u8(0).u8(self.physical_exponent & 0x0f).u16(provisioning).zeros(24);
        let mut device = ParameterData::new();
        self.target_device.write(&mut device);
        let mut device = device.truncated(128);
        device.resize(128, 0);
        data.raw(&device).raw(&self.random);
        let mut bytes = Box::new([0; ROD_TOKEN_SIZE]);
        bytes.iter_mut().zip(data.bytes()).for_each(|(to, from)| *to = *from);
        RodToken(bytes)
    }
}

impl RodToken {
    /// A token as it came in a parameter list.
    pub fn received(bytes: &[u8; ROD_TOKEN_SIZE]) -> RodToken {
        RodToken(Box::new(*bytes))
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8; ROD_TOKEN_SIZE] {
        &self.0
    }

    /// What it is by its form. Whether there is such a token is for whoever made it to say.
    ///
    /// # Errors
    ///
    /// INVALID TOKEN OPERATION, with INVALID TOKEN LENGTH or UNSUPPORTED TOKEN TYPE.
    pub fn presented(&self) -> Result<PresentedToken, Sense> {
        if be_bytes(&self.0[..], 6).map(u16::from_be_bytes) != Some(ROD_TOKEN_LENGTH) {
            return Err(Sense::illegal_request(AdditionalSense::INVALID_TOKEN_LENGTH));
        }
        let identifier = be_bytes(&self.0[..], 8).map_or(0, u64::from_be_bytes);
        match be_bytes(&self.0[..], 0).map_or(0, u32::from_be_bytes) {
            rod_type::BLOCK_DEVICE_ZERO => Ok(PresentedToken::Zeros),
            rod_type::POINT_IN_TIME_DEFAULT | rod_type::POINT_IN_TIME_CHANGE_VULNERABLE => {
                Ok(PresentedToken::Made { identifier })
            }
            _ => Err(Sense::illegal_request(AdditionalSense::UNSUPPORTED_TOKEN_TYPE)),
        }
    }
}

/// Takes as long whatever is different: how much of a token was guessed right is not to be measured.
impl PartialEq for RodToken {
    fn eq(&self, other: &RodToken) -> bool {
        let differences = self.0.iter().zip(other.0.iter()).fold(0, |all, (a, b)| black_box(all | (a ^ b)));
        differences == 0
    }
}

impl Eq for RodToken {}

/// Not what makes it valid, for that is a secret.
impl std::fmt::Debug for RodToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RodToken({:02x?})", self.0.get(..16).unwrap_or_default())
    }
}

/// Limits on tokens, as the Third-party Copy VPD page tells them (SPC-4 7.8.17.8). Sizes are bytes, times are seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RodTokenFeatures {
    /// MINIMUM and MAXIMUM TOKEN LIFETIME.
    pub lifetime: u32,
    /// MAXIMUM TOKEN INACTIVITY TIMEOUT.
    pub maximum_inactivity: u32,
    /// MAXIMUM BYTES IN BLOCK ROD.
    pub maximum_bytes: u64,
    /// OPTIMAL BYTES IN BLOCK ROD TRANSFER.
    pub optimal_bytes: u64,
}

impl RodTokenFeatures {
    /// ROD Token Features third-party copy descriptor, 0106h, with one Block ROD device type specific features descriptor. REMOTE TOKENS
    /// is 0h: only tokens of this target device.
    pub fn write(&self, data: &mut ParameterData) {
        data.u16(0x0106).counted_u16(|data| {
            data.u8(0).zeros(11);
            data.u32(self.lifetime).u32(self.lifetime).u32(self.maximum_inactivity);
            data.zeros(18);
            data.counted_u16(|data| {
                data.u8(0x00).u8(0).counted_u16(|data| {
                    data.u16(0).u16(0);
                    data.u64(self.maximum_bytes).u64(self.optimal_bytes);
                    // As much as one likes in one descriptor.
                    data.u64(u64::MAX).u64(u64::MAX);
                    data.zeros(8);
                });
            });
        });
    }
}

/// Supported ROD Types third-party copy descriptor, 0108h (SPC-4 7.8.17.9): point in time copies of both kinds that are made here come and go
/// as tokens; the block device zero ROD token only comes.
pub fn write_supported_rod_types(data: &mut ParameterData) {
    const TOKEN_IN: u8 = 0x02;
    const TOKEN_OUT: u8 = 0x01;
    let types = [
        (rod_type::POINT_IN_TIME_DEFAULT, TOKEN_IN | TOKEN_OUT),
        (rod_type::POINT_IN_TIME_CHANGE_VULNERABLE, TOKEN_IN | TOKEN_OUT),
        (rod_type::BLOCK_DEVICE_ZERO, TOKEN_IN),
    ];
    data.u16(0x0108).counted_u16(|data| {
        data.u16(0).counted_u16(|data| {
            for (rod_type, tokens) in types {
                // No preference is indicated.
                data.u32(rod_type).u8(tokens).u8(0).u16(0).zeros(56);
            }
        });
    });
}

#[cfg(test)]
#[path = "rod_token_tests.rs"]
pub(super) mod tests;

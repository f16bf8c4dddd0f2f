//! The target ports by which a unit is reached: data, nothing more. A unit does not know what is behind them.

pub use crate::scsi::spc::AccessState;

/// A target port, as a unit tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetPort {
    /// RELATIVE TARGET PORT IDENTIFIER, 1 and up.
    pub relative: u16,
    /// The SRP target port identifier.
    pub id: [u8; 16],
    /// The TARGET PORT GROUP that it is in.
    pub group: u16,
}

impl TargetPort {
    /// The one port of a unit of which nothing else is said.
    pub const SOLE: TargetPort = TargetPort { relative: 1, id: [0; 16], group: 1 };
}

/// Some target ports, and the one of them that a nexus uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports<'a> {
    /// All that there are.
    pub all: &'a [TargetPort],
    /// The RELATIVE TARGET PORT IDENTIFIER of the nexus's.
    pub own: u16,
}

impl<'a> Ports<'a> {
    /// The nexus's port.
    pub fn own(&self) -> Option<&'a TargetPort> {
        self.all.iter().find(|port| port.relative == self.own)
    }

    /// Whether there is more than one.
    pub fn several(&self) -> bool {
        self.all.len() > 1
    }
}

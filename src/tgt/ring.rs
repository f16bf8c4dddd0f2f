//! The two event rings of a reactor.

use super::{CmdAnswer, CmdData, KEvent, UEvent};

/// A slot of the tx ring (hba → target).
#[derive(Debug)]
pub struct TxSlot {
    /// The event.
    pub event: KEvent,
    /// With `CMD_REQ`: the command's data.
    pub data: Option<CmdData>,
}

/// A slot of the rx ring (target → hba).
#[derive(Debug)]
pub struct RxSlot {
    /// The event.
    pub event: UEvent,
    /// With `CMD_RSP`: what comes back with it.
    pub answer: Option<CmdAnswer>,
}

/// The ring has no room for another request and its answer. Nothing was taken: ask again after some answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event ring full")]
pub struct RingFull;

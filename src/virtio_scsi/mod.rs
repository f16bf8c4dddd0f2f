//! virtio-scsi on the wire (virtio 1.2 5.6): requests and responses, the split ring, the rules for descriptor chains.
//!
//! # Contract
//!
//! * [`SplitRing`] reads a split virtqueue in guest memory and publishes used entries. Whatever the guest writes there, it
//!   returns an error instead of touching memory outside the map.
//! * Two kinds of bad input are kept apart. What makes the *ring* meaningless (an index that jumps, a head that does not
//!   exist or is in flight already) is a [`RingError`]: the ring stays broken until it is set up again. What is wrong with
//!   one *chain* is a [`ChainDefect`]: its head goes back on the used ring with length 0, and the next chain is served.
//! * [`CommandRequest`], [`ControlRequest`] and [`EventBuffer`] turn a chain into a request: header, Data-Out, response
//!   slot, Data-In, at any legal split over descriptors. Their [`ChainError`] says whether the request can be answered
//!   with a response (then `reject` writes it) or only by giving the chain back with nothing written.
//! * `convert` has the one place where SCSI results become virtio response codes and residuals.
//! * Nothing is allocated per chain once the reused vectors have grown.
//! * Nothing here knows of the target.

mod chain;
mod command;
mod control;
mod convert;
mod event;
mod ring;
mod slot;
#[cfg(test)]
pub(crate) mod testing;
pub mod wire;

pub use chain::{Chain, ChainDefect, ChainError, ChainFault, Descriptor};
pub use command::{CommandRequest, CommandResponse};
pub use control::{ControlFunction, ControlRequest};
pub use convert::{
    command_response, function_response, host_response, parameter_change, task_attribute, task_management_function,
};
pub use event::{Event, EventBuffer, ResetReason};
pub use ring::{Popped, RingError, RingSetup, SplitRing};
pub use slot::ResponseSlot;
pub use wire::{EVENT_QUEUE, F_CHANGE, FIRST_REQUEST_QUEUE, MAX_RING_SIZE, OFFERED_FEATURES, ResponseCode};

//! SCSI RDMA Protocol (T10 SRP r16a): information units, data-buffer descriptors, the target port.
//!
//! # Contract
//!
//! * Information units are typed structs that encode to and decode from the T10 byte layout (big-endian).
//! * A data-buffer descriptor's virtual address is the guest physical address of the guest's own descriptor: the IU's
//!   descriptors *are* the guest's descriptors.
//! * On the data path a [`Cmd`] and a [`Rsp`] are typed structs that borrow; bytes are made only where somebody wants to see
//!   them (a trace, a test).
//! * The target port is a state machine without I/O: IUs in, IUs and actions out. Nothing here knows of virtio.

mod aer;
mod buffer;
mod cmd;
mod iu;
mod login;
mod port_id;
mod rsp;
mod target_port;
mod task_management;
#[cfg(test)]
mod tests;

pub use aer::*;
pub use buffer::*;
pub use cmd::*;
pub use iu::*;
pub use login::*;
pub use port_id::*;
pub use rsp::*;
pub use target_port::*;
pub use task_management::*;

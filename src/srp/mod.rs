//! SCSI RDMA Protocol (T10 SRP r16a): information units, data-buffer descriptors, the target port.
//!
//! # Contract
//!
//! * Information units are typed structs that encode to and decode from the T10 byte layout (big-endian).
//! * A data-buffer descriptor's virtual address is the guest physical address of the guest's own descriptor: the IU's
//!   descriptors *are* the guest's descriptors.
//! * The target port is a state machine without I/O: IUs in, IUs and actions out. Nothing here knows of virtio.

mod buffer;

pub use buffer::*;

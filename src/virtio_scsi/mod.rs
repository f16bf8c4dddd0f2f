//! virtio-scsi on the wire (virtio 1.2 5.6): requests and responses, the split ring, the rules for descriptor chains.
//!
//! # Contract
//!
//! * [`ring`] reads a split virtqueue in guest memory and publishes used entries. Whatever the guest writes there, it
//!   returns an error instead of touching memory outside the map; a ring that is broken stays broken until it
//!   is set up again.
//! * `chain` turns a descriptor chain into a request: header, Data-Out, response slot, Data-In, at any legal split
//!   over descriptors. A chain too broken to be answered is given back with nothing written.
//! * Nothing here knows of the target.

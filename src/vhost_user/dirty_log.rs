//! Where the dirty log of a live migration belongs. It is not implemented, hence not offered: QEMU then says that
//! migration is disabled because VHOST_F_LOG_ALL is missing, and a front-end that sets the bit all the same is refused.
//!
//! # The seam
//!
//! * [`FEATURES`] and [`PROTOCOL_FEATURES`] join what the session offers. To offer the log, name LOG_ALL and LOG_SHMFD here.
//! * The session calls [`set_log_base`] with the file that holds the bitmap: one bit per 4 KiB page of guest physical
//!   address space. QEMU sends it while rings run, and again whenever the bitmap grows, before the memory table does.
//! * Whether writes are logged follows from LOG_ALL in SET_FEATURES, which comes and goes while rings run (the session lets
//!   this one bit change under running rings), and per ring from flag 0 of SET_VRING_ADDR.
//! * What must be marked is every page that the device writes: Data-In buffers, response slots, used rings,
//!   event buffers. The marks are made by whoever writes, so the log has to reach the reactors together with the memory
//!   map it belongs to.

use std::fs::File;

use vhost::vhost_user::VhostUserProtocolFeatures;
use vhost::vhost_user::message::VhostUserLog;

use super::session::Refused;

/// Virtio features to offer for the log.
pub(super) const FEATURES: u64 = 0;

/// Protocol features to offer for the log.
pub(super) const PROTOCOL_FEATURES: VhostUserProtocolFeatures = VhostUserProtocolFeatures::empty();

/// SET_LOG_BASE.
pub(super) fn set_log_base(_log: &VhostUserLog, _file: File) -> Result<(), Refused> {
    Err(Refused::new("the dirty log is not supported"))
}

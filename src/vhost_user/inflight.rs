//! Where the inflight buffer belongs, which lets a restarted back-end know the requests that were not finished. It is not
//! implemented, hence not offered.
//!
//! # The seam
//!
//! * [`PROTOCOL_FEATURES`] joins what the session offers. To offer the buffer, name INFLIGHT_SHMFD here.
//! * GET_INFLIGHT_FD comes once, at the first start, and names the number of *all* rings and their size: [`get`] makes the
//!   file. SET_INFLIGHT_FD comes at every start, before the memory table and the rings: [`set`] keeps the buffer, and what is
//!   in it may be looked at only when a ring starts.
//! * The front-end keeps the file as long as the device is not reset, over reconnects too, and hands back the size
//!   that it was given.

use std::fs::File;

use vhost::vhost_user::VhostUserProtocolFeatures;
use vhost::vhost_user::message::VhostUserInflight;

use super::session::Refused;

/// Protocol features to offer for the buffer.
pub(super) const PROTOCOL_FEATURES: VhostUserProtocolFeatures = VhostUserProtocolFeatures::empty();

/// GET_INFLIGHT_FD.
pub(super) fn get(_wanted: &VhostUserInflight) -> Result<(VhostUserInflight, File), Refused> {
    Err(Refused::new("the inflight buffer is not supported"))
}

/// SET_INFLIGHT_FD.
pub(super) fn set(_inflight: &VhostUserInflight, _file: File) -> Result<(), Refused> {
    Err(Refused::new("the inflight buffer is not supported"))
}

//! SPC.

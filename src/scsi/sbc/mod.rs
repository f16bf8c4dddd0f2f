//! SBC.

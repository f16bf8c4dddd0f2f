//! SBC-3's parameter data as pure functions of plain values.

mod capacity;
mod limits;
mod unmap;

pub use capacity::*;
pub use limits::*;
pub use unmap::*;

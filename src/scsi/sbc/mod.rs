//! SBC-3's parameter data as pure functions of plain values.

mod capacity;
mod lba_status;
mod limits;
mod token;
mod unmap;

pub use capacity::*;
pub use lba_status::*;
pub use limits::*;
pub use token::*;
pub use unmap::*;

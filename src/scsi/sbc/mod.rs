//! SBC-3's parameter data as pure functions of plain values.

mod capacity;
mod format_unit;
mod lba_status;
mod limits;
mod sanitize;
mod token;
mod unmap;

pub use capacity::*;
pub use format_unit::*;
pub use lba_status::*;
pub use limits::*;
pub use sanitize::*;
pub use token::*;
pub use unmap::*;

//! SPC-4's parameter data as pure functions of plain values.

mod copy_status;
mod designator;
mod identifying;
mod inquiry;
mod log;
mod mode;
mod mode_select;
mod persistent_reserve;
mod report_luns;
mod report_opcodes;
mod report_tmf;
mod rod_token;
mod target_port_groups;
mod third_party_copy;
mod third_party_copy_data;
mod timestamp;
mod vpd;

pub use copy_status::*;
pub use designator::*;
pub use identifying::*;
pub use inquiry::*;
pub use log::*;
pub use mode::*;
pub use mode_select::*;
pub use persistent_reserve::*;
pub use report_luns::*;
pub use report_opcodes::*;
pub use report_tmf::*;
pub use rod_token::*;
pub use target_port_groups::*;
pub use third_party_copy::*;
pub use third_party_copy_data::*;
pub use timestamp::*;
pub use vpd::*;

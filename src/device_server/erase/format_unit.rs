//! FORMAT UNIT.

use super::Begin;
use crate::device_server::transfer::needs;
use crate::device_server::{Answer, Planned, Task};
use crate::lu::{Erasure, Method, Pattern, Purpose};
use crate::mem::{Direction, IoBuf};
use crate::scsi::sbc::{FormatList, FormatListError, InitializationPattern, format_list, longest_format_list};

/// FORMAT UNIT (SBC-3 5.3). The CDB does not say how long its parameter list is; the list does.
pub(in crate::device_server) fn format_unit<'a>(task: Task<'a, '_>, long_list: bool, data: bool) -> Planned<'a> {
    let block = task.itl.lu().geometry().block_size as usize;
    let list = if data { take_list(task.buf, long_list, block)? } else { FormatList::default() };
    let written = |bytes| Method::Pattern(Pattern { bytes, passes: 1, invert: false });
    let method = match list.pattern {
        None => Method::Zero,
        Some(InitializationPattern::Default) => written(vec![0]),
        Some(InitializationPattern::Repeated(bytes)) => written(bytes),
    };
    let erasure = Erasure { purpose: Purpose::Format, method };
    Ok(Begin::plan(task.itl, erasure, list.immed, list.length as u64))
}

/// The list is copied once: what is checked is what is used.
fn take_list(buf: &IoBuf, long_list: bool, block: usize) -> Result<FormatList, Answer> {
    let there = match buf.direction() {
        Direction::Out => buf.len().min(longest_format_list(block) as u64),
        Direction::In | Direction::None => 0,
    };
    let mut bytes = vec![0; there as usize];
    buf.read_at(0, &mut bytes);
    format_list(&bytes, long_list, block).map_err(|error| match error {
        FormatListError::Invalid(sense) => sense.into(),
        FormatListError::Longer(length) => {
            let length = length as u64;
            needs(buf, Direction::Out, length).err().unwrap_or_else(|| Answer::good(length))
        }
    })
}

//! Data buffers: whether one is there, goes the right way and is long enough, and parameter data on its way into it.

use super::{Answer, Planned};
use crate::mem::{Direction, IoBuf};
use crate::scsi::ParameterData;

/// Checks that `buf` can take part in moving `bytes` bytes in `direction`.
///
/// # Errors
///
/// The answer of a command whose buffer overflows: GOOD, with more bytes than the buffer has. Nothing may be done then.
pub(super) fn needs(buf: &IoBuf, direction: Direction, bytes: u64) -> Result<(), Answer> {
    if bytes == 0 || buf.direction() == direction && buf.len() >= bytes {
        return Ok(());
    }
    if buf.direction() == direction || buf.is_empty() {
        return Err(Answer::good(bytes));
    }
    Err(Answer::good(bytes.max(buf.len().saturating_add(1))))
}

/// Ends a command with parameter data, cut to its allocation length.
pub(super) fn parameter_data(buf: &mut IoBuf, data: ParameterData, allocation_length: u32) -> Planned<'static> {
    Ok(fill(buf, data, allocation_length)?.into())
}

/// The same at the end of a job.
pub(super) fn fill(buf: &mut IoBuf, data: ParameterData, allocation_length: u32) -> Result<Answer, Answer> {
    let bytes = data.truncated(allocation_length);
    needs(buf, Direction::In, bytes.len() as u64)?;
    buf.write_at(0, &bytes);
    Ok(Answer::good(bytes.len() as u64))
}

/// Takes a parameter list of `len` bytes out of the Data-Out buffer. It is copied once, so what is checked is what is used.
pub(super) fn parameter_list(buf: &IoBuf, len: u16) -> Result<Vec<u8>, Answer> {
    needs(buf, Direction::Out, u64::from(len))?;
    let mut list = vec![0; usize::from(len)];
    buf.read_at(0, &mut list);
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_too_short_overflows() {
        let buf = IoBuf::owned(512, Direction::In);
        assert_eq!(needs(&buf, Direction::In, 512), Ok(()));
        assert_eq!(needs(&buf, Direction::In, 513), Err(Answer::good(513)));
        assert_eq!(needs(&IoBuf::empty(), Direction::In, 1), Err(Answer::good(1)));
    }

    #[test]
    fn a_buffer_of_the_wrong_direction_overflows_whatever_its_length() {
        let buf = IoBuf::owned(512, Direction::Out);
        assert_eq!(needs(&buf, Direction::In, 0), Ok(()));
        assert_eq!(needs(&buf, Direction::In, 8), Err(Answer::good(513)));
        assert_eq!(needs(&buf, Direction::In, 1024), Err(Answer::good(1024)));
    }
}

//! Long work in short steps: a job looks at its abort flag between them.

use crate::backing::BackingError;
use crate::device_server::AbortFlag;
use crate::lu::Extent;

/// The most bytes of one step, and of any buffer that a job has of its own.
pub(in crate::device_server) const STEP: u64 = 1 << 20;

/// Runs `step` on consecutive parts of `extent`, each but the last [`STEP`] bytes long.
///
/// # Errors
///
/// The first error of a step with the byte offset of its part, or [`BackingError::Cancelled`] once `abort` is raised.
pub(in crate::device_server) fn each(
    extent: Extent,
    abort: &AbortFlag,
    mut step: impl FnMut(Extent) -> Result<(), BackingError>,
) -> Result<(), (BackingError, u64)> {
    let end = extent.offset + extent.len;
    let mut offset = extent.offset;
    while offset < end {
        if abort.raised() {
            return Err((BackingError::Cancelled, offset));
        }
        let len = STEP.min(end - offset);
        step(Extent { offset, len }).map_err(|e| (e, offset))?;
        offset += len;
    }
    Ok(())
}

/// A buffer for the steps over `extent`.
pub(in crate::device_server) fn step_buffer(extent: Extent) -> Vec<u8> {
    vec![0; STEP.min(extent.len) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_cover_the_extent() {
        let mut seen = Vec::new();
        let extent = Extent { offset: 512, len: 2 * STEP + 512 };
        each(extent, &AbortFlag::default(), |part| {
            seen.push((part.offset, part.len));
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [(512, STEP), (512 + STEP, STEP), (512 + 2 * STEP, 512)]);
    }

    #[test]
    fn an_abort_ends_them() {
        let abort = AbortFlag::default();
        let mut steps = 0;
        let ended = each(Extent { offset: 0, len: 4 * STEP }, &abort, |_| {
            steps += 1;
            abort.raise();
            Ok(())
        });
        assert_eq!((ended, steps), (Err((BackingError::Cancelled, STEP)), 1));
    }

    #[test]
    fn an_error_says_where() {
        let ended = each(Extent { offset: 1024, len: 3 * STEP }, &AbortFlag::default(), |part| {
            if part.offset > 1024 { Err(BackingError::ReadFailed) } else { Ok(()) }
        });
        assert_eq!(ended, Err((BackingError::ReadFailed, 1024 + STEP)));
    }
}

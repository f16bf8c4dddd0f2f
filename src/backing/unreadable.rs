//! Finds where reading fails.
//!
//! A long read that fails says little about where: by direct I/O the kernel tells of all of it or nothing. An initiator wants to know the first
//! block that cannot be read, to spare the others.

use std::time::{Duration, Instant};

/// What is looked at in one piece: what disks are made of, and pages.
const UNIT: u64 = 4096;

/// How long it may take: a disk that tries hard takes its time for each bad block.
const BOUND: Duration = Duration::from_secs(2);

/// How many bytes from `offset` on can be read, of `len` that could not be read together: what comes then cannot be, as far as could be
/// found out in time. `read` tries to read so many bytes at some place.
///
/// Both are multiples of the image's block size, and so are what is read and what is returned.
pub(super) fn first(offset: u64, len: u64, mut read: impl FnMut(u64, u64) -> bool) -> u64 {
    let begun = Instant::now();
    let Some(unit) = 1_u64.checked_shl((offset | len).trailing_zeros()).map(|unit| unit.min(UNIT)) else { return 0 };
    // Nothing before `good` fails, something before `bad` does.
    let (mut good, mut bad) = (0, len);
    // As a rule it is at the very beginning, for what came before was read.
    let mut probe = unit;
    while bad - good > unit && begun.elapsed() < BOUND {
        if read(offset + good, probe) {
            good += probe;
        } else {
            bad = good + probe;
        }
        probe = ((bad - good) / 2 / unit * unit).max(unit);
    }
    good
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `first` says of a medium with these bad bytes, and how often it read.
    fn found(offset: u64, len: u64, bad: &[u64]) -> (u64, usize) {
        let mut reads = 0;
        let at = first(offset, len, |at, len| {
            reads += 1;
            assert!(at >= offset && len > 0, "{at} {len}");
            !bad.iter().any(|byte| (at..at + len).contains(byte))
        });
        (at, reads)
    }

    #[test]
    fn the_first_bad_block_is_found_in_few_steps() {
        for bad in (0..256).map(|at| at * 4096 + 17) {
            let (at, reads) = found(1 << 20, 1 << 20, &[(1 << 20) + bad, (2 << 20) - 1]);
            assert_eq!(at, bad - 17);
            assert!(reads <= 10, "{reads}");
        }
        assert_eq!(found(0, 1 << 20, &[0]).1, 1, "at the beginning it is seen at once");
    }

    #[test]
    fn units_are_as_small_as_the_range_asks_for() {
        assert_eq!(found(512, 8192, &[512 + 1024]).0, 1024);
        assert_eq!(found(0, 4096 + 512, &[4096]).0, 4096);
        assert_eq!(found(4096, 512, &[4096]), (0, 0));
        assert_eq!(found(0, 0, &[]), (0, 0));
    }

    #[test]
    fn what_cannot_be_found_again_is_taken_to_be_at_the_end() {
        // It failed once, and does not fail any more.
        assert_eq!(found(0, 65536, &[]).0, 61440);
    }
}

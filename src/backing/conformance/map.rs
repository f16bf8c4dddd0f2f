//! The image's map of data and holes.

use super::super::Run;
use super::*;

/// Larger than what any file system here allocates at a time.
const UNIT: u64 = 64 << 10;
const SIZE: u64 = 16 * UNIT;

/// The mapped ranges between `from` and `to`, neighbours merged. Each run must be sound.
fn mapped(image: &Arc<dyn Image>, from: u64, to: u64) -> Vec<(u64, u64)> {
    let mut mapped: Vec<(u64, u64)> = Vec::new();
    let mut at = from;
    while at < to {
        let run = image.run_at(at, to - at).unwrap();
        assert!((1..=to - at).contains(&run.len), "{at}: {run:?}");
        let end = at + run.len;
        match mapped.last_mut() {
            Some(last) if run.mapped && last.1 == at => last.1 = end,
            _ if run.mapped => mapped.push((at, end)),
            _ => {}
        }
        at = end;
    }
    mapped
}

/// What is written is mapped, what is not, or no longer, is a hole; a block device does not tell.
#[test]
fn the_map_is_true() {
    each_case(|case| {
        let mut rig = case.rig(SIZE);
        if case.place == Place::Device {
            assert_eq!(mapped(&rig.image, 0, SIZE), [(0, SIZE)]);
            return;
        }
        assert_eq!(mapped(&rig.image, 0, SIZE), [], "{case:?}");
        rig.write(2 * UNIT, &vec![1; 3 * UNIT as usize]).unwrap();
        rig.write(15 * UNIT, &vec![1; UNIT as usize]).unwrap();
        assert_eq!(mapped(&rig.image, 0, SIZE), [(2 * UNIT, 5 * UNIT), (15 * UNIT, SIZE)], "{case:?}");
        rig.op(OpKind::Unmap, 3 * UNIT, UNIT).unwrap();
        let expected = [(2 * UNIT, 3 * UNIT), (4 * UNIT, 5 * UNIT), (15 * UNIT, SIZE)];
        assert_eq!(mapped(&rig.image, 0, SIZE), expected, "{case:?}");
        rig.op(OpKind::Flush, 0, 0).unwrap();
        assert_eq!(mapped(&rig.image, 0, SIZE), expected, "{case:?}: after they went to the disk");
        // From inside a run to inside another, and within one.
        assert_eq!(
            mapped(&rig.image, 2 * UNIT + 5, 4 * UNIT + 7),
            [(2 * UNIT + 5, 3 * UNIT), (4 * UNIT, 4 * UNIT + 7)]
        );
        assert_eq!(rig.image.run_at(4 * UNIT + 1, 10), Ok(Run { mapped: true, len: 10 }));
        assert_eq!(rig.image.run_at(6 * UNIT + 1, 10), Ok(Run { mapped: false, len: 10 }));
        assert_eq!(rig.image.run_at(3 * UNIT, SIZE - 3 * UNIT), Ok(Run { mapped: false, len: UNIT }));
        // A block alone maps at least itself, and not everything.
        let block = case.block();
        rig.write(8 * UNIT, &vec![1; block as usize]).unwrap();
        let alone = mapped(&rig.image, 6 * UNIT, 10 * UNIT);
        assert_eq!((alone.len(), alone[0].0), (1, 8 * UNIT), "{case:?}");
        assert!((8 * UNIT + block..=9 * UNIT).contains(&alone[0].1), "{case:?} {alone:?}");
        // Asking has changed nothing.
        assert!(rig.read(2 * UNIT, UNIT as usize).unwrap() == vec![1; UNIT as usize]);
        assert!(rig.file(4 * UNIT, UNIT as usize) == vec![1; UNIT as usize]);
    });
}

#[test]
fn no_map_beyond_the_end() {
    each_case(|case| {
        let rig = case.rig(SIZE);
        for (offset, len) in [(0, SIZE + 1), (SIZE, 1), (SIZE - 1, 2), (u64::MAX, 1), (1, u64::MAX), (SIZE + 1, 0)] {
            assert_eq!(rig.image.run_at(offset, len), Err(BackingError::OutOfRange), "{case:?} {offset} {len}");
        }
        for offset in [0, SIZE] {
            assert_eq!(rig.image.run_at(offset, 0).unwrap().len, 0, "{case:?} {offset}");
        }
    });
}

/// What is not there is no hole that reads as zeros.
#[test]
fn no_map_of_what_was_cut_off() {
    each_case(|case| {
        if case.place == Place::Device {
            return;
        }
        let mut rig = case.rig(SIZE);
        rig.write(0, &vec![1; 2 * UNIT as usize]).unwrap();
        File::options().write(true).open(&rig.path).unwrap().set_len(UNIT).unwrap();
        assert_eq!(rig.image.run_at(0, SIZE), Ok(Run { mapped: true, len: UNIT }), "{case:?}");
        assert_eq!(rig.image.run_at(UNIT, SIZE - UNIT), Err(BackingError::ReadFailed), "{case:?}");
        assert_eq!(rig.image.run_at(2 * UNIT, UNIT), Err(BackingError::ReadFailed), "{case:?}");
    });
}

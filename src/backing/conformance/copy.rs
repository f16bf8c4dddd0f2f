//! Copies between images, and within one.

use std::sync::OnceLock;

use super::super::open;
use super::*;

const SIZE: u64 = 3 * MIB;

/// As many bytes as an image has. Every block tells where it was.
fn marked() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| (0..SIZE as usize).map(|at| (at / 512 * 7 + at % 251) as u8).collect())
}

fn whole(image: &Arc<dyn Image>) -> Vec<u8> {
    let mut data = vec![0; image.size() as usize];
    image.read_bytes(0, &mut data).unwrap();
    data
}

/// Another image on the same file system, opened the same way.
fn beside(case: Case, rig: &Rig) -> Arc<dyn Image> {
    let path = rig.path.with_extension("beside");
    File::create(&path).unwrap().set_len(SIZE).unwrap();
    open(&case.options(&path)).unwrap()
}

#[test]
fn a_copy_is_what_was_copied_and_nothing_else() {
    each_case(|case| {
        let rig = case.rig(SIZE);
        rig.image.write_bytes(0, marked()).unwrap();
        if case.place == Place::Device {
            return;
        }
        for share in [false, true] {
            let to = beside(case, &rig);
            let block = case.block();
            // On a boundary of everything, and on one of blocks only; longer than what is moved at a time.
            for (at, from, len) in
                [(0, 2 * MIB, MIB), (MIB + block, 3 * block, MIB + 5 * block), (SIZE - block, 0, block)]
            {
                let mut expected = whole(&to);
                expected[at as usize..(at + len) as usize]
                    .copy_from_slice(&marked()[from as usize..(from + len) as usize]);
                to.copy_from(at, &*rig.image, from, len, share).unwrap();
                assert!(whole(&to) == expected, "{case:?} {share} {at} {from} {len}");
            }
            to.flush().unwrap();
            // They may share storage, but not what is written afterwards.
            rig.image.write_bytes(2 * MIB, &vec![0xee; block as usize]).unwrap();
            assert!(whole(&to)[..block as usize] == marked()[2 << 20..][..block as usize], "{case:?}");
            rig.image.write_bytes(2 * MIB, &marked()[2 << 20..][..block as usize]).unwrap();
            assert!(whole(&rig.image) == marked(), "{case:?}: what was copied is what it was");
        }
    });
}

/// As if all had been read before any was written.
#[test]
fn overlapping_ranges() {
    each_case(|case| {
        let rig = case.rig(SIZE);
        let block = case.block();
        let far = MIB + 3 * block;
        for (to, from, len) in
            [(block, 0, far), (0, block, far), (64 * block, 0, far), (0, MIB, far), (MIB, MIB, far), (far, 0, far)]
        {
            for share in [false, true] {
                rig.image.write_bytes(0, marked()).unwrap();
                let mut expected = marked().to_vec();
                expected.copy_within(from as usize..(from + len) as usize, to as usize);
                rig.image.copy_from(to, &*rig.image, from, len, share).unwrap();
                assert!(whole(&rig.image) == expected, "{case:?} {share} {to} {from} {len}");
            }
        }
    });
}

#[test]
fn ranges_that_are_not_there_and_images_that_may_not_be_written() {
    each_case(|case| {
        if case.place == Place::Device {
            return;
        }
        let rig = case.rig(SIZE);
        let to = beside(case, &rig);
        rig.image.write_bytes(0, marked()).unwrap();
        for share in [false, true] {
            for (at, len) in [(SIZE, 512), (SIZE - 512, 1024), (u64::MAX, 512), (512, u64::MAX)] {
                assert_eq!(to.copy_from(at, &*rig.image, 0, len, share), Err(BackingError::OutOfRange), "{case:?}");
            }
            // The last but one begins with more than is moved at a time; the last one moves nothing, from where nothing is.
            for (from, len) in [(SIZE, 4096), (SIZE - 4096, 8192), (MIB, 2 * MIB + 4096), (SIZE + 4096, 0)] {
                assert_eq!(to.copy_from(0, &*rig.image, from, len, share), Err(BackingError::ReadFailed), "{case:?}");
            }
            // A file that became shorter than its image.
            File::options().write(true).open(&rig.path).unwrap().set_len(MIB).unwrap();
            assert_eq!(to.copy_from(0, &*rig.image, MIB, 4096, share), Err(BackingError::ReadFailed), "{case:?}");
            File::options().write(true).open(&rig.path).unwrap().set_len(SIZE).unwrap();
        }
        assert!(whole(&to).iter().all(|byte| *byte == 0), "{case:?}");
        let mut options = case.options(&rig.path.with_extension("beside"));
        options.read_only = true;
        let read_only = open(&options).unwrap();
        assert_eq!(read_only.copy_from(0, &*rig.image, 0, 4096, true), Err(BackingError::ReadOnly), "{case:?}");
    });
}

/// Between any two ways in which images are open.
#[test]
fn images_of_different_kinds() {
    let rigs = std::cell::RefCell::new(Vec::new());
    each_case(|case| rigs.borrow_mut().push((case, case.rig(SIZE))));
    let rigs = rigs.into_inner();
    for (from_case, from) in &rigs {
        from.image.write_bytes(0, marked()).unwrap();
        for (to_case, to) in &rigs {
            if std::ptr::eq(from, to) {
                continue;
            }
            to.image.write_zeroes(0, SIZE, false).unwrap();
            to.image.copy_from(8192, &*from.image, 4096, MIB / 4, true).unwrap();
            let mut expected = vec![0; SIZE as usize];
            expected[8192..8192 + (1 << 18)].copy_from_slice(&marked()[4096..4096 + (1 << 18)]);
            assert!(whole(&to.image) == expected, "{from_case:?} → {to_case:?}");
            to.image.write_bytes(0, marked()).unwrap();
        }
    }
}

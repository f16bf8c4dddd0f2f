//! What one operation does, and does not do.

use super::*;
use crate::backing::open::open_raw;

const SIZE: u64 = MIB;

const READ: OpKind = OpKind::Read;
const WRITE: OpKind = OpKind::Write { fua: false };
const FUA: OpKind = OpKind::Write { fua: true };
const ZERO: OpKind = OpKind::WriteZeroes { unmap: false };
const ZERO_UNMAP: OpKind = OpKind::WriteZeroes { unmap: true };

#[test]
fn the_first_and_the_last_block_and_all_of_them() {
    each_case(|case| {
        let mut rig = case.rig(SIZE);
        let block = case.block() as usize;
        let last = SIZE - block as u64;
        assert_eq!(rig.write(0, &vec![1; block]), Ok(()));
        assert_eq!(rig.write(last, &vec![2; block]), Ok(()));
        let mut all = vec![0; SIZE as usize];
        all[..block].fill(1);
        all[last as usize..].fill(2);
        assert!(rig.read(0, SIZE as usize).unwrap() == all);
        assert!(rig.read(last, block).unwrap() == vec![2; block]);
        all.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i / 511) as u8);
        assert_eq!(rig.write(0, &all), Ok(()));
        assert!(rig.file(0, SIZE as usize) == all);
    });
}

#[test]
fn nothing_past_the_end() {
    each_case(|case| {
        let mut rig = case.rig(SIZE);
        let block = case.block();
        rig.write(SIZE - block, &vec![7; block as usize]).unwrap();
        let ranges = [
            (SIZE, block),
            (SIZE - block, 2 * block),
            (SIZE + block, block),
            (0, SIZE + block),
            (u64::MAX - block + 1, block),
            (u64::MAX - block + 1, 2 * block),
            (1 << 63, block),
            ((1 << 63) - block, block),
            (block, u64::MAX - block + 1),
        ];
        for (offset, len) in ranges {
            for kind in [READ, WRITE, FUA, OpKind::Unmap, ZERO, ZERO_UNMAP] {
                let buf = filled(&vec![9; 2 * SIZE as usize]);
                let (result, _) = rig.door.run(&rig.image, Op { kind, offset, len }, buf);
                assert_eq!(result, Err(BackingError::OutOfRange), "{case:?} {kind:?} {offset} {len}");
            }
            assert_eq!(rig.image.unmap(offset, len), Err(BackingError::OutOfRange));
            assert_eq!(rig.image.write_zeroes(offset, len, true), Err(BackingError::OutOfRange));
        }
        assert_eq!(rig.image.write_bytes(SIZE, &[0; 4096]), Err(BackingError::OutOfRange));
        assert_eq!(rig.image.read_bytes(SIZE, &mut [0; 4096]), Err(BackingError::OutOfRange));
        assert_eq!(std::fs::metadata(&rig.store).unwrap().len(), SIZE);
        assert!(rig.file(SIZE - block, block as usize) == vec![7; block as usize]);
    });
}

#[test]
fn nothing_past_the_buffer() {
    each_case(|case| {
        let mut rig = case.rig(SIZE);
        let block = case.block();
        for kind in [READ, WRITE] {
            for have in [0, block - 1] {
                let op = Op { kind, offset: 0, len: block };
                let (result, _) = rig.door.run(&rig.image, op, filled(&vec![1; have as usize]));
                assert_eq!(result, Err(BackingError::OutOfRange));
            }
            // Of a larger buffer, the first bytes are used.
            rig.image.write_bytes(0, &[0xee; 4096]).unwrap();
            let op = Op { kind, offset: 0, len: block };
            let (result, buf) = rig.door.run(&rig.image, op, filled(&vec![1; 3 * block as usize]));
            assert_eq!(result, Ok(()));
            let written = if kind == READ { 0xee } else { 1 };
            assert!(contents(&buf)[..block as usize].iter().all(|byte| *byte == written));
            assert!(contents(&buf)[block as usize..].iter().all(|byte| *byte == 1));
            assert!(rig.file(0, block as usize).iter().all(|byte| *byte == written));
            assert!(kind == READ || case.shared || rig.file(block, 512) == [0xee; 512]);
        }
    });
}

#[test]
fn no_bytes_are_no_work() {
    each_case(|case| {
        let mut rig = case.rig(SIZE);
        for offset in [0, SIZE / 2, SIZE] {
            for kind in [READ, WRITE, FUA, OpKind::Unmap, ZERO, ZERO_UNMAP] {
                assert_eq!(rig.op(kind, offset, 0), Ok(()), "{case:?} {kind:?} {offset}");
            }
        }
        assert_eq!(rig.op(READ, SIZE + 1, 0), Err(BackingError::OutOfRange));
    });
}

#[test]
fn zeroed_and_unmapped_ranges_read_as_zeros() {
    each_case(|case| {
        let mut rig = case.rig(SIZE);
        let block = case.block();
        assert!(rig.image.capabilities().unmap);
        for kind in [OpKind::Unmap, ZERO, ZERO_UNMAP] {
            // Whole pages, and edges inside a page of the file system.
            for (offset, len) in
                [(0, SIZE), (4096, 65536), (block, block), (3 * block, 40 * block), (SIZE - block, block)]
            {
                rig.write(0, &vec![0xff; SIZE as usize]).unwrap();
                assert_eq!(rig.op(kind, offset, len), Ok(()), "{case:?} {kind:?}");
                let mut expected = vec![0xff; SIZE as usize];
                expected[offset as usize..(offset + len) as usize].fill(0);
                assert!(rig.read(0, SIZE as usize).unwrap() == expected, "{case:?} {kind:?} {offset} {len}");
                assert!(rig.file(0, SIZE as usize) == expected, "{case:?} {kind:?} {offset} {len}");
            }
        }
        assert_eq!(std::fs::metadata(&rig.store).unwrap().len(), SIZE);
    });
}

#[test]
fn unmapped_space_goes_back_to_the_file_system() {
    each_case(|case| {
        let mut rig = case.rig(SIZE);
        let empty = rig.allocated();
        for kind in [OpKind::Unmap, ZERO_UNMAP] {
            rig.write(0, &vec![0xff; SIZE as usize]).unwrap();
            rig.op(OpKind::Flush, 0, 0).unwrap();
            let full = rig.allocated();
            assert!(full >= SIZE + empty, "{full}");
            rig.op(kind, 0, SIZE / 2).unwrap();
            rig.op(OpKind::Flush, 0, 0).unwrap();
            assert!(rig.allocated() <= full - SIZE / 2, "{case:?} {kind:?}: {full} {}", rig.allocated());
            rig.op(kind, 0, SIZE).unwrap();
            assert!(rig.allocated() <= empty + 4096, "{case:?} {kind:?}: {}", rig.allocated());
        }
        // Zeroes that must stay allocated do.
        rig.write(0, &vec![0xff; SIZE as usize]).unwrap();
        rig.op(ZERO, 0, SIZE).unwrap();
        rig.op(OpKind::Flush, 0, 0).unwrap();
        assert!(rig.allocated() >= SIZE, "{case:?}");
    });
}

#[test]
fn flush_and_fua() {
    each_case(|case| {
        let mut rig = case.rig(SIZE);
        let block = case.block();
        assert_eq!(rig.op(OpKind::Flush, 0, 0), Ok(()));
        let op = Op { kind: FUA, offset: 0, len: 4 * block };
        let (result, _) = rig.door.run(&rig.image, op, filled(&vec![3; 4 * block as usize]));
        assert_eq!(result, Ok(()));
        assert_eq!(rig.op(OpKind::Flush, 0, 0), Ok(()));
        assert_eq!(rig.image.flush(), Ok(()));
        assert!(rig.file(0, 4 * block as usize) == vec![3; 4 * block as usize]);
    });
}

#[test]
fn a_failed_sync_is_remembered() {
    each_case(|case| {
        let mut rig = case.rig(SIZE);
        let block = case.block();
        let image = open_raw(&case.options(&rig.path)).unwrap();
        image.file().sync_failed(&std::io::Error::from_raw_os_error(libc::EIO));
        rig.image = Arc::new(image);
        assert_eq!(rig.op(OpKind::Flush, 0, 0), Err(BackingError::FlushFailed));
        assert_eq!(rig.image.flush(), Err(BackingError::FlushFailed));
        let op = Op { kind: FUA, offset: 0, len: block };
        let (result, _) = rig.door.run(&rig.image, op, filled(&vec![3; block as usize]));
        assert_eq!(result, Err(BackingError::WriteFailed));
        assert_eq!(rig.write(0, &vec![4; block as usize]), Ok(()));
        assert!(rig.read(0, block as usize).unwrap() == vec![4; block as usize]);
        rig.image = open(&case.options(&rig.path)).unwrap();
        assert_eq!(rig.op(OpKind::Flush, 0, 0), Ok(()));
    });
}

#[test]
fn read_only() {
    each_case(|case| {
        let mut rig = case.rig(SIZE);
        rig.write(0, &vec![5; SIZE as usize]).unwrap();
        rig.image = open(&OpenOptions { read_only: true, ..case.options(&rig.path) }).unwrap();
        let capabilities = rig.image.capabilities();
        assert!(capabilities.read_only && !capabilities.unmap && !capabilities.write_zeroes && !capabilities.direct);
        for kind in [FUA, WRITE, OpKind::Unmap, ZERO, ZERO_UNMAP] {
            let op = Op { kind, offset: 0, len: 4096 };
            let (result, _) = rig.door.run(&rig.image, op, filled(&[6; 4096]));
            assert_eq!(result, Err(BackingError::ReadOnly), "{case:?} {kind:?}");
        }
        assert_eq!(rig.image.write_bytes(0, &[6; 4096]), Err(BackingError::ReadOnly));
        assert_eq!(rig.op(OpKind::Flush, 0, 0), Ok(()));
        assert!(rig.read(0, SIZE as usize).unwrap() == vec![5; SIZE as usize]);
        assert!(rig.file(0, SIZE as usize) == vec![5; SIZE as usize]);
    });
}

#[test]
fn a_file_truncated_under_us_fails_reads() {
    each_case(|case| {
        if case.place == Place::Device {
            return;
        }
        let mut rig = case.rig(SIZE);
        rig.write(0, &vec![5; SIZE as usize]).unwrap();
        let half = SIZE / 2;
        File::options().write(true).open(&rig.path).unwrap().set_len(half).unwrap();
        assert!(rig.read(0, half as usize).unwrap() == vec![5; half as usize]);
        for (offset, len) in [(half, 4096), (0, SIZE), (half - 4096, 8192), (SIZE - 4096, 4096)] {
            assert_eq!(rig.read(offset, len as usize), Err(BackingError::ReadFailed), "{case:?} {offset} {len}");
            let mut bytes = vec![0; len as usize];
            assert_eq!(rig.image.read_bytes(offset, &mut bytes), Err(BackingError::ReadFailed));
        }
        // Cut inside a block.
        File::options().write(true).open(&rig.path).unwrap().set_len(half - 100).unwrap();
        assert_eq!(rig.read(0, half as usize), Err(BackingError::ReadFailed), "{case:?}");
        assert_eq!(rig.read(half - 4096, 4096), Err(BackingError::ReadFailed), "{case:?}");
    });
}

#[test]
fn every_buffer_comes_back_as_it_went() {
    each_case(|case| {
        let mut rig = case.rig(SIZE);
        for kind in [READ, WRITE, FUA, OpKind::Flush, OpKind::Unmap, ZERO, ZERO_UNMAP] {
            for offset in [0, SIZE] {
                let buf = filled(&[0; 8192]);
                let address = buf.iovecs()[0].iov_base;
                let (_, buf) = rig.door.run(&rig.image, Op { kind, offset, len: 4096 }, buf);
                assert_eq!((buf.iovecs()[0].iov_base, buf.len()), (address, 8192));
            }
        }
    });
}

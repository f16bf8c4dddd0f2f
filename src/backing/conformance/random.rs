//! Random operations against a model of the image in memory.

use super::guest::{Guest, Scatter};
use super::*;

const SIZE: u64 = 4 * MIB;
/// Operations in flight together lie in different parts of the image.
const PARTS: u64 = 8;
const PART: u64 = SIZE / PARTS;

#[test]
fn random_operations_do_what_a_model_does() {
    each_case(|case| {
        for scatter in [Scatter::Pages, Scatter::Sectors, Scatter::Odd] {
            run(case, scatter, 30);
        }
    });
}

fn run(case: Case, scatter: Scatter, rounds: u64) {
    let mut rig = case.rig(SIZE);
    let mut guest = Guest::new();
    let mut random = Random(0x5eed ^ case.block());
    let mut model = vec![0u8; SIZE as usize];
    for round in 0..rounds {
        if case.engine == Engine::Uring {
            match random.below(4) {
                0 => guest.register(&mut random, &mut rig.door.port),
                1 => guest.unregister(&mut random, &mut rig.door.port),
                _ => {}
            }
        }
        let mut submitted = HashMap::new();
        let depth = 1 + random.below(PARTS);
        for part in 0..depth {
            let op = pick(&mut random, case, part * PART);
            let moves = matches!(op.kind, OpKind::Read | OpKind::Write { .. });
            let len = if moves { op.len } else { 0 };
            let pieces = 1 + random.below(40);
            let mut buf = guest.buffer(&mut random, scatter, len, pieces);
            let range = op.offset as usize..(op.offset + op.len) as usize;
            let data = random.bytes(len as usize);
            assert_eq!(buf.write_at(0, &data), data.len());
            let expected = match op.kind {
                OpKind::Read => model[range].to_vec(),
                OpKind::Write { .. } => {
                    model[range].copy_from_slice(&data);
                    data
                }
                OpKind::Unmap | OpKind::WriteZeroes { .. } => {
                    model[range].fill(0);
                    data
                }
                OpKind::Flush => data,
            };
            let cookie = round << 8 | part;
            submitted.insert(cookie, (op, expected));
            rig.door.port.submit(&rig.image, op, buf, cookie);
            if random.below(3) == 0 {
                rig.door.port.flush().unwrap();
            }
            if random.below(50) == 0 {
                guest.unregister(&mut random, &mut rig.door.port);
            }
        }
        for (cookie, (result, buf)) in by_cookie(rig.door.reap(depth as usize)) {
            let (op, expected) = submitted.remove(&cookie).unwrap();
            assert_eq!(result, Ok(()), "{case:?} {op:?}");
            // A buffer that was written from must not be changed, either.
            assert!(contents(&buf) == expected, "{case:?} {scatter:?} {op:?}");
            guest.release(buf);
        }
        assert!(submitted.is_empty());
    }
    assert_eq!(rig.op(OpKind::Flush, 0, 0), Ok(()));
    assert!(rig.read(0, SIZE as usize).unwrap() == model);
    assert!(rig.file(0, SIZE as usize) == model);
    // The blocking methods see the same, and so do those that copy.
    let mut bytes = vec![0; SIZE as usize];
    rig.image.read_bytes(0, &mut bytes).unwrap();
    assert!(bytes == model);
}

fn pick(random: &mut Random, case: Case, base: u64) -> Op {
    let block = case.block();
    let blocks = PART / block;
    let first = random.below(blocks);
    // Mostly short, sometimes all that is left.
    let most = if random.below(10) == 0 { blocks - first } else { (blocks - first).min(24) };
    let count = 1 + random.below(most);
    let kind = match random.below(20) {
        0..8 => OpKind::Read,
        8..14 => OpKind::Write { fua: false },
        14 => OpKind::Write { fua: true },
        15 => OpKind::Flush,
        16 => OpKind::Unmap,
        17 => OpKind::WriteZeroes { unmap: true },
        _ => OpKind::WriteZeroes { unmap: false },
    };
    Op { kind, offset: base + first * block, len: count * block }
}

/// The blocking methods, with a transfer that begins anywhere in the buffer.
#[test]
fn blocking_methods_take_any_part_of_a_buffer() {
    each_case(|case| {
        let rig = case.rig(SIZE);
        let mut guest = Guest::new();
        let mut random = Random(77);
        let mut model = vec![0u8; SIZE as usize];
        for _ in 0..100 {
            let op = pick(&mut random, case, 0);
            let range = op.offset as usize..(op.offset + op.len) as usize;
            let at = random.below(1000);
            let mut buf = guest.buffer(&mut random, Scatter::Odd, at + op.len + 9, 12);
            let before = random.bytes(buf.len() as usize);
            buf.write_at(0, &before);
            match op.kind {
                OpKind::Write { fua } => {
                    rig.image.write(op.offset, op.len, &buf, at, fua).unwrap();
                    model[range].copy_from_slice(&before[at as usize..(at + op.len) as usize]);
                    assert!(contents(&buf) == before);
                }
                OpKind::Unmap => {
                    let data = random.bytes(op.len as usize);
                    rig.image.write_bytes(op.offset, &data).unwrap();
                    model[range].copy_from_slice(&data);
                }
                _ => {
                    rig.image.read(op.offset, op.len, &mut buf, at).unwrap();
                    let after = contents(&buf);
                    assert!(after[..at as usize] == before[..at as usize]);
                    assert!(after[at as usize..(at + op.len) as usize] == model[range]);
                    assert!(after[(at + op.len) as usize..] == before[(at + op.len) as usize..]);
                }
            }
            // A part that the buffer does not have.
            let len = buf.len();
            for (at, want) in [(len, 4096), (len - 1, 4096), (u64::MAX, 4096), (1, len.next_multiple_of(4096))] {
                assert_eq!(rig.image.read(0, want, &mut buf, at), Err(BackingError::OutOfRange));
                assert_eq!(rig.image.write(0, want, &buf, at, false), Err(BackingError::OutOfRange));
            }
            guest.release(buf);
        }
        assert!(rig.file(0, SIZE as usize) == model);
    });
}

/// More pieces than one system call takes.
#[test]
fn thousands_of_pieces() {
    each_case(|case| {
        let mut rig = case.rig(SIZE);
        let mut guest = Guest::new();
        let mut random = Random(99);
        for scatter in [Scatter::Sectors, Scatter::Odd] {
            let mut buf = guest.buffer(&mut random, scatter, 2 * MIB, 4000);
            assert!(buf.iovecs().len() > 2100, "{}", buf.iovecs().len());
            let data = random.bytes(2 * MIB as usize);
            buf.write_at(0, &data);
            let op = Op { kind: OpKind::Write { fua: false }, offset: MIB, len: 2 * MIB };
            let (result, buf) = rig.door.run(&rig.image, op, buf);
            assert_eq!(result, Ok(()));
            guest.release(buf);
            assert!(rig.file(MIB, 2 * MIB as usize) == data);

            let buf = guest.buffer(&mut random, scatter, 2 * MIB, 4000);
            let (result, buf) = rig.door.run(&rig.image, Op { kind: OpKind::Read, ..op }, buf);
            assert_eq!(result, Ok(()));
            assert!(contents(&buf) == data);
            guest.release(buf);
        }
    });
}

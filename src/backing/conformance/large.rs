//! Transfers that are done in slices, for something small came lately.

use super::*;
use crate::mem::Direction;

const READ: OpKind = OpKind::Read;
const WRITE: OpKind = OpKind::Write { fua: false };
const SIZE: u64 = 4 * MIB;

fn pattern(seed: u64, len: u64) -> Vec<u8> {
    (0..len).map(|at| (at / 8 * 0x9e37 + at + seed) as u8).collect()
}

/// Names an operation of this owner.
fn cookie(owner: u64, number: u64) -> u64 {
    owner << 16 | number
}

impl Rig {
    fn submit(&mut self, kind: OpKind, offset: u64, buf: IoBuf, cookie: u64) {
        let op = Op { kind, offset, len: buf.len() };
        self.door.port.submit(&self.image, op, buf, cookie);
    }

    /// Begins to read.
    fn ask(&mut self, offset: u64, len: u64, cookie: u64) {
        self.submit(READ, offset, IoBuf::owned(len as usize, Direction::In), cookie);
    }

    /// One turn of a reactor.
    fn turn(&mut self) {
        self.door.port.flush().unwrap();
        self.door.port.reap(&mut self.door.ended);
        self.door.port.advance();
    }
}

/// Calls `test` with a full image for each case in which large reads are done in slices, once a small one was done.
fn each_sliced(test: impl Fn(Case, Rig, Vec<u8>)) {
    each_case(|case| {
        let mut rig = case.rig(SIZE);
        let all = pattern(1, SIZE);
        rig.write(0, &all).unwrap();
        rig.read(0, 4096).unwrap();
        let cached = !rig.image.capabilities().direct && rig.image.raw().is_some_and(|raw| !raw.waits());
        if case.engine.on_reactor() || case.engine == Engine::Uring && cached {
            test(case, rig, all);
        }
    });
}

#[test]
fn they_move_all_of_their_bytes() {
    each_case(|case| {
        let mut rig = case.rig(SIZE);
        let mut all = vec![0; SIZE as usize];
        rig.read(0, 4096).unwrap();
        let block = case.block();
        let ranges = [(0, MIB), (MIB + block, 300 << 10), (2 * MIB, MIB - block), (3 * MIB, (128 << 10) + block)];
        for (number, (offset, len)) in (0..).zip(ranges) {
            let data = pattern(number, len);
            all[offset as usize..][..len as usize].copy_from_slice(&data);
            rig.submit(WRITE, offset, filled(&data), cookie(number % 2, number));
        }
        assert!(rig.door.reap(ranges.len()).iter().all(|ended| ended.result == Ok(())));
        assert!(rig.file(0, SIZE as usize) == all, "{case:?}");
        for (number, (offset, len)) in (0..).zip(ranges) {
            rig.ask(offset, len, cookie(number % 2, number));
        }
        for ended in rig.door.reap(ranges.len()) {
            let (offset, len) = ranges[(ended.cookie & 0xffff) as usize];
            assert_eq!(ended.result, Ok(()));
            assert!(contents(&ended.buf) == all[offset as usize..][..len as usize], "{case:?} {offset} {len}");
        }
    });
}

#[test]
fn small_ones_pass_and_owners_take_turns() {
    each_sliced(|case, mut rig, all| {
        let [first, second, other, small] = [cookie(1, 0), cookie(1, 1), cookie(2, 0), cookie(1, 2)];
        rig.ask(0, MIB, first);
        rig.ask(MIB, MIB, second);
        rig.ask(2 * MIB, MIB, other);
        for _ in 0..4 {
            rig.turn();
        }
        assert!(rig.door.ended.is_empty(), "{case:?}: a slice of each");
        rig.ask(3 * MIB, 4096, small);
        let ended = rig.door.reap(4);
        let order: Vec<u64> = ended.iter().map(|ended| ended.cookie).collect();
        if case.engine.on_reactor() {
            assert_eq!(order, [small, first, other, second], "{case:?}");
        } else {
            // The kernel may have a thread of its own do a slice. That takes longer, but not as long as to begin with the last one.
            let at = |cookie| order.iter().position(|ended| *ended == cookie);
            assert!(at(small) < at(second), "{case:?}: {order:?}");
        }
        for ended in &ended {
            let offset = [(first, 0), (second, MIB), (other, 2 * MIB), (small, 3 * MIB)];
            let offset = offset.iter().find(|(cookie, _)| *cookie == ended.cookie).unwrap().1 as usize;
            assert!(contents(&ended.buf) == all[offset..][..ended.buf.len() as usize], "{case:?}");
        }
    });
}

/// Whoever waits for the end of a write that has begun waits for what it has done.
#[test]
fn they_can_be_cancelled_between_slices_while_they_have_no_effect() {
    each_sliced(|case, mut rig, mut all| {
        rig.ask(0, MIB, cookie(1, 0));
        rig.ask(MIB, MIB, cookie(1, 1));
        for _ in 0..3 {
            rig.turn();
        }
        rig.door.port.cancel(cookie(1, 0));
        rig.door.port.cancel(cookie(1, 1));
        for ended in rig.door.reap(2) {
            assert_eq!(ended.result, Err(BackingError::Cancelled), "{case:?}");
        }
        if !case.engine.on_reactor() {
            return;
        }
        let data = pattern(5, MIB);
        rig.submit(WRITE, MIB, filled(&data), cookie(1, 0));
        rig.submit(WRITE, 0, filled(&data), cookie(1, 1));
        for _ in 0..3 {
            rig.turn();
        }
        rig.door.port.cancel(cookie(1, 0));
        rig.door.port.cancel(cookie(1, 1));
        let mut ended = rig.door.reap(2);
        ended.sort_by_key(|ended| ended.cookie);
        let results: Vec<_> = ended.iter().map(|ended| ended.result).collect();
        assert_eq!(results, [Ok(()), Err(BackingError::Cancelled)], "{case:?}");
        all[MIB as usize..][..MIB as usize].copy_from_slice(&data);
        assert!(rig.file(0, SIZE as usize) == all);
    });
}

#[test]
fn what_fails_fails_where_it_fails() {
    each_sliced(|case, mut rig, all| {
        // A device is not truncated.
        if case.place == Place::Device {
            return;
        }
        rig.ask(0, MIB, cookie(1, 0));
        for _ in 0..3 {
            rig.turn();
        }
        File::options().write(true).open(&rig.path).unwrap().set_len(MIB / 2).unwrap();
        let ended = rig.door.reap(1).pop().unwrap();
        assert_eq!(ended.result, Err(BackingError::ReadFailed), "{case:?}");
        let intact = ended.intact as usize;
        assert!((128 << 10..=512 << 10).contains(&intact), "{case:?}: {intact}");
        assert!(contents(&ended.buf)[..intact] == all[..intact]);
    });
}

#[test]
fn many_small_ones_leave_the_large_ones_half_of_the_time() {
    each_sliced(|case, mut rig, all| {
        // A ring of eight entries takes several turns for so many.
        if !case.engine.on_reactor() {
            return;
        }
        rig.ask(0, MIB, cookie(1, 0));
        for number in 0..64 {
            rig.ask(2 * MIB + 4096 * number, 4096, cookie(2, number));
        }
        rig.turn();
        assert_eq!(rig.door.ended.len(), 64, "{case:?}");
        rig.turn();
        let large = rig.door.ended.pop().unwrap();
        assert_eq!((large.cookie, large.result), (cookie(1, 0), Ok(())), "{case:?}");
        assert!(contents(&large.buf) == all[..MIB as usize]);
    });
}

/// What is not in memory makes the disk wait once, and is then done whole.
#[test]
fn a_cold_read_is_not_done_in_slices() {
    each_sliced(|case, mut rig, all| {
        if case.place != Place::Disk {
            return;
        }
        rig.image.flush().unwrap();
        rig.image.forget_cached();
        rig.ask(0, 2 * MIB, cookie(1, 0));
        let ended = rig.door.reap(1).pop().unwrap();
        assert_eq!(ended.result, Ok(()));
        assert!(contents(&ended.buf) == all[..2 * MIB as usize]);
    });
}

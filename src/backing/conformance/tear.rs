//! A block of a shared image is never seen half old, half new.

use std::sync::atomic::{AtomicBool, Ordering};

use super::guest::{Guest, Scatter};
use super::*;

const ROUNDS: usize = 20_000;
/// On a slow disk there are as many rounds as this takes, but some there must be.
const LONG_ENOUGH: Duration = Duration::from_secs(2);
const SOME: usize = 500;
const BLOCK: u64 = 4096;

#[test]
fn no_block_is_torn() {
    each_case(|case| {
        if case.shared {
            run(case, Scatter::Pages);
            run(case, Scatter::Odd);
        }
    });
}

/// Two reactors: one writes a block over and over, each time filled with another byte, the other reads it.
fn run(case: Case, scatter: Scatter) {
    let rig = case.rig(MIB);
    rig.image.write_bytes(BLOCK, &[0; BLOCK as usize]).unwrap();
    let image = &rig.image;
    let over = &AtomicBool::new(false);
    let (reads, values) = std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut side = Side::new(case, scatter);
            let start = Instant::now();
            for round in 0..ROUNDS {
                if round > SOME && start.elapsed() > LONG_ENOUGH {
                    break;
                }
                side.fill(round as u8);
                side.run(image, OpKind::Write { fua: false });
            }
            over.store(true, Ordering::Release);
            side.end();
        });
        let reader = scope.spawn(move || {
            let mut side = Side::new(case, scatter);
            let mut reads = 0;
            let mut values = std::collections::BTreeSet::new();
            while !over.load(Ordering::Acquire) || reads < 100 {
                side.run(image, OpKind::Read);
                let block = contents(side.buf.as_ref().unwrap());
                assert!(block.iter().all(|byte| *byte == block[0]), "{case:?} {scatter:?}: torn after {reads} reads");
                values.insert(block[0]);
                reads += 1;
            }
            side.end();
            (reads, values.len())
        });
        reader.join().unwrap()
    });
    println!("{case:?} {scatter:?}: {reads} reads saw {values} different blocks");
}

/// One reactor's side.
struct Side {
    door: Door,
    guest: Guest,
    buf: Option<IoBuf>,
}

impl Side {
    fn new(case: Case, scatter: Scatter) -> Side {
        let mut guest = Guest::new();
        let buf = guest.buffer(&mut Random(5), scatter, BLOCK, 6);
        Side { door: case.port(), guest, buf: Some(buf) }
    }

    fn fill(&mut self, byte: u8) {
        self.buf.as_mut().unwrap().write_at(0, &[byte; BLOCK as usize]);
    }

    fn run(&mut self, image: &Arc<dyn Image>, kind: OpKind) {
        let buf = self.buf.take().unwrap();
        let (result, buf) = self.door.run(image, Op { kind, offset: BLOCK, len: BLOCK }, buf);
        assert_eq!(result, Ok(()));
        self.buf = Some(buf);
    }

    fn end(mut self) {
        self.guest.release(self.buf.take().unwrap());
    }
}

//! Many operations at a time: each ends once, cancelled ones and those of a port that goes away, too.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};

use super::guest::{Guest, Scatter};
use super::*;
use crate::backing::raw::RawImage;
use crate::backing::{Capabilities, HeldEngine, RawFile};

const BLOCK: u64 = 4096;

#[test]
fn many_in_flight_end_once_each() {
    const COUNT: u64 = 600;
    each_case(|case| {
        let mut rig = case.rig(COUNT * BLOCK);
        let mut guest = Guest::new();
        let mut random = Random(3);
        for cookie in 0..COUNT {
            let mut buf = guest.buffer(&mut random, Scatter::Sectors, BLOCK, 3);
            buf.write_at(0, &[cookie as u8; BLOCK as usize]);
            let op = Op { kind: OpKind::Write { fua: false }, offset: cookie * BLOCK, len: BLOCK };
            rig.door.port.submit(&rig.image, op, buf, cookie);
        }
        assert_eq!(rig.door.port.in_flight(), COUNT as usize);
        let ended = by_cookie(rig.door.reap(COUNT as usize));
        assert_eq!(rig.door.port.in_flight(), 0);
        for (cookie, (result, buf)) in ended {
            assert!(cookie < COUNT);
            assert_eq!(result, Ok(()));
            guest.release(buf);
        }
        let file = rig.file(0, (COUNT * BLOCK) as usize);
        for (index, block) in file.chunks(BLOCK as usize).enumerate() {
            assert!(block.iter().all(|byte| *byte == index as u8), "{case:?}: block {index}");
        }
    });
}

/// The ring reaches registered memory by its number, not by its address: pages that the memory has lost since are still what it reads into. When
/// it is registered no more, it is its address again that counts.
#[test]
fn registered_memory_is_what_it_was_when_it_was_registered() {
    each_case(|case| {
        if case.engine != Engine::Uring {
            return;
        }
        let mut rig = case.rig(MIB);
        let data = Random(1).bytes(MIB as usize);
        rig.image.write_bytes(0, &data).unwrap();
        let mut guest = Guest::new();
        let mut random = Random(9);
        let read = |rig: &mut Rig, guest: &mut Guest| {
            let buf = guest.buffer(&mut Random(0), Scatter::Pages, BLOCK, 1);
            let (result, buf) = rig.door.run(&rig.image, Op { kind: OpKind::Read, offset: BLOCK, len: BLOCK }, buf);
            assert_eq!(result, Ok(()));
            let got = contents(&buf);
            guest.release(buf);
            got
        };
        let there = data[BLOCK as usize..2 * BLOCK as usize].to_vec();
        guest.register_all(&mut rig.door.port);
        assert!(read(&mut rig, &mut guest) == there, "{case:?}");
        guest.discard();
        assert!(read(&mut rig, &mut guest) == [0; BLOCK as usize], "{case:?}: it is not used");
        guest.unregister_all(&mut rig.door.port);
        assert!(read(&mut rig, &mut guest) == there, "{case:?}: it is used still");
        while rig.door.port.has_ended() {
            rig.door.port.advance();
        }
        guest.register(&mut random, &mut rig.door.port);
    });
}

/// Reads from the page cache are not counted among those of a disk that are under way on the same ring.
#[test]
fn ends_from_the_page_cache_are_not_held_back_for_a_disk() {
    const CACHED: u64 = 100;
    let [cached, direct] = [false, true].map(|shared| Case { place: Place::Disk, shared, engine: Engine::Uring });
    if !cached.exists() || !direct.exists() {
        return;
    }
    let (mut rig, disk) = (cached.rig(MIB), direct.rig(MIB));
    assert!(disk.image.capabilities().direct && !rig.image.capabilities().direct);
    rig.image.write_bytes(0, &vec![1; MIB as usize]).unwrap();
    let (mut guest, mut random) = (Guest::new(), Random(7));
    let mut submit = |port: &mut IoPort, image, cookie| {
        let buf = guest.buffer(&mut random, Scatter::Pages, BLOCK, 1);
        port.submit(image, Op { kind: OpKind::Read, offset: 0, len: BLOCK }, buf, cookie);
    };
    for cookie in 0..CACHED {
        submit(&mut rig.door.port, &rig.image, cookie);
        if cookie == CACHED / 2 {
            submit(&mut rig.door.port, &disk.image, CACHED);
        }
    }
    rig.door.port.flush().unwrap();
    let mut ended = Vec::new();
    rig.door.port.reap(&mut ended);
    assert!(ended.len() >= CACHED as usize, "{} in the first turn", ended.len());
    ended.extend(rig.door.reap(CACHED as usize + 1 - ended.len()));
    ended.into_iter().for_each(|completion| guest.release(completion.buf));
}

/// A disk has something to do while a turn still submits, and before all ends of a turn are taken.
#[test]
fn a_disk_is_not_kept_waiting_for_the_end_of_a_turn() {
    const BATCH: usize = 8;
    each_case(|case| {
        let mut rig = case.rig(MIB);
        if case.engine != Engine::Uring || !rig.image.capabilities().direct {
            return;
        }
        let mut guest = Guest::new();
        let mut random = Random(7);
        let mut submit = |port: &mut IoPort, cookie| {
            let buf = guest.buffer(&mut random, Scatter::Sectors, BLOCK, 1);
            port.submit(&rig.image, Op { kind: OpKind::Read, offset: 0, len: BLOCK }, buf, cookie);
        };
        // Nobody flushes, and the first have ended all the same.
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut count = 0;
        while count < 4000 && !rig.door.port.has_ended() {
            (0..BATCH).for_each(|_| {
                submit(&mut rig.door.port, count);
                count += 1;
            });
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(rig.door.port.has_ended(), "what was submitted does not begin");
        (0..5 * BATCH).for_each(|_| {
            submit(&mut rig.door.port, count);
            count += 1;
        });
        let mut ended = Vec::new();
        while rig.door.port.in_flight() > 0 {
            assert!(Instant::now() < deadline, "{} operations do not end", rig.door.port.in_flight());
            let before = ended.len();
            rig.door.port.flush().unwrap();
            rig.door.port.reap(&mut ended);
            assert!(ended.len() - before <= BATCH, "{} at once", ended.len() - before);
        }
        let ended = by_cookie(ended);
        assert_eq!(ended.len() as u64, count);
        for (result, buf) in ended.into_values() {
            assert_eq!(result, Ok(()));
            guest.release(buf);
        }
    });
}

#[test]
fn cancelled_operations_end_once_and_change_nothing() {
    const COUNT: u64 = 200;
    each_case(|case| {
        let mut rig = case.rig(COUNT * BLOCK);
        let mut cancelled = 0;
        for round in 1..20u8 {
            let before = rig.file(0, (COUNT * BLOCK) as usize);
            for cookie in 0..COUNT {
                let op = Op { kind: OpKind::Write { fua: false }, offset: cookie * BLOCK, len: BLOCK };
                rig.door.port.submit(&rig.image, op, filled(&[round; BLOCK as usize]), cookie);
            }
            rig.door.port.flush().unwrap();
            for cookie in (0..COUNT).rev() {
                rig.door.port.cancel(cookie);
                // Of something that is not there.
                rig.door.port.cancel(COUNT + cookie);
            }
            let ended = by_cookie(rig.door.reap(COUNT as usize));
            let after = rig.file(0, (COUNT * BLOCK) as usize);
            for (cookie, (result, _)) in ended {
                let range = (cookie * BLOCK) as usize..((cookie + 1) * BLOCK) as usize;
                match result {
                    Ok(()) => assert!(after[range].iter().all(|byte| *byte == round)),
                    Err(BackingError::Cancelled) => {
                        assert!(after[range.clone()] == before[range]);
                        cancelled += 1;
                    }
                    Err(e) => panic!("{case:?}: {e}"),
                }
            }
            assert_eq!(rig.door.port.in_flight(), 0);
        }
        println!("{case:?}: {cancelled} cancelled");
        assert!(!case.engine.on_reactor() || cancelled == 0);
    });
}

#[test]
fn dropping_a_port_waits_for_what_is_in_flight() {
    const COUNT: u64 = 300;
    each_case(|case| {
        for flushed in [false, true] {
            let mut rig = case.rig(COUNT * BLOCK);
            let mut door = case.port();
            for cookie in 0..COUNT {
                let op = Op { kind: OpKind::Write { fua: false }, offset: cookie * BLOCK, len: BLOCK };
                door.port.submit(&rig.image, op, filled(&[0xab; BLOCK as usize]), cookie);
            }
            if flushed {
                door.port.flush().unwrap();
            }
            drop(door);
            assert!(rig.file(0, (COUNT * BLOCK) as usize).iter().all(|byte| *byte == 0xab), "{case:?}");
            // Nobody else holds the image any more.
            assert!(Arc::get_mut(&mut rig.image).is_some());
        }
    });
}

/// Of a file system that may make wait whoever asks: its operations go to the kernel's threads from the start.
#[test]
fn a_ring_serves_files_that_make_it_wait() {
    const COUNT: u64 = 100;
    if !probe_io_uring() {
        return;
    }
    let file = tempfile::tempfile().unwrap();
    file.set_len(COUNT * BLOCK).unwrap();
    let raw = RawFile::new(file, "waits".into(), COUNT * BLOCK, false, None, 512, 1).nowait(false);
    let capabilities = Capabilities {
        read_only: false,
        unmap: false,
        write_zeroes: false,
        unmap_granularity: 4096,
        never_waits: false,
        direct: false,
        volatile: false,
    };
    let image: Arc<dyn Image> = Arc::new(RawImage::new(raw, capabilities, false, true));
    let mut door = Door::new(true);
    for write in [true, false] {
        for cookie in 0..COUNT {
            let kind = if write { OpKind::Write { fua: false } } else { OpKind::Read };
            let op = Op { kind, offset: cookie * BLOCK, len: BLOCK };
            door.port.submit(&image, op, filled(&[cookie as u8 + 1; BLOCK as usize]), cookie);
        }
        for (cookie, (result, buf)) in by_cookie(door.reap(COUNT as usize)) {
            assert_eq!(result, Ok(()));
            let mut byte = [0];
            buf.read_at(BLOCK - 1, &mut byte);
            assert_eq!(byte, [cookie as u8 + 1]);
        }
    }
}

#[test]
fn images_of_all_kinds_through_one_port() {
    let cases: Mutex<Vec<Case>> = Mutex::default();
    each_case(|case| cases.lock().unwrap().push(case));
    let cases = cases.into_inner().unwrap();
    for uring in [false, probe_io_uring()] {
        let rigs: Vec<Rig> = cases.iter().map(|case| case.rig(MIB)).collect();
        let mut door = Door::new(uring);
        for round in 0..16u64 {
            for (index, rig) in rigs.iter().enumerate() {
                let cookie = round << 8 | index as u64;
                let op = Op { kind: OpKind::Write { fua: false }, offset: round * BLOCK, len: BLOCK };
                door.port.submit(&rig.image, op, filled(&[cookie as u8 + 1; BLOCK as usize]), cookie);
            }
        }
        let ended = by_cookie(door.reap(16 * rigs.len()));
        assert!(ended.values().all(|(result, _)| *result == Ok(())));
        for (index, rig) in rigs.iter().enumerate() {
            let expected = vec![index as u8 + 1; 16 * BLOCK as usize];
            assert!(rig.file(0, 16 * BLOCK as usize) == expected, "{:?}", cases[index]);
        }
    }
}

/// An image whose reads do not return until it is opened up.
#[derive(Debug, Default)]
struct Stuck {
    opened: Mutex<bool>,
    change: Condvar,
    reading: AtomicUsize,
}

impl Stuck {
    fn open_up(&self) {
        *self.opened.lock().unwrap() = true;
        self.change.notify_all();
    }
}

impl Image for Stuck {
    fn size(&self) -> u64 {
        MIB
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            read_only: false,
            unmap: false,
            write_zeroes: false,
            unmap_granularity: 4096,
            never_waits: false,
            direct: false,
            volatile: false,
        }
    }

    fn read(&self, _: u64, _: u64, _: &mut IoBuf, _: u64) -> Result<(), BackingError> {
        self.reading.fetch_add(1, Ordering::SeqCst);
        let mut opened = self.opened.lock().unwrap();
        while !*opened {
            opened = self.change.wait(opened).unwrap();
        }
        Ok(())
    }

    fn write(&self, _: u64, _: u64, _: &IoBuf, _: u64, _: bool) -> Result<(), BackingError> {
        Err(BackingError::WriteFailed)
    }

    fn read_bytes(&self, _: u64, _: &mut [u8]) -> Result<(), BackingError> {
        Err(BackingError::ReadFailed)
    }

    fn write_bytes(&self, _: u64, _: &[u8]) -> Result<(), BackingError> {
        Err(BackingError::WriteFailed)
    }

    fn flush(&self) -> Result<(), BackingError> {
        Ok(())
    }

    fn unmap(&self, _: u64, _: u64) -> Result<(), BackingError> {
        Err(BackingError::Unsupported)
    }

    fn write_zeroes(&self, _: u64, _: u64, _: bool) -> Result<(), BackingError> {
        Err(BackingError::Unsupported)
    }

    fn raw(&self) -> Option<&RawFile> {
        None
    }
}

const READ: Op = Op { kind: OpKind::Read, offset: 0, len: 4096 };

/// A port whose I/O threads are three for one image, with `count` operations on a stuck image.
fn stuck(count: u64) -> (Door, Arc<Stuck>) {
    let stuck = Arc::new(Stuck::default());
    let image: Arc<dyn Image> = stuck.clone();
    let mut door = Door::new(false);
    for cookie in 0..count {
        door.port.submit(&image, READ, filled(&[0; 4096]), cookie);
    }
    while stuck.reading.load(Ordering::SeqCst) < count.min(3) as usize {
        std::thread::yield_now();
    }
    (door, stuck)
}

#[test]
fn a_slow_image_does_not_hold_up_another() {
    // More than there are threads at all.
    let (mut door, stuck) = stuck(10);
    let case = Case { place: Place::Disk, shared: false, engine: Engine::Threads };
    let rig = case.rig(MIB);
    for cookie in 20..40 {
        door.port.submit(&rig.image, READ, filled(&[1; 4096]), cookie);
    }
    let ended = by_cookie(door.reap(20));
    assert!(
        ended.iter().all(|(cookie, (result, buf))| *cookie >= 20 && *result == Ok(()) && contents(buf) == [0; 4096])
    );
    stuck.open_up();
    assert_eq!(by_cookie(door.reap(10)).len(), 10);
}

#[test]
fn a_cancel_takes_what_waits_for_a_thread_and_not_what_runs() {
    let (mut door, stuck) = stuck(10);
    for cookie in 0..10 {
        door.port.cancel(cookie);
    }
    let ended = by_cookie(door.reap(7));
    assert!(ended.values().all(|(result, buf)| *result == Err(BackingError::Cancelled) && buf.len() == 4096));
    assert_eq!(door.port.in_flight(), 3);
    stuck.open_up();
    let ended = by_cookie(door.reap(3));
    assert!(ended.values().all(|(result, _)| *result == Ok(())));
}

/// A guest's LOGICAL UNIT RESET cancels all that it has in flight, which it may make very much: a look through everything for each of them
/// would keep the reactor from its other guests for minutes.
#[test]
fn cancelling_everything_is_not_quadratic() {
    const COUNT: u64 = 100_000;
    let (mut door, stuck) = stuck(3);
    let image: Arc<dyn Image> = stuck.clone();
    let op = Op { kind: OpKind::Flush, offset: 0, len: 0 };
    for cookie in 3..COUNT {
        door.port.submit(&image, op, IoBuf::empty(), cookie);
    }
    let start = Instant::now();
    for cookie in (3..COUNT).rev() {
        door.port.cancel(cookie);
    }
    let ended = door.reap(COUNT as usize - 3);
    assert!(ended.iter().all(|c| c.result == Err(BackingError::Cancelled)));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    stuck.open_up();
    assert_eq!(door.reap(3).len(), 3);
}

#[test]
fn dropping_a_port_waits_for_its_threads() {
    let (door, stuck) = stuck(5);
    let (dropped, has_dropped) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        // The port is not `Send` (it may hold a ring), so the opener goes away instead.
        let stuck = &stuck;
        scope.spawn(move || {
            let early = has_dropped.recv_timeout(Duration::from_millis(50));
            stuck.open_up();
            assert!(early.is_err(), "dropped with operations in flight");
            has_dropped.recv_timeout(Duration::from_secs(20)).unwrap();
        });
        drop(door);
        dropped.send(()).unwrap();
    });
    assert_eq!(stuck.reading.load(Ordering::SeqCst), 5);
    assert_eq!(Arc::strong_count(&stuck), 1);
}

#[test]
fn the_held_engine_holds() {
    let case = Case { place: Place::Memory, shared: false, engine: Engine::Threads };
    let rig = case.rig(MIB);
    let mut engine = HeldEngine::new();
    for cookie in 0..4 {
        engine.submit(&rig.image, READ, filled(&[1; 4096]), cookie);
    }
    let mut ended = Vec::new();
    engine.reap(&mut ended);
    assert!(ended.is_empty());
    assert_eq!(engine.held().map(|(cookie, _)| cookie).collect::<Vec<_>>(), [0, 1, 2, 3]);
    engine.cancel(1);
    assert!(engine.release(2));
    assert!(!engine.release(2));
    assert!(engine.fail(0, BackingError::NoSpace));
    engine.release_all();
    assert_eq!(engine.in_flight(), 4);
    engine.reap(&mut ended);
    assert_eq!(engine.in_flight(), 0);
    assert_eq!(engine.cancels(), [1]);
    let results: Vec<_> = ended.iter().map(|c| (c.cookie, c.result)).collect();
    let expected = [(1, Err(BackingError::Cancelled)), (2, Ok(())), (0, Err(BackingError::NoSpace)), (3, Ok(()))];
    assert_eq!(results, expected);

    let mut begun = HeldEngine::begun();
    begun.submit(&rig.image, READ, filled(&[1; 4096]), 9);
    begun.cancel(9);
    assert_eq!(begun.held().count(), 1);
    assert!(begun.release(9));
    begun.reap(&mut ended);
    assert_eq!(ended.pop().map(|c| c.result), Some(Ok(())));
}

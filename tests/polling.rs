//! Reactors that look for work before they sleep: drivers that kick only when they are asked to lose nothing by it, a busy guest does not keep
//! the others' kicks from being heard, and with idle guests nobody looks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

mod frontend;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::thread;
use std::time::{Duration, Instant};

use frontend::guest::rw10;
use frontend::{BOUND, Buffer, Guest, Vstgt};

/// The first request queue.
const RING: u16 = 2;

/// A driver that kicks only when the device asks for it (virtio 1.2 2.7.10).
struct Polite {
    guest: Guest,
    header: u64,
    response: u64,
    data: u64,
    kicks: u32,
}

impl Polite {
    fn attached(socket: &Path) -> Polite {
        let mut guest = Guest::attached(socket);
        guest.clear_attentions();
        let (header, response, data) = (guest.ram.alloc(51), guest.ram.alloc(108), guest.ram.alloc(4096));
        Polite { guest, header, response, data, kicks: 0 }
    }

    /// Reads 4 KiB; whatever it takes, it takes no longer than [`BOUND`].
    fn read(&mut self, lba: u32) {
        let header = Guest::header([1, 0, 0, 0, 0, 0, 0, 0], &rw10(0x28, lba, 4096));
        self.guest.ram.write(self.header, &header);
        let chain = [Buffer::out(self.header, 51), Buffer::input(self.response, 108), Buffer::input(self.data, 4096)];
        let ram = self.guest.ram.clone();
        let queue = self.guest.queue(RING);
        let old = ram.load_u16(queue.avail + 2);
        queue.push(&chain);
        fence(Ordering::SeqCst);
        let event = ram.load_u16(queue.used + 4 + 8 * u64::from(queue.size));
        if event == old {
            queue.kick();
            self.kicks += 1;
        }
        // It looks, too: what comes next comes soon.
        let start = Instant::now();
        while self.guest.queue(RING).pop_used().is_none() {
            assert!(start.elapsed() < BOUND, "an answer in time");
            std::hint::spin_loop();
        }
        assert!(self.guest.parse_response(self.response, 0).good());
    }
}

/// Looks for as long as it may, on one reactor.
fn serve(sockets: usize) -> Vstgt {
    Vstgt::start_with(sockets, |command| {
        command.args(["--reactors", "1", "--poll-us", "1000"]);
    })
}

fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Gaps of all lengths around the time for which it looks: a chain that comes just when the reactor stops looking is not forgotten.
#[test]
fn no_request_is_forgotten() {
    let vstgt = serve(1);
    let mut driver = Polite::attached(vstgt.socket(0));
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut count = 0;
    // On a machine with much else to do it seldom looks.
    while count < 8000 || count == driver.kicks && count < 100_000 {
        driver.read(count % 1000);
        count += 1;
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let (now, longest) = (random >> 33, if random >> 61 == 0 { 1_200_000 } else { 80_000 });
        spin(Duration::from_nanos(now % longest));
    }
    println!("{} kicks for {count} requests", driver.kicks);
    assert!(driver.kicks < count, "it never looked");
    drop(driver);
    vstgt.stop();
}

/// Two that are always there, and one that has something to say only now and then, on the same reactor.
#[test]
fn who_is_quiet_is_heard_beside_the_busy() {
    let vstgt = serve(3);
    let stop = Arc::new(AtomicBool::new(false));
    let busy = |index| {
        let (mut driver, stop) = (Polite::attached(vstgt.socket(index)), Arc::clone(&stop));
        thread::spawn(move || {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                driver.read(count % 1000);
                count += 1;
            }
            count
        })
    };
    let busy = [busy(0), busy(1)];
    let mut quiet = Polite::attached(vstgt.socket(2));
    for i in 0..100 {
        thread::sleep(Duration::from_millis(10));
        quiet.read(i);
    }
    stop.store(true, Ordering::Relaxed);
    for thread in busy {
        assert!(thread.join().unwrap() > 100);
    }
    drop(quiet);
    vstgt.stop();
}

fn context_switches(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let statuses = threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).unwrap());
    let switches = |status: String| -> u64 {
        let numbers = status.lines().filter_map(|line| line.split_once("_ctxt_switches:"));
        numbers.map(|(_, number)| number.trim().parse::<u64>().unwrap()).sum()
    };
    statuses.map(switches).sum()
}

/// However long it may look: guests that have stopped talking cost neither time nor context switches.
#[test]
fn idle_guests_are_not_looked_at() {
    let vstgt = serve(2);
    let mut drivers = [0, 1].map(|index| Polite::attached(vstgt.socket(index)));
    for i in 0..500 {
        drivers.iter_mut().for_each(|driver| driver.read(i));
    }
    thread::sleep(Duration::from_millis(500));
    // Something in the process may have to be done once in a while; not so on all tries.
    let quiet = (0..10).any(|_| {
        let before = (context_switches(vstgt.pid()), vstgt.cpu_ticks());
        thread::sleep(Duration::from_secs(1));
        before == (context_switches(vstgt.pid()), vstgt.cpu_ticks())
    });
    assert!(quiet, "vstgt is never still");
    drop(drivers);
    vstgt.stop();
}

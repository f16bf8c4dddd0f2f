//! What reactors share without locks, run through every interleaving of a few threads.
//!
//! The source files themselves are compiled here, with loom's atomics in the place of the standard library's (`sys::sync`). What
//! surrounds them in the crate is played in small: a reactor is a thread that starts commands and reads mail; a letter is a flag that
//! is stored and loaded, which orders less than the channel that carries letters does; the channel itself, and with it the order
//! of one sender's letters, is the standard library's. A command that uses the image is an access to a cell for which loom
//! demands that accesses exclude each other.
//!
//! Each model is small enough to be exhausted in seconds.

#![allow(missing_docs, dead_code, reason = "the files have more than the models need")]
#![allow(clippy::unwrap_used, reason = "test code")]

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use loom::sync::{Arc, Mutex, Notify};
use loom::thread;

use barrier::Barrier;
use drowse::Drowse;
use gate_word::GateWord;

mod sys {
    pub mod sync {
        pub use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
    }
}

#[path = "../src/target/barrier.rs"]
mod barrier;
#[path = "../src/sys/drowse.rs"]
mod drowse;
#[path = "../src/lu/gate_word.rs"]
mod gate_word;

/// As in the gate: what a reservation denies, and three unit attentions, the first two of which are resets.
const DENY: u64 = 1 << 32;
const ATTENTIONS: u64 = 0b111;
const RESETS: u64 = 0b011;
const CHANGED: u64 = 0b100;

/// What a change and the reactors have in common.
struct Fence {
    gate: GateWord,
    mail: [AtomicBool; 2],
    barrier: Barrier,
    /// The image as the commands of each reactor use it.
    image: [UnsafeCell<u64>; 2],
    /// How many commands each reactor has started.
    started: [AtomicU64; 2],
    /// What the last one counted, and one.
    counted: AtomicU64,
}

impl Fence {
    fn new() -> Arc<Fence> {
        Arc::new(Fence {
            gate: GateWord::new(0),
            mail: [AtomicBool::new(false), AtomicBool::new(false)],
            barrier: Barrier::new(2),
            image: [UnsafeCell::new(0), UnsafeCell::new(0)],
            started: [AtomicU64::new(0), AtomicU64::new(0)],
            counted: AtomicU64::new(0),
        })
    }

    /// A reactor: admits a command, runs it, reads its mail, as often as it takes.
    fn reactor(&self, own: usize) {
        let mut acknowledged = false;
        for turn in 0.. {
            // Admitted is registered: the same thread does both before it looks at mail again.
            let running = self.gate.read() & DENY == 0;
            assert!(!(running && acknowledged), "a command started after the acknowledgement");
            if running {
                self.started[own].fetch_add(1, Ordering::Relaxed);
            }
            let order = !acknowledged && self.mail[own].load(Ordering::Acquire);
            // The command ends only after the letter was read.
            if running {
                self.image[own].with_mut(|_| ());
            }
            if order {
                acknowledged = true;
                if self.barrier.ack() {
                    self.grant();
                }
            }
            if acknowledged && turn > 0 {
                return;
            }
            thread::yield_now();
        }
    }

    /// The last one is through: nobody is at the image any more.
    fn grant(&self) {
        self.image.iter().for_each(|cell| cell.with_mut(|_| ()));
        let started: u64 = self.started.iter().map(|n| n.load(Ordering::Relaxed)).sum();
        let before = self.counted.swap(started + 1, Ordering::Relaxed);
        assert_eq!(before, 0, "there were two last ones");
    }
}

/// Deny, mail, acknowledge: after the last acknowledgement no command of who lost is at the image, and none starts.
#[test]
fn a_fence_leaves_nobody_behind() {
    loom::model(|| {
        let fence = Fence::new();
        let other = Arc::clone(&fence);
        let reactor = thread::spawn(move || other.reactor(1));
        // The change is made on a reactor as well, which then goes on as one.
        fence.gate.set(DENY);
        fence.mail.iter().for_each(|mail| mail.store(true, Ordering::Release));
        fence.reactor(0);
        reactor.join().unwrap();
        let started: u64 = fence.started.iter().map(|n| n.load(Ordering::Relaxed)).sum();
        assert_eq!(fence.counted.load(Ordering::Relaxed), started + 1, "each was counted");
    });
}

/// Of three parties one is the last, and sees what the others did and found.
#[test]
fn one_is_the_last_and_sees_everything() {
    loom::model(|| {
        let shared = Arc::new((Barrier::new(3), [(); 3].map(|()| UnsafeCell::new(0u8))));
        let party = |own: usize| {
            let shared = Arc::clone(&shared);
            move || {
                let (barrier, cells) = &*shared;
                cells[own].with_mut(|_| ());
                if own == 1 {
                    barrier.find();
                }
                let last = barrier.ack();
                if last {
                    cells.iter().for_each(|cell| cell.with_mut(|_| ()));
                    assert!(barrier.found());
                }
                u32::from(last)
            }
        };
        let others = [thread::spawn(party(1)), thread::spawn(party(2))];
        let own = party(0)();
        assert_eq!(others.into_iter().map(|other| other.join().unwrap()).sum::<u32>() + own, 1);
    });
}

/// As a command is admitted: the pending unit attention of highest precedence, if any.
fn admit(gate: &GateWord) -> Option<u64> {
    let lowest = |word: u64| match word & ATTENTIONS {
        0 => Err(()),
        pending => {
            let lowest = pending & pending.wrapping_neg();
            Ok((lowest, lowest))
        }
    };
    gate.take(gate.read(), lowest).ok()
}

/// As an attention is established: a reset voids the others, and stays behind one of higher precedence.
fn establish(gate: &GateWord, bit: u64) {
    gate.update(|word| match bit & RESETS {
        0 => word | bit,
        _ => {
            let resets = (word & RESETS) | bit;
            word & !ATTENTIONS | resets & resets.wrapping_neg()
        }
    });
}

#[test]
fn an_attention_is_reported_by_one_command() {
    loom::model(|| {
        let gate = Arc::new(GateWord::new(CHANGED | DENY));
        let others = [(); 2].map(|()| {
            let gate = Arc::clone(&gate);
            thread::spawn(move || admit(&gate))
        });
        let mut all = vec![admit(&gate)];
        all.extend(others.into_iter().map(|other| other.join().unwrap()));
        all.sort_unstable();
        assert_eq!(all, [None, None, Some(CHANGED)]);
        assert_eq!(gate.read(), DENY, "what is no attention stays");
    });
}

/// While one thread establishes, one admits, and one denies: nothing is lost, nothing doubled.
#[test]
fn attentions_that_come_meanwhile_are_neither_lost_nor_doubled() {
    loom::model(|| {
        let gate = Arc::new(GateWord::new(CHANGED));
        let (establishes, denies) = (Arc::clone(&gate), Arc::clone(&gate));
        let reset = thread::spawn(move || establish(&establishes, 0b010));
        let deny = thread::spawn(move || denies.set(DENY));
        let during = admit(&gate);
        reset.join().unwrap();
        deny.join().unwrap();
        let after = [admit(&gate), admit(&gate)];
        match during {
            // The old one was told before the reset came, or was voided by it.
            Some(CHANGED) => assert_eq!(after, [Some(0b010), None]),
            Some(0b010) => assert_eq!(after, [None, None]),
            other => panic!("{other:?}"),
        }
        assert_eq!(gate.read(), DENY);
    });
}

/// Two that are established by two threads while a third one admits.
#[test]
fn two_attentions_are_both_reported() {
    loom::model(|| {
        let gate = Arc::new(GateWord::new(0));
        let others = [0b001, CHANGED].map(|bit| {
            let gate = Arc::clone(&gate);
            thread::spawn(move || gate.update(|word| word | bit))
        });
        let mut told: Vec<u64> = admit(&gate).into_iter().collect();
        others.into_iter().for_each(|other| other.join().unwrap());
        told.extend(admit(&gate));
        told.extend(admit(&gate));
        told.sort_unstable();
        assert_eq!(told, [0b001, CHANGED]);
    });
}

/// An eventfd as the kernel has it: a counter, and whoever waits until it is not zero.
struct Event {
    counter: Mutex<u64>,
    readable: Notify,
}

/// A mailbox: for each sender the newest letter, and the event that wakes.
struct Mailbox {
    letters: [AtomicU64; 2],
    drowse: Drowse,
    event: Event,
}

impl Mailbox {
    fn new() -> Arc<Mailbox> {
        Arc::new(Mailbox {
            letters: [AtomicU64::new(0), AtomicU64::new(0)],
            drowse: Drowse::new(),
            event: Event { counter: Mutex::new(0), readable: Notify::new() },
        })
    }

    fn post(&self, sender: usize, letter: u64) {
        self.letters[sender].store(letter, Ordering::Release);
        if self.drowse.must_wake() {
            *self.event.counter.lock().unwrap() += 1;
            self.event.readable.notify();
        }
    }

    fn look(&self) -> [u64; 2] {
        [0, 1].map(|sender| self.letters[sender].load(Ordering::Acquire))
    }

    /// The receiver, until it has these letters. Were a wake-up lost it would sleep for ever, which loom reports.
    fn receive(&self, until: [u64; 2]) {
        let mut seen = [0; 2];
        while seen != until {
            self.drowse.fall_asleep();
            let now = self.look();
            assert!(now[0] >= seen[0] && now[1] >= seen[1], "letters of one sender come in order");
            if now == seen {
                while *self.event.counter.lock().unwrap() == 0 {
                    self.event.readable.wait();
                }
                self.drowse.awake();
                *self.event.counter.lock().unwrap() = 0;
            } else {
                self.drowse.awake();
                seen = now;
            }
        }
    }
}

/// All interleavings with up to two preemptions; all there are would take a minute.
fn bounded() -> loom::model::Builder {
    let mut bounded = loom::model::Builder::new();
    bounded.preemption_bound = Some(2);
    bounded
}

#[test]
fn no_wake_up_is_lost_by_one_sender() {
    bounded().check(|| {
        let mailbox = Mailbox::new();
        let sender = Arc::clone(&mailbox);
        let sender = thread::spawn(move || (1..=2).for_each(|letter| sender.post(0, letter)));
        mailbox.receive([2, 0]);
        sender.join().unwrap();
    });
}

#[test]
fn no_wake_up_is_lost_by_two_senders() {
    bounded().check(|| {
        let mailbox = Mailbox::new();
        let senders = [0, 1].map(|own| {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || mailbox.post(own, 1))
        });
        mailbox.receive([1, 1]);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
}

//! Abort storms: two front-ends send commands and task management at random at one unit and at one of their own each, and judge every
//! answer by what both of them did.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, dead_code, reason = "test code")]

pub mod front_end;
pub mod functions;
pub mod image;
pub mod judge;
pub mod ledger;
pub mod random;
pub mod task;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::drive::{FUNCTION_SUCCEEDED, OK, QUERY_TASK_SET};
use crate::frontend::Guest;
use crate::frontend::guest::A_MOMENT;
use front_end::{FrontEnd, Storm};
use judge::{DEFAULT, Rules};
use ledger::{Ledger, SHARED};
use task::*;

pub type Counts = BTreeMap<(String, &'static str), usize>;

pub fn soak() -> bool {
    std::env::var_os("VSTGT_SOAK").is_some()
}

/// `VSTGT_SEED`, or another one each time.
pub fn seed() -> u64 {
    let seed = match std::env::var("VSTGT_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
    };
    eprintln!("VSTGT_SEED={seed}");
    seed
}

/// The settings of the Control mode page that storms are about, and whether units are reset; which ends any other setting but the
/// default one.
pub const PHASES: [(Rules, bool); 5] = [
    (DEFAULT, true),
    (Rules { own_task_sets: false, ..DEFAULT }, false),
    (Rules { own_task_sets: false, tas: true, qerr: 0 }, false),
    (Rules { own_task_sets: false, tas: false, qerr: 1 }, false),
    (Rules { own_task_sets: true, tas: true, qerr: 3 }, false),
];

/// Sets the other one's failure when it goes away in a panic.
struct Fails<'a>(&'a AtomicBool);

impl Drop for Fails<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// What is promised of the units that only one guest reaches.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// Their images keep blocks whole.
    Whole,
    /// They are files in the page cache: who reads a block while it writes it may see some of both.
    InPageCache,
}

/// Storms of so many functions in all, by two guests that are connected and whose rings are not started. Which of the units is at which
/// address is `luns`: the own one, the shared one.
pub fn storms(guests: [Guest; 2], luns: [[u8; 8]; 2], own: Own, functions: usize, seed: u64) -> Counts {
    let [private, shared] = luns;
    let luns = [private, private, shared];
    let mut who = 0..;
    let mut sides = guests.map(|guest| {
        let who = who.next().unwrap();
        FrontEnd::start(guest, who, luns, seed.wrapping_mul(2).wrapping_add(who as u64))
    });
    let ledger = Ledger::default();
    prepare(&mut sides, DEFAULT);
    for side in &mut sides {
        for unit in side.units() {
            // Another storm may have been there.
            side.clear_attentions(unit);
            let cdb = What::Write.cdb(0, LBAS, false);
            let answer = side.raw(unit, &cdb, SIMPLE, &vec![0; (LBAS * BLOCK) as usize], 0);
            assert!(answer.good(), "{answer:?}");
        }
    }
    for (rules, resets) in PHASES {
        eprintln!("{rules:?}");
        prepare(&mut sides, rules);
        let failed = AtomicBool::new(false);
        let functions = functions.div_ceil(2 * PHASES.len());
        let storm = &Storm { ledger: &ledger, own, rules, resets, functions, failed: &failed };
        std::thread::scope(|scope| {
            for side in &mut sides {
                scope.spawn(|| {
                    let _fails = Fails(storm.failed);
                    side.run(storm);
                });
            }
        });
        settle(&mut sides, &ledger);
    }
    let mut counts = Counts::new();
    for side in &sides {
        for (what, count) in &side.counts {
            *counts.entry(what.clone()).or_default() += count;
        }
    }
    counts
}

/// No reservations, these rules, no unit attentions.
fn prepare(sides: &mut [FrontEnd; 2], rules: Rules) {
    let list = rules.mode_select();
    for side in sides.iter_mut() {
        for unit in side.units() {
            side.clear_attentions(unit);
        }
    }
    for side in sides.iter_mut() {
        for unit in side.units() {
            side.clear_attentions(unit);
            let answer = side.raw(unit, &[0x15, 0x10, 0, 0, list.len() as u8, 0], SIMPLE, &list, 0);
            assert!(answer.good(), "{answer:?}");
        }
    }
    for side in sides.iter_mut() {
        for unit in side.units() {
            side.clear_attentions(unit);
        }
    }
}

/// Nothing is left of a storm: no task, no ACA condition, no hold, no reservation that cannot be ended, and every block has a value that
/// it may have.
fn settle(sides: &mut [FrontEnd; 2], ledger: &Ledger) {
    std::thread::sleep(A_MOMENT / 4);
    for side in sides.iter_mut() {
        for ring in [0, 2, 3] {
            assert_eq!(side.guest.queue(ring).pop_used(), None, "ring {ring}: something is answered twice");
            assert_eq!(side.guest.queue(ring).outstanding(), 0);
        }
        // CLEAR ACA; then there is no task that was waiting for it.
        for unit in side.units() {
            assert_eq!(side.function(2, unit), OK);
            assert_eq!(side.function(QUERY_TASK_SET, unit), OK, "{FUNCTION_SUCCEEDED}: a task is left");
        }
    }
    for side in sides.iter_mut() {
        // Whatever is in the way goes with it.
        let release = [What::Release, What::Ready, What::Ready, What::Ready, What::Release];
        release.into_iter().for_each(|what| drop(side.one(SHARED, what, 0, 0)));
    }
    for side in sides.iter_mut() {
        let key = 0xa0 + side.who as u64;
        let change = |action, key, action_key| What::PersistentReserve { action, kind: 1, key, action_key };
        for what in [change(REGISTER_AND_IGNORE, 0, key), change(CLEAR, key, 0)] {
            let ends = (0..8).any(|_| side.one(SHARED, what, 0, 0).good());
            assert!(ends, "front-end {}: reservations cannot be cleared", side.who);
        }
    }
    for side in sides.iter_mut() {
        for unit in side.units() {
            side.clear_attentions(unit);
            let posted = ledger.now();
            for lba in 0..LBAS {
                let value = side.read_block(unit, lba);
                if let Err(why) = ledger.check(value, unit, lba, posted) {
                    panic!("front-end {}: {value:#x} in block {lba}: {why}", side.who);
                }
                // Nothing holds the block, nor the task set.
                let both = [block(value), block(value)].concat();
                let cdb = What::CompareAndWrite.cdb(lba, 1, false);
                let answer = side.raw(unit, &cdb, ORDERED, &both, 0);
                assert!(answer.good(), "{answer:?}");
            }
        }
    }
}

/// What a storm must have seen, or else it was none.
pub fn assert_stormy(counts: &Counts) {
    for (what, count) in counts {
        eprintln!("{count:7} {what:?}");
    }
    let some = |kind: &str| counts.iter().any(|((_, k), count)| *k == kind && *count > 0);
    for kind in [
        "GOOD",
        "UNIT ATTENTION",
        "RESERVATION CONFLICT",
        "ACA ACTIVE",
        "TASK ABORTED",
        "ABORTED",
        "ABORTED by the other",
        "RESET",
        "LBA OUT OF RANGE",
        "INVALID MESSAGE",
        "MISCOMPARE",
        "COMPLETE",
        "QUERY: found",
        "QUERY: none",
    ] {
        assert!(some(kind), "no {kind} in the whole storm");
    }
}

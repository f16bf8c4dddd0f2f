//! A unit that goes on from what was kept of it, and what it gives its keeper to keep.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::device_server::testkit::{Bench, MemImage, execute, good, out_buf};
use crate::device_server::{AbortFlag, Plan, Request, start};
use crate::lu::reservation::{PersistentReservation, Registration, ReservationState, ReservationType};
use crate::lu::{Attention, GateBits, Itl, KeepError, Keeper, KeptNexus, KeptState, Lu, LuSetup, NexusId};
use crate::mem::IoBuf;
use crate::scsi::spc::ModeState;
use crate::scsi::{SenseKey, TaskAttribute};

/// Keeps the state in memory.
#[derive(Debug, Default)]
struct Memory {
    kept: Mutex<Option<KeptState>>,
    notes: AtomicUsize,
    full: AtomicBool,
    /// What it keeps outlives a loss of power.
    durable: AtomicBool,
}

impl Keeper for Memory {
    fn keep(&self, state: &KeptState) -> Result<(), KeepError> {
        if self.full.load(Ordering::Relaxed) {
            return Err(KeepError::Write("full".to_owned()));
        }
        *self.kept.lock().unwrap() = Some(state.clone());
        Ok(())
    }

    fn note(&self) {
        self.notes.fetch_add(1, Ordering::Relaxed);
    }

    fn survives_power_loss(&self) -> bool {
        self.durable.load(Ordering::Relaxed)
    }
}

impl Memory {
    fn state(&self) -> KeptState {
        self.kept.lock().unwrap().clone().expect("something is kept")
    }

    fn notes(&self) -> usize {
        self.notes.swap(0, Ordering::Relaxed)
    }
}

fn id(n: u8) -> NexusId {
    NexusId { initiator: [n; 16], port: 1 }
}

const BLOCKS: usize = 64;

/// The next process's unit, which finds what the one before left with `keeper`.
fn unit_with(keeper: &Arc<Memory>, change: impl FnOnce(&mut LuSetup)) -> Arc<Lu> {
    let mut setup = LuSetup::new(Arc::new(MemImage::new(BLOCKS * 512)), 0x3000_0000_0000_0001, "S".to_owned());
    setup.keeper = Some(keeper.clone());
    setup.kept = keeper.kept.lock().unwrap().clone();
    change(&mut setup);
    Lu::new(setup).unwrap()
}

fn unit(keeper: &Arc<Memory>) -> Arc<Lu> {
    unit_with(keeper, |_| {})
}

/// A nexus logs in.
fn login(lu: &Arc<Lu>, n: u8) -> Arc<Itl> {
    Itl::new(Arc::clone(lu), id(n), Some(Attention::PowerOn))
}

fn pending(itl: &Itl) -> Vec<Attention> {
    itl.gate().pending()
}

fn run(itl: &Arc<Itl>, cdb: &[u8], data: &[u8]) -> crate::device_server::Answer {
    let mut buf = if data.is_empty() { IoBuf::empty() } else { out_buf(data) };
    let attribute = TaskAttribute::Simple;
    let request = Request {
        cdb,
        itl: Some(itl),
        luns: &[0],
        peers: &crate::device_server::testkit::NoPeers,
        well_known: None,
        attribute,
        passes: &[],
    };
    let plan = start(&request, &mut buf).plan;
    execute(plan, &mut buf, &AbortFlag::default())
}

/// PERSISTENT RESERVE OUT, REGISTER AND IGNORE EXISTING KEY.
fn register(itl: &Arc<Itl>, key: u64) {
    let mut list = [0; 24];
    list[8..16].copy_from_slice(&key.to_be_bytes());
    assert_eq!(run(itl, &[0x5f, 0x06, 0, 0, 0, 0, 0, 0, 24, 0], &list), good(24));
}

/// Neither new nor told anything.
#[test]
fn a_nexus_goes_on() {
    let keeper = Arc::default();
    let before = unit(&keeper);
    let [a, b] = [1, 2].map(|n| login(&before, n));
    assert_eq!(a.gate().take_attention(), Some(Attention::PowerOn));
    b.establish(Attention::CapacityChanged);
    a.prevent_removal();
    before.close().unwrap();
    // The process logs everybody out as it ends.
    a.end();
    b.end();

    let after = unit(&keeper);
    assert_eq!(after.nexuses(), 2, "there without a connection");
    after.establish(Attention::ReportedLunsChanged, None);
    let [a, b, c] = [1, 2, 3].map(|n| login(&after, n));
    assert_eq!(pending(&a), [Attention::ReportedLunsChanged]);
    assert!(a.prevents_removal() && !b.prevents_removal());
    assert_eq!(pending(&b), [Attention::PowerOn, Attention::CapacityChanged, Attention::ReportedLunsChanged]);
    assert_eq!(pending(&c), [Attention::PowerOn], "a new one");
    assert!(after.lose_awaited().is_empty(), "all have come");
    assert_eq!(after.nexuses(), 3);
}

/// Kept, but nobody came: lost, and told so when it comes at last.
#[test]
fn a_nexus_that_does_not_come_is_lost() {
    let keeper = Arc::default();
    let before = unit(&keeper);
    let a = login(&before, 1);
    a.prevent_removal();
    a.gate().take_attention();
    before.close().unwrap();

    let after = unit(&keeper);
    assert_eq!(after.lose_awaited(), [id(1)]);
    assert_eq!(after.nexuses(), 0);
    after.persist().unwrap();
    let lost = KeptNexus { nexus: id(1), present: false, attentions: vec![Attention::NexusLoss], prevent: false };
    assert_eq!(keeper.state().nexuses, std::slice::from_ref(&lost));

    // Even in the process after.
    let later = unit(&keeper);
    let a = login(&later, 1);
    assert_eq!(pending(&a), [Attention::NexusLoss]);
    assert!(!a.prevents_removal());
    later.persist().unwrap();
    assert_eq!(keeper.state().nexuses, [KeptNexus { present: true, ..lost }]);
}

/// A nexus that ended in this process is lost; one that the process's end ended is not.
#[test]
fn an_end_is_a_loss_until_the_state_is_closed() {
    let keeper = Arc::default();
    let lu = unit(&keeper);
    let [a, b] = [1, 2].map(|n| login(&lu, n));
    a.end();
    lu.close().unwrap();
    let kept = keeper.state();
    b.end();
    assert_eq!(lu.persist(), Err(KeepError::Closed));
    lu.close().unwrap();
    assert_eq!(keeper.state(), kept);
    let present: Vec<_> = kept.nexuses.iter().map(|nexus| (nexus.nexus, nexus.present)).collect();
    assert_eq!(present, [(id(2), true), (id(1), false)]);
}

/// What waits for a nexus that is not there: registered for it by another, or told after its loss.
#[test]
fn attentions_wait_for_the_absent() {
    let keeper = Arc::default();
    let lu = unit(&keeper);
    login(&lu, 1).end();
    for n in [1, 2] {
        lu.establish_for(id(n), Attention::RegistrationsPreempted);
        lu.establish_for(id(n), Attention::RegistrationsPreempted);
    }
    lu.persist().unwrap();
    for lu in [lu, unit(&keeper)] {
        let [a, b] = [1, 2].map(|n| login(&lu, n));
        assert_eq!(pending(&a), [Attention::NexusLoss, Attention::RegistrationsPreempted]);
        assert_eq!(pending(&b), [Attention::PowerOn, Attention::RegistrationsPreempted]);
    }
}

/// A unit with two addresses has two gates for a nexus; each goes on.
#[test]
fn a_unit_at_two_addresses() {
    let keeper = Arc::default();
    let before = unit(&keeper);
    let first = login(&before, 1);
    let _second = login(&before, 1);
    first.gate().take_attention();
    before.close().unwrap();
    let after = unit(&keeper);
    let both = [login(&after, 1), login(&after, 1)];
    assert_eq!(both.each_ref().map(|itl| pending(itl)), [vec![], vec![Attention::PowerOn]]);
    both.iter().for_each(|itl| itl.end());
    let again = [login(&after, 1), login(&after, 1)];
    assert_eq!(again.map(|itl| pending(&itl)), [[Attention::NexusLoss], [Attention::NexusLoss]]);
}

/// Its size and its configuration changed while there was no process: that is told as if there had been one.
#[test]
fn changes_in_between_are_told() {
    let keeper = Arc::default();
    let before = unit(&keeper);
    let a = login(&before, 1);
    a.gate().take_attention();
    before.set_mode(&a, ModeState { swp: true, ..before.mode() });
    before.close().unwrap();
    for (blocks, write_cache, told) in [
        (BLOCKS, true, vec![]),
        (BLOCKS * 2, true, vec![Attention::CapacityChanged]),
        (BLOCKS, false, vec![Attention::ModeParametersChanged]),
    ] {
        let after = unit_with(&keeper, |setup| {
            setup.image = Arc::new(MemImage::new(blocks * 512));
            setup.write_cache = write_cache;
        });
        assert_eq!((after.mode().swp, after.mode().wce), (true, write_cache));
        assert_eq!(pending(&login(&after, 1)), told);
    }
}

#[test]
fn reservations_go_on() {
    let keeper = Arc::default();
    let before = unit(&keeper);
    let [a, b] = [1, 2].map(|n| login(&before, n));
    for itl in [&a, &b] {
        itl.gate().take_attention();
    }
    register(&a, 0xa);
    let mut list = [0; 24];
    list[..8].copy_from_slice(&0xau64.to_be_bytes());
    // RESERVE, Exclusive Access.
    assert_eq!(run(&a, &[0x5f, 0x01, 0x03, 0, 0, 0, 0, 0, 24, 0], &list), good(24));
    // No close: it was killed. What was answered is kept.
    let reservations = ReservationState {
        generation: 1,
        registrations: vec![Registration { nexus: id(1), key: 0xa }],
        reservation: Some(PersistentReservation { kind: ReservationType::ExclusiveAccess, holder: Some(id(1)) }),
        ..ReservationState::default()
    };
    assert_eq!(keeper.state().reservations, reservations);
    let after = unit(&keeper);
    let deny = |itl: &Itl| itl.gate().bits().common(GateBits::DENY);
    let both = GateBits::DENY_READ.and(GateBits::DENY_WRITE);
    assert_eq!([1, 2, 3].map(|n| deny(&login(&after, n))), [GateBits::NONE, both, both]);
}

/// RESERVE goes on with its nexus, and ends with it.
#[test]
fn reserve_goes_on_until_its_nexus_is_lost() {
    let keeper = Arc::default();
    let before = unit(&keeper);
    let [a, b] = [1, 2].map(|n| login(&before, n));
    for itl in [&a, &b] {
        itl.gate().take_attention();
    }
    assert_eq!(run(&a, &[0x16, 0, 0, 0, 0, 0], &[]), good(0));
    assert_eq!(keeper.state().reservations.legacy, Some(id(1)));
    let after = unit(&keeper);
    let b = login(&after, 2);
    assert!(b.gate().bits().intersects(GateBits::DENY_SPC2));
    assert_eq!(after.lose_awaited(), [id(1)]);
    assert!(!b.gate().bits().intersects(GateBits::DENY_SPC2));
    after.persist().unwrap();
    assert_eq!(keeper.state().reservations.legacy, None);
}

/// MODE SELECT is written before it is answered, with the unit attentions that it brings others.
#[test]
fn mode_parameters_are_kept_before_the_answer() {
    let keeper: Arc<Memory> = Arc::default();
    let lu = unit(&keeper);
    let [a, b] = [1, 2].map(|n| login(&lu, n));
    for itl in [&a, &b] {
        itl.gate().take_attention();
    }
    // Control page with SWP.
    let list = [0, 0, 0, 0, 0x0a, 0x0a, 0, 0, 0x08, 0, 0, 0, 0, 0, 0, 0];
    let mut list = list.to_vec();
    let bench = Bench::new(MemImage::new(BLOCKS * 512));
    let page = bench.data_in(&[0x1a, 0x08, 0x0a, 0, 255, 0], 255).data;
    list[4..16].copy_from_slice(&page[4..16]);
    list[4] &= 0x3f;
    list[8] |= 0x08;
    let select = [0x15, 0x10, 0, 0, 16, 0];

    keeper.full.store(true, Ordering::Relaxed);
    keeper.notes();
    let refused = run(&a, &select, &list);
    assert_eq!(refused.sense.map(|sense| (sense.key, sense.code.0)), Some((SenseKey::HardwareError, 0x4400)));
    assert!(!lu.mode().swp && pending(&b).is_empty(), "nothing changed");
    assert!(keeper.notes() > 0, "what it is will be written when it can be");
    assert_eq!(lu.snapshot().mode.current, lu.mode());
    keeper.full.store(false, Ordering::Relaxed);

    assert_eq!(run(&a, &select, &list), good(16));
    let kept = keeper.state();
    assert!(kept.mode.current.swp);
    let of_b = kept.nexuses.iter().find(|nexus| nexus.nexus == id(2)).unwrap();
    assert_eq!(of_b.attentions, [Attention::ModeParametersChanged], "though it was established after");
    assert_eq!(pending(&b), of_b.attentions);
}

/// SP in MODE SELECT, PS and PC 11b in MODE SENSE; a reset and a loss of power go back to what was saved.
#[test]
fn mode_parameters_are_saved() {
    let keeper: Arc<Memory> = Arc::default();
    let lu = unit(&keeper);
    let a = login(&lu, 1);
    a.gate().take_attention();
    let caching = |wce: u8| {
        let mut list = vec![0; 24];
        (list[4], list[5], list[6]) = (0x08, 18, wce << 2);
        list
    };
    let select = |sp: u8, list: &[u8]| run(&a, &[0x15, 0x10 | sp, 0, 0, list.len() as u8, 0], list);
    // MODE SENSE(6) with DBD of the caching page: its first byte (PS) and WCE.
    let sense = |control: u8| {
        let mut buf = IoBuf::owned(24, crate::mem::Direction::In);
        let cdb = [0x1a, 0x08, control << 6 | 0x08, 0, 24, 0];
        let request = Request {
            cdb: &cdb,
            itl: Some(&a),
            luns: &[0],
            peers: &crate::device_server::testkit::NoPeers,
            well_known: None,
            attribute: TaskAttribute::Simple,
            passes: &[],
        };
        let plan = start(&request, &mut buf).plan;
        let answer = execute(plan, &mut buf, &AbortFlag::default());
        let data = crate::device_server::testkit::contents(&buf);
        answer.sense.map_or(Ok((data[4], data[6] >> 2)), |sense| Err(sense.code.0))
    };
    assert_eq!(select(1, &caching(0)).sense.map(|sense| sense.code.0), Some(0x2400), "not on what forgets it");
    assert_eq!((sense(0b00), sense(0b11)), (Ok((0x08, 1)), Err(0x3900)));

    keeper.durable.store(true, Ordering::Relaxed);
    assert_eq!((sense(0b00), sense(0b11)), (Ok((0x88, 1)), Ok((0x88, 1))), "nobody saved any yet");
    assert_eq!(select(1, &caching(0)), good(24));
    assert_eq!((sense(0b00), sense(0b10), sense(0b11)), (Ok((0x88, 0)), Ok((0x88, 1)), Ok((0x88, 0))));
    assert_eq!(keeper.state().mode.saved, Some(lu.mode()), "before the answer");
    assert_eq!(select(0, &caching(1)), good(24));
    assert_eq!((sense(0b00), sense(0b11)), (Ok((0x88, 1)), Ok((0x88, 0))), "current only");
    lu.reset();
    a.gate().take_attention();
    assert_eq!(sense(0b00), Ok((0x88, 0)), "a reset goes back to what was saved");
    // An empty list with SP saves what is current.
    assert_eq!(select(0, &caching(1)), good(24));
    keeper.full.store(true, Ordering::Relaxed);
    assert_eq!(run(&a, &[0x15, 0x11, 0, 0, 0, 0], &[]).sense.map(|sense| sense.code.0), Some(0x4400));
    assert_eq!(sense(0b11), Ok((0x88, 0)), "it could not be saved");
    assert!(!lu.snapshot().mode.saved.unwrap().wce);
    keeper.full.store(false, Ordering::Relaxed);
    assert_eq!(select(0, &caching(0)), good(24));

    let kept = keeper.state().after_power_loss();
    let after = unit_with(&keeper, |setup| setup.kept = Some(kept));
    assert!(!after.mode().wce && after.default_mode().wce);
    assert_eq!(after.saved_mode(), Some(after.mode()));
    let writes_through = unit_with(&keeper, |setup| setup.write_cache = false);
    assert!(!writes_through.mode().wce);
}

/// Between its evaluation and its end a change counts as made; one that is given up counts as never begun.
#[test]
fn a_change_on_its_way_counts_as_made() {
    let keeper: Arc<Memory> = Arc::default();
    let lu = unit(&keeper);
    let [a, b] = [1, 2].map(|n| login(&lu, n));
    for itl in [&a, &b] {
        itl.gate().take_attention();
    }
    register(&a, 0xa);
    register(&b, 0xb);
    let start_preempt = || {
        let mut list = [0; 24];
        list[..8].copy_from_slice(&0xau64.to_be_bytes());
        list[8..16].copy_from_slice(&0xbu64.to_be_bytes());
        let mut buf = out_buf(&list);
        // PREEMPT of registrations.
        let cdb = [0x5f, 0x04, 0x01, 0, 0, 0, 0, 0, 24, 0];
        let attribute = TaskAttribute::Simple;
        let request = Request {
            cdb: &cdb,
            itl: Some(&a),
            luns: &[0],
            peers: &crate::device_server::testkit::NoPeers,
            well_known: None,
            attribute,
            passes: &[],
        };
        match start(&request, &mut buf).plan {
            Plan::Change(change) => change,
            other => panic!("{other:?}"),
        }
    };
    let registered = |state: &KeptState| state.reservations.registrations.len();
    let told = |state: &KeptState| state.nexuses.iter().find(|nexus| nexus.nexus == id(2)).unwrap().attentions.clone();

    let mut change = start_preempt();
    assert!(change.evaluate().unwrap().persists);
    let on_its_way = lu.snapshot();
    assert_eq!((registered(&on_its_way), told(&on_its_way)), (1, vec![Attention::RegistrationsPreempted]));
    drop(change);
    let given_up = lu.snapshot();
    assert_eq!((registered(&given_up), told(&given_up)), (2, vec![]));

    let mut change = start_preempt();
    change.evaluate().unwrap();
    change.persist().unwrap();
    assert_eq!(keeper.state(), on_its_way);
    change.apply();
    assert_eq!((registered(&lu.snapshot()), told(&lu.snapshot())), (1, vec![Attention::RegistrationsPreempted]));
    assert_eq!(pending(&b), [Attention::RegistrationsPreempted]);
    drop(change.grant());
    assert_eq!(lu.snapshot(), keeper.state());
}

/// The medium of a removable unit stays out from one process to the next, until it is loaded.
#[test]
fn an_ejected_medium_stays_out() {
    let keeper: Arc<Memory> = Arc::default();
    let removable = |setup: &mut LuSetup| setup.removable = true;
    let before = unit_with(&keeper, removable);
    let [a, b] = [1, 2].map(|n| login(&before, n));
    for itl in [&a, &b] {
        itl.gate().take_attention();
    }
    assert_eq!(run(&a, &[0x1b, 0, 0, 0, 2, 0], &[]), good(0));
    // No close: it was killed. What was answered is kept.
    assert!(keeper.state().ejected);

    let after = unit_with(&keeper, removable);
    let [a, b, c] = [1, 2, 3].map(|n| login(&after, n));
    let code = |itl: &Arc<Itl>| run(itl, &[0; 6], &[]).sense.map(|sense| sense.code.0);
    assert_eq!([&a, &b].map(code), [Some(0x3a00); 2]);
    assert_eq!([code(&c), code(&c)], [Some(0x2900), Some(0x3a00)]);
    assert_eq!(run(&b, &[0x1b, 0, 0, 0, 3, 0], &[]), good(0));
    let kept = keeper.state();
    assert!(!kept.ejected);
    let of_a = kept.nexuses.iter().find(|nexus| nexus.nexus == id(1)).unwrap();
    assert_eq!(of_a.attentions, [Attention::MediumMayHaveChanged], "though it was established after");
    assert_eq!(pending(&a), of_a.attentions);

    let later = unit_with(&keeper, removable);
    assert_eq!(pending(&login(&later, 1)), [Attention::MediumMayHaveChanged]);
    assert_eq!(code(&login(&later, 2)), None);
}

/// Neither what was kept of a fixed disk nor the power that was lost leaves a unit empty.
#[test]
fn what_puts_the_medium_back() {
    let keeper: Arc<Memory> = Arc::default();
    let before = unit_with(&keeper, |setup| setup.removable = true);
    let a = login(&before, 1);
    a.gate().take_attention();
    assert_eq!(run(&a, &[0x1b, 0, 0, 0, 2, 0], &[]), good(0));
    assert!(!keeper.state().after_power_loss().ejected);
    let fixed = unit(&keeper);
    let a = login(&fixed, 1);
    assert_eq!(pending(&a), [Attention::MediumMayHaveChanged], "it was not there");
    a.gate().take_attention();
    assert_eq!(run(&a, &[0; 6], &[]), good(0));
    assert!(!fixed.snapshot().ejected);
}

/// What cannot be written down is not done.
#[test]
fn an_eject_or_a_load_that_cannot_be_kept() {
    let keeper: Arc<Memory> = Arc::default();
    let lu = unit_with(&keeper, |setup| setup.removable = true);
    let [a, b] = [1, 2].map(|n| login(&lu, n));
    for itl in [&a, &b] {
        itl.gate().take_attention();
    }
    let key_and_code = |cdb: &[u8]| run(&a, cdb, &[]).sense.map(|sense| (sense.key, sense.code.0));
    let failed = Some((SenseKey::HardwareError, 0x4400));
    let (eject, load) = ([0x1b, 0, 0, 0, 2, 0], [0x1b, 0, 0, 0, 3, 0]);
    keeper.full.store(true, Ordering::Relaxed);
    assert_eq!(key_and_code(&eject), failed);
    assert_eq!(
        (lu.is_ejected(), lu.snapshot().ejected, pending(&b)),
        (false, false, vec![Attention::MediumMayHaveChanged])
    );
    b.gate().take_attention();
    keeper.full.store(false, Ordering::Relaxed);
    assert_eq!(key_and_code(&eject), None);
    keeper.full.store(true, Ordering::Relaxed);
    assert_eq!(key_and_code(&load), failed);
    assert_eq!((lu.is_ejected(), lu.snapshot().ejected, pending(&b)), (true, true, vec![]));
    keeper.full.store(false, Ordering::Relaxed);
    assert_eq!(key_and_code(&load), None);
    assert_eq!((lu.is_ejected(), keeper.state().ejected), (false, false));
}

/// Whatever changes what is kept is noted.
#[test]
fn changes_are_noted() {
    let keeper: Arc<Memory> = Arc::default();
    let lu = unit_with(&keeper, |setup| setup.removable = true);
    assert_eq!(keeper.notes(), 0);
    let a = login(&lu, 1);
    assert!(keeper.notes() > 0, "login");
    let noted = |what: &str, change: &dyn Fn()| {
        let before = lu.snapshot();
        change();
        assert_eq!(keeper.notes() > 0, lu.snapshot() != before, "{what}");
        assert_ne!(lu.snapshot(), before, "{what}");
    };
    noted("a unit attention reported", &|| {
        run(&a, &[0; 6], &[]);
    });
    noted("a unit attention established", &|| lu.establish(Attention::ReportedLunsChanged, None));
    noted("one taken by REPORT LUNS", &|| a.gate().clear_attention(Attention::ReportedLunsChanged));
    noted("one more", &|| a.establish(Attention::CapacityChanged));
    noted("one taken by REQUEST SENSE", &|| {
        a.gate().take_attention();
    });
    noted("PREVENT", &|| a.prevent_removal());
    noted("ALLOW", &|| a.allow_removal());
    noted("the medium goes", &|| assert!(matches!(lu.eject(), Ok(Some(_)))));
    noted("the medium comes back", &|| lu.load(None));
    noted("the nexus is reset", &|| a.lose_nexus());
    noted("the unit is reset", &|| lu.reset());
    noted("the nexus ends", &|| a.end());
    // And what changes nothing is not.
    keeper.notes();
    a.allow_removal();
    assert_eq!(lu.snapshot(), lu.snapshot());
    assert_eq!(keeper.notes(), 0);
}

/// A unit without a keeper does without.
#[test]
fn a_unit_that_nobody_keeps() {
    let bench = Bench::new(MemImage::new(BLOCKS * 512));
    let lu = bench.itl.lu();
    assert!(!lu.survives_power_loss());
    lu.persist().unwrap();
    lu.close().unwrap();
}

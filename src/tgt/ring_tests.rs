//! Nothing is lost, order holds, and the rings never promise what they have not got.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::mem::{Direction, IoBuf};
use crate::scsi::Lun;
use crate::tgt::{AerReq, CmdReq, CmdRsp, ItNexusReq, ItNexusRsp, NexusFunction, Tag};

fn request(n: u64) -> TxSlot {
    let event =
        CmdReq { host_no: 0, data_len: 0, itn_id: 1, scb: [0; 16], lun: Lun([0; 8]), attribute: 0x20, tag: Tag(n) };
    let data = CmdData { buf: IoBuf::owned(n as usize % 7, Direction::In), cdb_tail: None, earlier: 0, taken: 0 };
    TxSlot { event: KEvent::CmdReq(event), data: Some(data) }
}

fn answer(n: u64) -> RxSlot {
    let event =
        CmdRsp { host_no: 0, result: 0, itn_id: 1, tag: Tag(n), uaddr: 0, len: 0, sense_uaddr: 0, sense_len: 0, rw: 0 };
    RxSlot { event: UEvent::CmdRsp(event), answer: Some(CmdAnswer::default()) }
}

fn done(n: u64) -> CmdDone {
    CmdDone { host_no: 0, result: 0, itn_id: 1, tag: Tag(n) }
}

fn tag_of(event: &KEvent) -> (char, u64) {
    match event {
        KEvent::CmdReq(e) => ('r', e.tag.0),
        KEvent::CmdDone(e) => ('d', e.tag.0),
        other => panic!("{other:?}"),
    }
}

fn rx_tag(slot: &RxSlot) -> u64 {
    match slot.event {
        UEvent::CmdRsp(e) => e.tag.0,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_full_ring_gives_the_request_back() {
    let mut rings = EventRings::new();
    for n in 0..RING_SLOTS as u64 {
        assert!(rings.post_request(request(n)).is_ok());
    }
    assert_eq!(rings.room(), 0);
    let (back, RingFull) = rings.post_request(request(13)).unwrap_err();
    assert_eq!(tag_of(&back.event), ('r', 13));
    assert_eq!(back.data.unwrap().buf.len(), 6, "with its data");
    assert_eq!(rings.counters().refused, 1);
    // Taking one makes room for one.
    assert_eq!(tag_of(&rings.take_tx().unwrap().event), ('r', 0));
    assert!(rings.post_request(request(13)).is_ok());
}

/// They come when they come: no request waits for one, and none is lost however full the ring is.
#[test]
fn asynchronous_events_answer_nothing() {
    let report = |n: u64| {
        let event = AerReq { host_no: 0, events: 2, itn_id: n, lun: Lun([0; 8]), sense_len: 0 };
        RxSlot { event: UEvent::AerReq(event), answer: None }
    };
    let mut rings = EventRings::new();
    assert!(rings.post_request(request(1)).is_ok());
    for n in 0..RING_SLOTS as u64 + 5 {
        rings.post_event(report(n));
    }
    assert_eq!((rings.unanswered(), rings.counters().events, rings.counters().spilled), (1, RING_SLOTS as u64 + 5, 5));
    for n in 0..RING_SLOTS as u64 + 5 {
        assert!(matches!(rings.take_rx().unwrap().event, UEvent::AerReq(e) if e.itn_id == n));
    }
    assert!(rings.take_rx().is_none());
    assert_eq!(tag_of(&rings.take_tx().unwrap().event), ('r', 1));
    rings.post_answer(answer(1));
    assert_eq!((rings.counters().answers, rings.counters().unexpected), (1, 0));
}

#[test]
fn a_turn_of_requests_never_needs_more_than_the_ring() {
    let mut rings = EventRings::new();
    for round in 0..3 {
        for n in 0..RING_SLOTS as u64 {
            assert!(rings.post_request(request(n)).is_ok(), "{round}");
        }
        while let Some(slot) = rings.take_tx() {
            rings.post_answer(answer(tag_of(&slot.event).1));
        }
        assert!(rings.post_request(request(0)).is_err(), "answers hold the turn's slots");
        while let Some(slot) = rings.take_rx() {
            assert!(rings.post_request(request(0)).is_err(), "a CMD_DONE is owed");
            rings.post_done(done(rx_tag(&slot)));
        }
        assert!(rings.post_request(request(0)).is_err());
        while let Some(slot) = rings.take_tx() {
            assert_eq!(tag_of(&slot.event).0, 'd');
        }
        assert!(rings.is_idle());
    }
    assert_eq!((rings.counters().spilled, rings.unanswered()), (0, 0));
}

#[test]
fn far_more_commands_in_flight_than_slots() {
    let mut rings = EventRings::new();
    let total = 20 * RING_SLOTS as u64;
    for n in 0..total {
        assert!(rings.post_request(request(n)).is_ok(), "waiting commands hold no slot");
        assert!(rings.take_tx().is_some());
    }
    // All of them are ended at once, in the worst moment: the tx ring is full as well.
    for n in 0..RING_SLOTS as u64 {
        assert!(rings.post_request(request(total + n)).is_ok());
    }
    for n in 0..total {
        rings.post_answer(answer(n));
    }
    assert!(rings.post_request(request(0)).is_err());
    for n in 0..total {
        let slot = rings.take_rx().unwrap();
        assert_eq!(rx_tag(&slot), n, "in order");
        rings.post_done(done(n));
    }
    for n in 0..RING_SLOTS as u64 {
        assert_eq!(tag_of(&rings.take_tx().unwrap().event), ('r', total + n), "in order");
    }
    for n in 0..total {
        assert_eq!(tag_of(&rings.take_tx().unwrap().event), ('d', n), "in order");
    }
    assert!(rings.take_tx().is_none() && rings.is_idle());
    assert_eq!(rings.unanswered(), RING_SLOTS);
    assert!(rings.counters().spilled > 0);
    assert_eq!(rings.tx.reserve.capacity() + rings.rx.reserve.capacity(), 0, "the reserve was given back");
}

#[test]
fn other_requests_are_answered_without_a_done() {
    let mut rings = EventRings::new();
    let function = NexusFunction::Create;
    let req = ItNexusReq { host_no: 0, function, itn_id: 1, max_cmds: 1, initiator_id: [0; 16] };
    assert!(rings.post_request(TxSlot { event: KEvent::ItNexusReq(req), data: None }).is_ok());
    assert!(rings.take_tx().is_some());
    let rsp = ItNexusRsp { host_no: 0, result: 0, itn_id: 1, function };
    rings.post_answer(RxSlot { event: UEvent::ItNexusRsp(rsp), answer: None });
    assert!(rings.take_rx().is_some());
    assert!(rings.is_idle());
}

#[derive(Clone, Default)]
struct Record(Arc<Mutex<Vec<String>>>);

impl Tap for Record {
    fn tx(&mut self, event: &KEvent) {
        self.0.lock().unwrap().push(format!("tx {:#06x}", event.number()));
    }

    fn rx(&mut self, event: &UEvent) {
        self.0.lock().unwrap().push(format!("rx {:#06x}", event.number()));
    }
}

#[test]
fn a_tap_sees_every_event_in_order() {
    let record = Record::default();
    let mut rings = EventRings::new();
    rings.set_tap(Some(Box::new(record.clone())));
    rings.post_request(request(1)).unwrap();
    rings.take_tx().unwrap();
    rings.post_answer(answer(1));
    rings.take_rx().unwrap();
    rings.post_done(done(1));
    rings.set_tap(None);
    rings.post_request(request(2)).unwrap();
    assert_eq!(*record.0.lock().unwrap(), ["tx 0x1001", "rx 0x0001", "tx 0x1002"]);
}

#[test]
#[should_panic(expected = "CMD_DONE without a CMD_RSP")]
fn a_done_of_nothing_is_a_fault() {
    EventRings::new().post_done(done(1));
}

#[test]
#[should_panic(expected = "answer without a request")]
fn an_answer_of_nothing_is_a_fault() {
    EventRings::new().post_answer(answer(1));
}

/// What a reactor may do next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Post(u16),
    TakeTx(u16),
    Answer(u16),
    TakeRx(u16),
    Done(u16),
}

fn step() -> impl Strategy<Value = Step> {
    (0u8..5, 1u16..1500).prop_map(|(kind, n)| match kind {
        0 => Step::Post(n),
        1 => Step::TakeTx(n),
        2 => Step::Answer(n),
        3 => Step::TakeRx(n),
        _ => Step::Done(n),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn nothing_is_lost_in_any_order(steps in proptest::collection::vec(step(), 1..60)) {
        let mut rings = EventRings::new();
        let mut next = 0u64;
        // The model: two unbounded queues and the sets between them.
        let (mut tx, mut rx) = (VecDeque::new(), VecDeque::new());
        let mut waiting: VecDeque<u64> = VecDeque::new();
        let mut owed: VecDeque<u64> = VecDeque::new();
        let mut finished: BTreeMap<u64, u32> = BTreeMap::new();
        let mut run = |step: Step| -> Result<(), TestCaseError> {
            let (Step::Post(n) | Step::TakeTx(n) | Step::Answer(n) | Step::TakeRx(n) | Step::Done(n)) = step;
            for _ in 0..n {
                match step {
                    Step::Post(_) => {
                        let full = tx.len() + rx.len() + owed.len() >= RING_SLOTS;
                        prop_assert_eq!(rings.post_request(request(next)).is_err(), full);
                        if full {
                            break;
                        }
                        tx.push_back(('r', next));
                        next += 1;
                    }
                    Step::TakeTx(_) => {
                        let slot = rings.take_tx();
                        let expected = tx.pop_front();
                        prop_assert_eq!(slot.as_ref().map(|s| tag_of(&s.event)), expected);
                        match expected {
                            Some(('r', tag)) => waiting.push_back(tag),
                            Some((_, tag)) => *finished.entry(tag).or_default() += 1,
                            None => break,
                        }
                    }
                    Step::Answer(_) => {
                        let Some(tag) = waiting.pop_front() else { break };
                        rings.post_answer(answer(tag));
                        rx.push_back(tag);
                    }
                    Step::TakeRx(_) => {
                        let slot = rings.take_rx();
                        let expected = rx.pop_front();
                        prop_assert_eq!(slot.as_ref().map(rx_tag), expected);
                        let Some(tag) = expected else { break };
                        owed.push_back(tag);
                    }
                    Step::Done(_) => {
                        let Some(tag) = owed.pop_front() else { break };
                        rings.post_done(done(tag));
                        tx.push_back(('d', tag));
                    }
                }
            }
            prop_assert!(rings.tx.slots.len() <= RING_SLOTS && rings.rx.slots.len() <= RING_SLOTS);
            prop_assert_eq!(rings.unanswered(), tx.iter().filter(|e| e.0 == 'r').count() + waiting.len());
            Ok(())
        };
        for step in steps {
            run(step)?;
        }
        // A turn from here always brings everything to its end.
        for step in [Step::TakeTx(60_000), Step::Answer(60_000), Step::TakeRx(60_000), Step::Done(60_000), Step::TakeTx(60_000)] {
            run(step)?;
        }
        prop_assert!(rings.is_idle());
        prop_assert_eq!(finished.len() as u64, next);
        prop_assert!(finished.values().all(|&n| n == 1));
        prop_assert_eq!(rings.counters().unexpected, 0);
    }
}

//! The event rings, which everything between hba and target goes through.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use vstgt::mem::{Direction, IoBuf};
use vstgt::scsi::Lun;
use vstgt::tgt::{CmdAnswer, CmdData, CmdDone, CmdReq, CmdRsp, EventRings, KEvent, RxSlot, Tag, TxSlot, UEvent};

use crate::guest::{DATA, READ_10};

/// Commands that are in the rings at once: one, and as many as a reactor takes in a turn.
#[divan::bench(args = [1, 128])]
fn request_answer_done(bencher: Bencher, at_once: usize) {
    let mut rings = EventRings::new();
    let mut bufs: Vec<IoBuf> = (0..at_once).map(|_| IoBuf::owned(DATA as usize, Direction::In)).collect();
    let mut underway = Vec::with_capacity(at_once);
    let (host_no, itn_id, lun) = (0, 1, Lun::new(0, 0).unwrap());
    bencher.counter(ItemsCount::new(at_once)).bench_local(|| {
        for (head, buf) in (0..).zip(bufs.drain(..)) {
            let tag = Tag::new(0, 0, head, 1);
            let req = CmdReq { host_no, data_len: DATA, itn_id, scb: READ_10, lun, attribute: 0x20, tag };
            let data = Some(CmdData { buf, ..CmdData::default() });
            assert!(rings.post_request(TxSlot { event: KEvent::CmdReq(req), data }).is_ok());
        }
        while let Some(TxSlot { event: KEvent::CmdReq(req), data }) = rings.take_tx() {
            underway.push((black_box(req).tag, data.unwrap().buf));
        }
        for (tag, buf) in underway.drain(..) {
            let event = UEvent::CmdRsp(CmdRsp {
                host_no,
                result: 0,
                itn_id,
                tag,
                uaddr: 0,
                len: DATA,
                sense_uaddr: 0,
                sense_len: 0,
                rw: 0,
            });
            let answer = Some(CmdAnswer { buf, ..CmdAnswer::default() });
            rings.post_answer(RxSlot { event, answer });
        }
        while let Some(RxSlot { event: UEvent::CmdRsp(rsp), answer }) = rings.take_rx() {
            bufs.push(answer.unwrap().buf);
            rings.post_done(CmdDone { host_no, result: 0, itn_id, tag: black_box(rsp).tag });
        }
        while let Some(slot) = rings.take_tx() {
            black_box(&slot);
        }
    });
    assert!(rings.is_idle() && rings.counters().unexpected == 0);
    assert_eq!(bufs.len(), at_once);
}

//! Asynchronous events: who is told of what, and where.

use crate::device_server::testkit::nexus_of;
use crate::lu::{Attention, Itl, Lu};
use crate::scsi::spc::ModeState;
use crate::scsi::{FunctionResponse, Lun};
use crate::target::UnitMapping;
use crate::target::testkit::*;
use crate::tgt::{AsyncFunction, AsyncReq, ItnId, KEvent, notification};
use std::sync::Arc;

/// What happened, as a nexus was told: LUN, class, additional sense code.
type Told = (Lun, u32, Option<u16>);

impl Rig {
    /// What a nexus was told on a shard; all that came must have been for it.
    fn told(&mut self, shard: u8, itn_id: ItnId) -> Vec<Told> {
        let reports = std::mem::take(&mut self.reactor(shard).reports);
        let told = reports.into_iter().map(|(report, sense)| {
            assert_eq!((report.itn_id, report.host_no), (itn_id, HOST));
            let code = sense.get(12..14).map(|code| {
                assert_eq!((sense[0], sense[2], sense.len()), (0x70, 6, 18), "a unit attention in fixed format");
                u16::from_be_bytes([code[0], code[1]])
            });
            (report.lun, report.events, code)
        });
        told.collect()
    }

    fn ask(&mut self, itn_id: ItnId, function: AsyncFunction, lun: Lun, events: u32) -> (FunctionResponse, u32) {
        let event = AsyncReq { host_no: HOST, function, itn_id, lun, events, mid: 77 };
        self.post(0, KEvent::AsyncReq(event), None);
        let (mid, result, events) = self.reactor(0).async_responses.pop().expect("it is answered at once");
        assert_eq!(mid, 77);
        (result, events)
    }
}

/// A nexus of somebody else, at the unit behind the target's back.
fn somebody(lu: &Arc<Lu>) -> Arc<Itl> {
    nexus_of(lu.clone(), None)
}

fn toggle(lu: &Arc<Lu>, by: &Itl) {
    lu.set_mode(by, ModeState { tas: !lu.mode().tas, ..lu.mode() });
}

#[test]
fn a_change_is_told_at_home_to_those_who_did_not_make_it() {
    let lu = unit();
    let mut rig = Rig::new(2, vec![mapped(0, 0, &lu), mapped(1, 300, &lu)]);
    let a = rig.login(1);
    let b = rig.request_nexus(1, HOST, 2);
    rig.settle();
    assert_eq!((rig.told(0, a), rig.told(1, b)), (vec![], vec![]), "that a nexus is new is no event");
    let other = somebody(&lu);
    toggle(&lu, &other);
    rig.settle();
    let both = [(at(0, 0), 0, Some(0x2a01)), (Lun([1, 1, 0x41, 0x2c, 0, 0, 0, 0]), 0, Some(0x2a01))];
    assert_eq!(rig.told(0, a), both);
    assert_eq!(rig.told(1, b), both);

    // The condition is still there.
    let tag = rig.send(1, a, at(0, 0), TEST_UNIT_READY, crate::mem::IoBuf::empty());
    assert_eq!(rig.answer(tag).sense(), (6, 0x2a01));
    lu.establish(Attention::CapacityChanged, Some(&other));
    lu.establish(Attention::TimestampChanged, None);
    lu.establish(Attention::LogParametersChanged, None);
    lu.establish(Attention::ReservationsPreempted, None);
    lu.reset();
    rig.settle();
    let codes: Vec<_> = rig.told(0, a).into_iter().map(|told| (told.1, told.2)).collect();
    assert_eq!(codes, [(0, Some(0x2a09)); 2], "of what is no parameter of the unit nobody is told unasked");
}

#[test]
fn what_comes_while_a_letter_is_on_its_way_goes_with_it() {
    let lu = unit();
    let mut rig = Rig::new(1, vec![mapped(0, 0, &lu)]);
    let a = rig.login(1);
    let other = somebody(&lu);
    for _ in 0..1000 {
        toggle(&lu, &other);
    }
    lu.establish(Attention::CapacityChanged, None);
    assert_eq!(rig.mail.len(0), 1, "nobody fills a mailbox this way");
    rig.settle();
    assert_eq!(rig.told(0, a), [(at(0, 0), 0, Some(0x2a09)), (at(0, 0), 0, Some(0x2a01))], "in their precedence");
    toggle(&lu, &other);
    assert_eq!(rig.mail.len(0), 1);
}

#[test]
fn subscriptions() {
    const OPERATIONAL: u32 = notification::OPERATIONAL_CHANGE;
    const MULTI_HOST: u32 = notification::MULTI_HOST;
    let lu = unit();
    let mut rig = Rig::new(1, vec![mapped(0, 0, &lu), UnitMapping { initiators: Some(vec![]), ..mapped(0, 1, &lu) }]);
    let a = rig.login(1);
    let mut subscribe = |events| rig.ask(a, AsyncFunction::Subscribe, at(0, 0), events);
    assert_eq!(subscribe(u32::MAX), (FunctionResponse::Complete, OPERATIONAL | MULTI_HOST));
    assert_eq!(subscribe(MULTI_HOST | 16), (FunctionResponse::Complete, MULTI_HOST), "in place of the one before");
    assert_eq!(rig.ask(a, AsyncFunction::Query, at(0, 0), u32::MAX), (FunctionResponse::Complete, 0x22));
    assert_eq!(rig.ask(a, AsyncFunction::Query, at(0, 0), 16 | 2), (FunctionResponse::Complete, 2));
    let other = somebody(&lu);
    let events = |rig: &mut Rig| {
        toggle(&lu, &other);
        lu.establish(Attention::ReservationsPreempted, Some(&other));
        lu.establish(Attention::ReservationsReleased, Some(&other));
        rig.settle();
        rig.told(0, a).into_iter().map(|told| (told.1, told.2)).collect::<Vec<_>>()
    };
    assert_eq!(events(&mut rig), [(MULTI_HOST, None), (MULTI_HOST, None), (0, Some(0x2a01))]);
    rig.ask(a, AsyncFunction::Subscribe, at(0, 0), OPERATIONAL);
    assert_eq!(events(&mut rig), [(OPERATIONAL, Some(0x2a01))]);
    rig.ask(a, AsyncFunction::Subscribe, at(0, 0), 0);
    assert_eq!(events(&mut rig), [(0, Some(0x2a01))]);

    // A nexus that is lost or reset begins anew.
    rig.ask(a, AsyncFunction::Subscribe, at(0, 0), MULTI_HOST);
    rig.request_function(
        0,
        a,
        crate::scsi::TaskManagementFunction::ItNexusReset,
        Lun::default(),
        crate::tgt::Tag::NONE,
    );
    rig.settle();
    assert_eq!(events(&mut rig), [(0, Some(0x2a01))]);

    // What is not there for this nexus.
    for lun in [at(0, 1), at(0, 7), at(9, 0), Lun::REPORT_LUNS, Lun([0xff; 8]), Lun::default()] {
        assert_eq!(rig.ask(a, AsyncFunction::Subscribe, lun, 2), (FunctionResponse::IncorrectLun, 0), "{lun:?}");
    }
    assert_eq!(rig.ask(a + 1, AsyncFunction::Query, at(0, 0), 2), (FunctionResponse::Failed, 0));
}

#[test]
fn a_nexus_that_is_gone_is_told_nothing() {
    let lu = unit();
    let mut rig = Rig::new(1, vec![mapped(0, 0, &lu)]);
    let a = rig.login(1);
    let other = somebody(&lu);
    toggle(&lu, &other);
    rig.request_destroy(0, a);
    rig.settle();
    rig.reactor(0).reports.clear();
    toggle(&lu, &other);
    rig.settle();
    assert_eq!(rig.told(0, a), []);
    // Its successor is another nexus, with none of its subscriptions.
    let b = rig.request_nexus(0, HOST, 1);
    rig.settle();
    toggle(&lu, &other);
    rig.settle();
    assert_eq!(rig.told(0, b), [(at(0, 0), 0, Some(0x2a01))]);
}

/// SPC-4 7.5.10, UA_INTLCK_CTRL 11b: what the hba ends with TASK SET FULL leaves its trace.
#[test]
fn a_full_task_set_is_remembered_under_an_interlock() {
    let lu = unit();
    let mut rig = Rig::new(1, vec![mapped(0, 0, &lu)]);
    let a = rig.login(1);
    rig.reactor(0).shard.task_set_full(a, at(0, 0));
    lu.set_mode(&somebody(&lu), ModeState { ua_intlck: 3, ..lu.mode() });
    let ask = |rig: &mut Rig| {
        let cdb = [0x03, 0, 0, 0, 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let tag = rig.send(0, a, at(0, 0), cdb, crate::mem::IoBuf::owned(18, crate::mem::Direction::In));
        let data = rig.answer(tag).data;
        (data[2], u16::from_be_bytes([data[12], data[13]]))
    };
    assert_eq!(ask(&mut rig), (6, 0x2a01));
    assert_eq!(ask(&mut rig), (0, 0));
    rig.reactor(0).shard.task_set_full(a, at(0, 0));
    rig.reactor(0).shard.task_set_full(a, at(7, 7));
    rig.reactor(0).shard.task_set_full(a + 1, at(0, 0));
    assert_eq!(ask(&mut rig), (6, 0x2c08));
    assert_eq!(ask(&mut rig), (0, 0));
}

//! Nexuses come and go by events only.

use crate::lu::Attention;
use crate::mem::IoBuf;
use crate::scsi::{FunctionResponse, HostByte, Lun, Status, TaskManagementFunction};
use crate::target::testkit::*;
use crate::target::{TargetSetup, UnitMapping};
use crate::tgt::{ItNexusReq, KEvent, NexusFunction, Tag};

fn create(host_no: i32, itn_id: u64, max_cmds: u32, n: u8) -> KEvent {
    KEvent::ItNexusReq(ItNexusReq { host_no, function: NexusFunction::Create, itn_id, max_cmds, initiator_id: port(n) })
}

/// The seed's second shape: one host, many initiators, told apart by itn_id alone.
#[test]
fn one_host_with_many_initiators() {
    let mut rig = Rig::new(2, vec![mapped(0, 0, &unit())]);
    let all: Vec<_> = (1..=3).map(|n| rig.request_nexus(n % 2, HOST, n)).collect();
    assert!(rig.nexus_response(0).is_none(), "not before every shard knows it");
    rig.settle();
    let mut responses: Vec<_> = (0..2).flat_map(|s| rig.reactor(s).nexus_responses.clone()).collect();
    responses.sort();
    let mut expected: Vec<_> = all.iter().map(|&itn_id| (itn_id, 0)).collect();
    expected.sort();
    assert_eq!(responses, expected);
    for &itn_id in &all {
        // Each has its own power-on unit attention, on whatever shard it comes first.
        let tag = rig.send((itn_id % 2) as u8, itn_id, at(0, 0), TEST_UNIT_READY, IoBuf::empty());
        assert_eq!(rig.answer(tag).sense(), (6, 0x2900));
        let tag = rig.send(0, itn_id, at(0, 0), TEST_UNIT_READY, IoBuf::empty());
        assert_eq!(rig.answer(tag).result.status, Status::Good);
    }
}

/// The seed's first shape, ibmvstgt's: a host for each initiator.
#[test]
fn one_host_with_one_initiator() {
    let lu = unit();
    let names = vec![(port(1), "vm1".to_owned())];
    let hosts = vec![host(10, 1), host(11, 2)];
    let setup = TargetSetup { shards: 1, hosts, units: vec![mapped(0, 0, &lu)], names, patience: None };
    let mut rig = Rig::with(setup);
    let first = rig.request_nexus(0, 10, 1);
    let second = rig.request_nexus(0, 11, 1);
    rig.settle();
    assert_eq!(rig.reactor(0).nexus_responses, [(first, 0), (second, 0)], "hosts are different target ports");
    // A nexus is its host's alone.
    let tag = rig.send(0, first, at(0, 0), TEST_UNIT_READY, IoBuf::empty());
    assert_eq!(rig.answer(tag).result.host, HostByte::TransportDisrupted, "the rig's commands come by HOST");
    assert_eq!(rig.target.nexuses(), [(first, port(1)), (second, port(1))]);
}

#[test]
fn refusals() {
    let mut rig = Rig::new(1, vec![mapped(0, 0, &unit())]);
    let itn_id = rig.login(1);
    let fresh = rig.target.next_itn_id().unwrap();
    for (event, errno) in [
        (create(99, fresh, 1, 2), libc::ENODEV),
        (create(HOST, fresh, 0, 2), libc::EINVAL),
        (create(HOST, fresh, 1, 1), libc::EEXIST),
        (create(HOST, itn_id, 1, 2), libc::EINVAL),
    ] {
        rig.post(0, event, None);
        let name = if let KEvent::ItNexusReq(e) = event { e.itn_id } else { 0 };
        assert_eq!(rig.nexus_response(0), Some((name, -errno)));
        assert_eq!(rig.mail.len(0), 0, "nothing was begun");
    }
    // A refused name is free again; another nexus may have its slot.
    let again = rig.target.next_itn_id().unwrap();
    assert_eq!(again & 0xffff, fresh & 0xffff);
    assert_ne!(again, fresh);
    // The nexus that is there was not disturbed.
    let tag = rig.send(0, itn_id, at(0, 0), TEST_UNIT_READY, IoBuf::empty());
    assert_eq!(rig.answer(tag).result.status, Status::Good);
}

#[test]
fn a_name_of_the_hba_s_own_choice_works() {
    let mut rig = Rig::new(1, vec![mapped(0, 0, &unit())]);
    rig.post(0, create(HOST, 0xdead_0007, 1, 1), None);
    rig.settle();
    assert_eq!(rig.nexus_response(0), Some((0xdead_0007, 0)));
    rig.post(0, create(HOST, 0xbeef_0007, 1, 2), None);
    assert_eq!(rig.nexus_response(0), Some((0xbeef_0007, -libc::EINVAL)), "its slot is taken");
}

#[test]
fn a_nexus_that_is_not_there_yet_cannot_be_destroyed() {
    let mut rig = Rig::new(2, vec![mapped(0, 0, &unit())]);
    let itn_id = rig.request_nexus(0, HOST, 1);
    rig.request_destroy(1, itn_id);
    assert_eq!(rig.nexus_response(1), Some((itn_id, -libc::ENOENT)));
    assert_eq!(rig.target.nexuses(), []);
    let twin = rig.request_nexus(0, HOST, 1);
    assert_eq!(rig.nexus_response(0), Some((twin, -libc::EEXIST)));
    rig.settle();
    assert_eq!(rig.nexus_response(0), Some((itn_id, 0)));
    assert_eq!(rig.target.nexuses(), [(itn_id, port(1))]);
}

#[test]
fn a_port_that_comes_back_learns_that_it_was_lost() {
    let mut rig = Rig::new(2, vec![mapped(0, 0, &unit())]);
    let itn_id = rig.login(1);
    rig.request_destroy(1, itn_id);
    assert_eq!(rig.nexus_response(1), None);
    // Until it is destroyed to its end the port is taken.
    let early = rig.request_nexus(0, HOST, 1);
    assert_eq!(rig.nexus_response(0), Some((early, -libc::EEXIST)));
    rig.settle();
    assert_eq!(rig.nexus_response(1), Some((itn_id, 0)));
    assert_eq!(rig.target.nexuses(), []);
    rig.request_destroy(1, itn_id);
    assert_eq!(rig.nexus_response(1), Some((itn_id, -libc::ENOENT)));

    let again = rig.request_nexus(1, HOST, 1);
    rig.settle();
    assert_eq!(rig.nexus_response(1), Some((again, 0)));
    assert_ne!(again, itn_id);
    let tag = rig.send(0, again, at(0, 0), TEST_UNIT_READY, IoBuf::empty());
    assert_eq!(rig.answer(tag).sense(), (6, Attention::NexusLoss.code().0));
    // The old name is nobody's.
    let tag = rig.send(0, itn_id, at(0, 0), TEST_UNIT_READY, IoBuf::empty());
    assert_eq!(rig.answer(tag).result.host, HostByte::TransportDisrupted);
    let mid = rig.request_function(0, itn_id, TaskManagementFunction::AbortTaskSet, at(0, 0), Tag::NONE);
    assert_eq!(rig.response(mid), Some(FunctionResponse::Failed));
}

#[test]
fn destroying_waits_for_the_tasks_of_all_shards_and_no_others() {
    let lu = unit();
    let mut rig = Rig::new(3, vec![mapped(0, 0, &lu)]);
    let (mine, other) = (rig.login(1), rig.login(2));
    let on_one = rig.read(1, mine, at(0, 0));
    let on_two = rig.read(2, mine, at(0, 0));
    let foreign = rig.read(2, other, at(0, 0));
    rig.request_destroy(0, mine);
    rig.settle();
    assert_eq!(rig.nexus_response(0), None);
    assert_eq!(rig.reactor(1).io.cancelled, [on_one.0]);
    assert_eq!(rig.reactor(2).io.cancelled, [on_two.0]);
    // It takes no more commands, though it is not gone.
    let late = rig.send(1, mine, at(0, 0), TEST_UNIT_READY, IoBuf::empty());
    assert_eq!(rig.answer(late).result.host, HostByte::TransportDisrupted);

    rig.complete(on_one, Ok(()));
    assert_eq!(rig.answer(on_one).result.host, HostByte::TransportDisrupted);
    rig.settle();
    assert_eq!(rig.nexus_response(0), None);
    rig.prompt = false;
    rig.complete(on_two, Err(crate::backing::BackingError::Cancelled));
    rig.settle();
    assert_eq!(rig.nexus_response(0), None, "not before CMD_DONE");
    rig.done(on_two);
    rig.settle();
    assert_eq!(rig.nexus_response(0), Some((mine, 0)));

    rig.prompt = true;
    assert!(!rig.is_answered(foreign));
    rig.complete(foreign, Ok(()));
    assert_eq!(rig.answer(foreign).result.status, Status::Good);
    assert_eq!(rig.tasks(), 0);
    assert_eq!(lu.nexuses(), 1, "the unit has forgotten it, too");
}

#[test]
fn units_are_shown_to_those_they_are_for() {
    let (a, b, c) = (unit(), unit(), unit());
    let only = |n, mapping: UnitMapping| UnitMapping { initiators: Some(vec![port(n)]), ..mapping };
    let units = vec![
        only(1, mapped(0, 0, &a)),
        only(2, mapped(0, 0, &b)),
        only(2, mapped(3, 0x1234, &c)),
        mapped(0, 300, &c),
        mapped(0, 2, &c),
    ];
    let mut rig = Rig::new(1, units);
    let first = rig.request_nexus(0, HOST, 1);
    let second = rig.request_nexus(0, HOST, 2);
    rig.settle();
    let report_luns = [0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    let mut seen = |itn_id, lun| {
        let buf = IoBuf::owned(64, crate::mem::Direction::In);
        let tag = rig.send(0, itn_id, lun, report_luns, buf);
        let answer = rig.answer(tag);
        let len = u32::from_be_bytes(answer.data[..4].try_into().unwrap_or_default()) as usize;
        let list: Vec<u16> =
            answer.data[8..8 + len].chunks(8).map(|lun| u16::from_be_bytes([lun[0] & 0x3f, lun[1]])).collect();
        (answer.result.host, list)
    };
    assert_eq!(seen(first, at(0, 0)), (HostByte::Ok, vec![0, 2, 300]));
    assert_eq!(seen(first, Lun::REPORT_LUNS).0, HostByte::Ok);
    assert_eq!(seen(first, at(3, 0x1234)).0, HostByte::BadTarget);
    assert_eq!(seen(second, at(3, 0x1234)), (HostByte::Ok, vec![0x1234]));
    assert_eq!((a.nexuses(), b.nexuses(), c.nexuses()), (1, 1, 5));
}

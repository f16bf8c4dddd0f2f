//! What a target is made of.

use crate::target::testkit::{HOST, host, mapped, port, unit};
use crate::target::{Target, TargetError, TargetSetup, UnitMapping};

fn refused(units: Vec<UnitMapping>) -> Option<TargetError> {
    let hosts = vec![host(HOST, 1)];
    Target::new(TargetSetup { shards: 1, hosts, units, names: vec![], patience: None }).err()
}

#[test]
fn addresses_must_not_clash() {
    let (a, b) = (unit(), unit());
    assert_eq!(refused(vec![mapped(0, 0, &a), mapped(0, 1, &b), mapped(1, 0, &a)]), None);
    assert_eq!(
        refused(vec![mapped(0, 0, &a), mapped(0, 0, &b)]),
        Some(TargetError::DuplicateLun { target: 0, lun: 0 })
    );
    assert_eq!(refused(vec![mapped(0, 16384, &a)]), Some(TargetError::LunOutOfRange(16384)));
    let only = |list: &[u8]| Some(list.iter().map(|&n| port(n)).collect());
    let of = |list: &[u8]| UnitMapping { initiators: only(list), ..mapped(0, 0, &a) };
    assert_eq!(refused(vec![of(&[1]), of(&[2, 3])]), None, "each has its own LUN 0");
    let clash = Some(TargetError::DuplicateLun { target: 0, lun: 0 });
    assert_eq!(refused(vec![of(&[1, 3]), of(&[2, 3])]), clash);
    assert_eq!(refused(vec![of(&[1]), mapped(0, 0, &b)]), clash);
}

#[test]
fn hosts_and_shards() {
    let setup = |shards, hosts: &[i32]| {
        let hosts = (1..).zip(hosts).map(|(port, &host_no)| host(host_no, port)).collect();
        TargetSetup { shards, hosts, ..TargetSetup::default() }
    };
    assert_eq!(Target::new(setup(0, &[1])).err(), Some(TargetError::NoShards));
    assert_eq!(Target::new(setup(1, &[1, 2, 1])).err(), Some(TargetError::DuplicateHost(1)));
    assert_eq!(Target::new(setup(3, &[1, 2])).unwrap().shards(), 3);
}

#[test]
fn names_of_nexuses_are_never_given_twice() {
    let target = Target::new(TargetSetup { shards: 1, ..TargetSetup::default() }).unwrap();
    let names: std::collections::HashSet<_> = (0..65536).map(|_| target.next_itn_id().unwrap()).collect();
    assert_eq!(names.len(), 65536);
    assert_eq!(target.next_itn_id(), None);
}

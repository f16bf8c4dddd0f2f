//! Several target ports in one process: one guest with two ways to one disk, as two front-ends see it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

mod drive;
mod frontend;

use std::fs::File;
use std::path::PathBuf;

use drive::*;
use frontend::guest::{LINUX_FEATURES, lun};
use frontend::process::{IMAGE_SIZE, command};
use frontend::{Guest, Ram, Vstgt};
use vhost::vhost_user::VhostUserFrontend;

/// POWER ON, I_T NEXUS LOSS and MODE PARAMETERS CHANGED.
const POWER_ON: (u8, u8, u8) = (6, 0x29, 0x00);
const NEXUS_LOSS: (u8, u8, u8) = (6, 0x29, 0x07);
const MODE_CHANGED: (u8, u8, u8) = (6, 0x2a, 0x01);

/// A guest with two ways, `p` and `q`, and another one with a way by `p`; LUN 1 is there by `q` only.
struct Served {
    vstgt: Vstgt,
}

fn serve(p: &str, q: &str) -> Served {
    let dir = tempfile::tempdir().unwrap();
    for name in ["disk.img", "far.img"] {
        File::create(dir.path().join(name)).unwrap().set_len(IMAGE_SIZE).unwrap();
    }
    let path = dir.path().to_owned();
    let vstgt = Vstgt::start_in(dir, 0, |command| {
        command.args(["--target-port", &format!("name=p,id=3{p}"), "--target-port", &format!("name=q,id=258{q}")]);
        for (socket, keys) in
            [("p", "initiator=vm,target-port=p"), ("q", "initiator=vm,target-port=q"), ("o", "initiator=other")]
        {
            command.arg("--socket-path").arg(format!("{}/{socket},{keys}", path.display()));
        }
        command.arg("--lun").arg(format!("file={}/far.img,lun=1,target-port=q", path.display()));
    });
    Served { vstgt }
}

impl Served {
    fn socket(&self, name: &str) -> PathBuf {
        self.vstgt.dir.path().join(name)
    }

    /// Attached, with whatever it is told still to come.
    fn fresh(&self, name: &str) -> Driver {
        let mut guest = Guest::connect(&self.socket(name), Ram::new(16 << 20));
        guest.negotiate();
        guest.start(LINUX_FEATURES, &[0, 1, 2], 128);
        Driver::new(guest)
    }

    fn attach(&self, name: &str) -> Driver {
        let mut driver = self.fresh(name);
        assert_eq!(status(&mut driver), Some(POWER_ON));
        assert_eq!(status(&mut driver), None);
        driver
    }
}

fn to() -> To {
    To::ring(2)
}

/// TEST UNIT READY.
fn status(driver: &mut Driver) -> Option<(u8, u8, u8)> {
    let sent = driver.command(to(), &[0; 6]);
    driver.wait(&sent).sense_code()
}

/// Parameter data, as much as there is.
fn data(driver: &mut Driver, cdb: &[u8]) -> Vec<u8> {
    let sent = driver.command_in(to(), cdb, 255);
    let answer = driver.wait(&sent);
    assert!(answer.good(), "{answer:?}");
    driver.guest.ram.read(sent.data, (255 - answer.residual) as usize)
}

fn page(driver: &mut Driver, page: u8) -> Vec<u8> {
    data(driver, &[0x12, 1, page, 0, 255, 0])
}

/// MODE SELECT(6) of the caching page with this WCE.
fn set_write_cache(driver: &mut Driver, on: bool) {
    let mut list = [0; 24];
    list[4..7].copy_from_slice(&[0x08, 0x12, u8::from(on) << 2]);
    let at = driver.guest.ram.alloc(24);
    driver.guest.ram.write(at, &list);
    let out = [frontend::Buffer::out(at, 24)];
    let answer = driver.guest.command(&[0x15, 0x10, 0, 0, 24, 0], &out, &[]);
    assert!(answer.good(), "{answer:?}");
}

/// Two ways to one unit: one name, two ports.
#[test]
fn one_unit_by_two_ports() {
    let served = serve("", ",group=7");
    let (mut p, mut q) = (served.attach("p"), served.attach("q"));
    let (by_p, by_q) = (page(&mut p, 0x83), page(&mut q, 0x83));
    assert_eq!(by_p.len(), by_q.len());
    let ports = by_p.len() - 60;
    assert_eq!(by_p[..ports], by_q[..ports], "the unit's names");
    // SCSI name string of the SRP port; relative target port; target port group.
    assert_eq!(by_p[ports..ports + 8], *b"\x43\x98\x00\x28eui.");
    assert_ne!(by_p[ports..ports + 44], by_q[ports..ports + 44]);
    assert_eq!(by_p[ports + 44..], [0x41, 0x94, 0, 4, 0, 0, 0, 3, 0x41, 0x95, 0, 4, 0, 0, 0, 3]);
    assert_eq!(by_q[ports + 44..], [0x41, 0x94, 0, 4, 0, 0, 1, 2, 0x41, 0x95, 0, 4, 0, 0, 0, 7]);

    let both = page(&mut p, 0x88);
    assert_eq!(both, page(&mut q, 0x88));
    assert_eq!((both[3], both[7], both[60 + 3]), (112, 3, 2));
    assert_eq!(both[16..60], by_p[ports..ports + 44], "each by the name that it gives itself");
    assert_eq!(both[72..], by_q[ports..ports + 44]);
    for driver in [&mut p, &mut q] {
        let inquiry = data(driver, &[0x12, 0, 0, 0, 255, 0]);
        assert_eq!((inquiry.len(), &inquiry[5..7]), (254, &[0x38, 0x10][..]), "TPGS, 3PC, MULTIP");
    }

    // What one way writes the other reads.
    let written = p.write(to(), 100, &[0x77; 4096]);
    assert!(p.wait(&written).good());
    let read = q.read(to(), 100, 4096);
    assert_eq!(q.wait_good(&read), [0x77; 4096]);
    let log = served.vstgt.log();
    for line in ["initiator vm host 0 target port p ", "initiator vm host 1 target port q "] {
        assert_eq!(log.matches(line).count(), 1, "{line} in {log}");
    }
    served.vstgt.stop();
}

/// Each way is a nexus of its own: it has its own unit attentions, and a reset of one leaves the other alone.
#[test]
fn two_ways_of_one_guest_are_two_nexuses() {
    let served = serve("", "");
    let (mut p, mut q, mut other) = (served.attach("p"), served.attach("q"), served.attach("o"));
    set_write_cache(&mut p, false);
    assert_eq!([&mut p, &mut q, &mut other].map(status), [None, Some(MODE_CHANGED), Some(MODE_CHANGED)]);
    assert_eq!([&mut p, &mut q, &mut other].map(status), [None; 3], "told once");

    p.guest.frontend.reset_device().unwrap();
    p.guest.queues.iter_mut().for_each(|queue| queue.clear());
    p.guest.set_features(LINUX_FEATURES);
    p.guest.go_on(&[0; 3]);
    assert_eq!([&mut p, &mut q, &mut other].map(status), [Some(NEXUS_LOSS), None, None]);
    q.guest.check_io(5);
    p.guest.check_io(6);

    // The function, too, is about the nexus that it came by.
    let reset = q.function(I_T_NEXUS_RESET, lun(0, 0), 0);
    assert_eq!(q.wait_function(&reset), OK);
    assert_eq!([&mut p, &mut q, &mut other].map(status), [None, Some(NEXUS_LOSS), None]);
    served.vstgt.stop();
}

#[test]
fn a_unit_may_be_there_by_one_port_only() {
    let served = serve("", "");
    let (mut p, mut q) = (served.attach("p"), served.attach("q"));
    let luns = |driver: &mut Driver| data(driver, &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0]);
    assert_eq!(luns(&mut p), [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(luns(&mut q)[..4], [0, 0, 0, 16]);
    let inquiry = [0x12, 0, 0, 0, 255, 0];
    let first = |driver: &mut Driver| {
        let sent = driver.command_in(to().lun(lun(0, 1)), &inquiry, 255);
        assert!(driver.wait(&sent).good());
        driver.guest.ram.read(sent.data, 7)
    };
    assert_eq!(first(&mut p)[0], 0x7f, "nothing here");
    assert_eq!((first(&mut q)[0], first(&mut q)[6]), (0x00, 0x00), "a disk with one port");
    served.vstgt.stop();
}

/// REPORT TARGET PORT GROUPS: the states of `p`'s group and `q`'s.
fn states(driver: &mut Driver) -> [u8; 2] {
    let groups = data(driver, &[0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0]);
    assert_eq!(groups.len(), 28);
    assert_eq!((groups[7], groups[15], groups[18..20].to_vec(), groups[27]), (3, 3, vec![1, 2], 2), "groups 3 and 258");
    [groups[4] & 0x0f, groups[16] & 0x0f]
}

/// SET TARGET PORT GROUPS of both groups.
fn set_states(driver: &mut Driver, [p, q]: [u8; 2]) -> Option<(u8, u8, u8)> {
    let at = driver.guest.ram.alloc(12);
    driver.guest.ram.write(at, &[0, 0, 0, 0, p, 0, 0, 3, q, 0, 1, 2]);
    let out = [frontend::Buffer::out(at, 12)];
    driver.guest.command(&[0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0], &out, &[]).sense_code()
}

/// One way is in standby from the start; the guest fails over to it, and back.
#[test]
fn a_guest_fails_over() {
    const STANDBY: Option<(u8, u8, u8)> = Some((2, 0x04, 0x0b));
    const STATES_CHANGED: Option<(u8, u8, u8)> = Some((6, 0x2a, 0x06));
    let served = serve("", ",state=standby");
    let (mut p, mut q, mut other) = (served.attach("p"), served.fresh("q"), served.attach("o"));
    assert_eq!(status(&mut q), Some(POWER_ON));
    assert_eq!(status(&mut q), STANDBY);
    let read = q.read(to(), 0, 512);
    assert_eq!(q.wait(&read).sense_code(), STANDBY);
    assert_eq!([states(&mut p), states(&mut q)], [[0x0, 0x2]; 2]);

    let writes: Vec<_> = (0..16).map(|at| p.write(to(), at, &[at as u8 + 1; 512])).collect();
    assert_eq!(set_states(&mut q, [0x2, 0x0]), None);
    // What was under way when the states changed has ended, and either way its guest knows how.
    let written: Vec<_> = writes.iter().map(|sent| p.wait(sent).sense_code()).collect();
    for (at, sense) in written.iter().enumerate() {
        assert!([None, STATES_CHANGED, STANDBY].contains(sense), "{sense:?}");
        let read = q.read(to(), at as u32, 512);
        let expected = if sense.is_none() { at as u8 + 1 } else { 0 };
        assert_eq!(q.wait_good(&read), [expected; 512]);
    }
    let told = written.contains(&STATES_CHANGED);
    assert_eq!(status(&mut p), if told { STANDBY } else { STATES_CHANGED });
    assert_eq!([status(&mut p), status(&mut q)], [STANDBY, None]);
    assert_eq!([status(&mut other), status(&mut other)], [STATES_CHANGED, STANDBY], "by the same port");
    assert_eq!([states(&mut p), states(&mut q)], [[0x2, 0x0]; 2]);

    assert_eq!(set_states(&mut p, [0x0, 0x1]), None, "by a port in standby");
    assert_eq!([status(&mut p), status(&mut q)], [None, STATES_CHANGED]);
    assert_eq!([status(&mut q), status(&mut other)], [None, STATES_CHANGED]);
    p.guest.check_io(1);
    q.guest.check_io(2);
    // Neither can a guest take ports away from others for good, nor set what is none.
    for state in [0xe, 0xf, 0x4] {
        assert_eq!(set_states(&mut p, [0x0, state]), Some((5, 0x26, 0x00)));
    }
    assert_eq!(states(&mut p), [0x0, 0x1]);
    served.vstgt.stop();
}

#[test]
fn a_port_that_is_offline_serves_nothing() {
    const OFFLINE: Option<(u8, u8, u8)> = Some((2, 0x04, 0x12));
    let served = serve("", ",state=offline");
    let (mut p, mut q) = (served.attach("p"), served.fresh("q"));
    assert_eq!([status(&mut q), status(&mut q)], [Some(POWER_ON), OFFLINE]);
    assert_eq!(states(&mut q), [0x0, 0xe]);
    assert_eq!(set_states(&mut p, [0x0, 0x0]), Some((5, 0x26, 0x00)), "the configuration's alone");
    assert_eq!(status(&mut q), OFFLINE);
    served.vstgt.stop();
}

/// The REPORT LUNS well-known unit has the name of the port, and none of its own.
#[test]
fn the_well_known_unit_names_its_port() {
    let served = serve("", "");
    let mut q = served.attach("q");
    let sent = q.command_in(to().lun([0xc1, 1, 0, 0, 0, 0, 0, 0]), &[0x12, 1, 0x83, 0, 255, 0], 255);
    assert!(q.wait(&sent).good());
    let page = q.guest.ram.read(sent.data, 64);
    assert_eq!(page[..8], [0x1e, 0x83, 0, 60, 0x43, 0x98, 0, 40]);
    assert_eq!(page[48..], [0x41, 0x94, 0, 4, 0, 0, 1, 2, 0x41, 0x95, 0, 4, 0, 0, 1, 2]);
    served.vstgt.stop();
}

#[test]
fn one_nexus_has_one_socket() {
    let dir = tempfile::tempdir().unwrap();
    File::create(dir.path().join("disk.img")).unwrap().set_len(IMAGE_SIZE).unwrap();
    let mut vstgt = command(dir.path());
    vstgt.args(["--target-port", "name=p", "--target-port", "name=q"]);
    for socket in ["a", "b"] {
        vstgt.arg("--socket-path").arg(format!("{}/{socket},initiator=vm,target-port=q", dir.path().display()));
    }
    assert!(!vstgt.spawn().unwrap().wait().unwrap().success());
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(log.contains("initiator name 'vm' is used by two sockets on target port 'q'"), "{log}");
    assert!(!dir.path().join("a").exists());
}

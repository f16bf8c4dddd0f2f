//! Logical units as they were set up, seen by guests of the real `vstgt`: settings of `--lun`, images that grow, maps of images.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

mod drive;
mod frontend;

use std::fs::File;

use drive::*;
use frontend::guest::lun;
use frontend::process::command;
use frontend::{Guest, Vstgt};

const SIZE: u64 = 1 << 20;

/// A unit of its own beside the image that all tests have: `unit.img`, [`SIZE`] bytes, as LUN 1.
fn serve(sockets: usize, keys: &str) -> Vstgt {
    let dir = tempfile::tempdir().unwrap();
    for (name, size) in [("disk.img", frontend::process::IMAGE_SIZE), ("unit.img", SIZE)] {
        File::create(dir.path().join(name)).unwrap().set_len(size).unwrap();
    }
    let unit = format!("file={}/unit.img,lun=1{keys}", dir.path().display());
    Vstgt::start_in(dir, sockets, |command| {
        command.arg("--lun").arg(unit);
    })
}

fn to() -> To {
    To::ring(2).lun(lun(0, 1))
}

fn attach(vstgt: &Vstgt, socket: usize) -> Driver {
    let mut driver = Driver::new(Guest::attached(vstgt.socket(socket)));
    assert_eq!(status(&mut driver), Some((6, 0x29, 0x00)), "POWER ON");
    assert_eq!(status(&mut driver), None);
    driver
}

/// TEST UNIT READY.
fn status(driver: &mut Driver) -> Option<(u8, u8, u8)> {
    let sent = driver.command(to(), &[0; 6]);
    driver.wait(&sent).sense_code()
}

fn data(driver: &mut Driver, cdb: &[u8], len: u32) -> Vec<u8> {
    let sent = driver.command_in(to(), cdb, len);
    driver.wait_good(&sent)
}

/// READ CAPACITY(16).
fn capacity(driver: &mut Driver) -> Vec<u8> {
    data(driver, &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], 32)
}

#[test]
fn a_unit_is_what_it_was_set_up_to_be() {
    let keys = ",physical-block-size=4096,rotation-rate=7200,provisioning=full,write-cache=off,sense-format=descriptor,\
                naa=0x5000123456789abc,serial=S42,vendor=ACME,product=Rust,revision=7.1";
    let vstgt = serve(1, keys);
    let mut driver = Driver::new(Guest::attached(vstgt.socket(0)));
    let sent = driver.command(to(), &[0; 6]);
    let answer = driver.wait(&sent);
    assert_eq!(answer.sense[..4], [0x72, 0x06, 0x29, 0x00], "descriptor format");

    assert_eq!(data(&mut driver, &[0x12, 0, 0, 0, 36, 0], 36)[8..], *b"ACME    Rust            7.1 ");
    assert_eq!(data(&mut driver, &[0x12, 1, 0x80, 0, 7, 0], 7), *b"\x00\x80\x00\x03S42");
    let naa = [0x01, 0x03, 0, 8, 0x50, 0x00, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc];
    assert_eq!(data(&mut driver, &[0x12, 1, 0x83, 0, 16, 0], 16)[4..], naa);
    assert_eq!(data(&mut driver, &[0x12, 1, 0xb1, 0, 6, 0], 6)[4..], 7200_u16.to_be_bytes());
    assert_eq!(data(&mut driver, &[0x12, 1, 0xb2, 0, 8, 0], 8)[4..], [0; 4], "fully provisioned");
    assert_eq!(capacity(&mut driver)[12..16], [0, 3, 0, 0], "physical exponent, LBPME");
    // MODE SENSE(6) without block descriptors, current and default: WCE of the caching page, D_SENSE of the control page.
    for control in [0x00, 0x80] {
        assert_eq!(data(&mut driver, &[0x1a, 8, control | 0x08, 0, 7, 0], 7)[6] & 0x04, 0);
        assert_eq!(data(&mut driver, &[0x1a, 8, control | 0x0a, 0, 7, 0], 7)[6] & 0x04, 0x04);
    }
    vstgt.stop();
}

/// The image grows while two guests use it: one asks and is told the size, the other that it changed.
#[test]
fn a_unit_grows_with_its_image() {
    let vstgt = serve(2, "");
    let (mut a, mut b) = (attach(&vstgt, 0), attach(&vstgt, 1));
    let last = |blocks: u64| (blocks - 1).to_be_bytes();
    assert_eq!(capacity(&mut a)[..8], last(2048));
    let path = vstgt.dir.path().join("unit.img");
    File::options().write(true).open(&path).unwrap().set_len(2 * SIZE).unwrap();

    let beyond = a.write(to(), 3000, &[5; 512]);
    assert_eq!(a.wait(&beyond).sense_code(), Some((5, 0x21, 0x00)), "nobody has asked yet");
    assert_eq!(capacity(&mut a)[..8], last(4096));
    assert_eq!(status(&mut a), None);
    let write = a.write(to(), 4095, &[5; 512]);
    assert!(a.wait(&write).good());
    assert_eq!(status(&mut b), Some((6, 0x2a, 0x09)), "CAPACITY DATA HAS CHANGED");
    assert_eq!(status(&mut b), None);
    assert_eq!(capacity(&mut b)[..8], last(4096));
    let read = b.read(to(), 4095, 512);
    assert_eq!(b.wait_good(&read), [5; 512]);
    assert_eq!(status(&mut a), None);
    vstgt.stop();
}

/// GET LBA STATUS of an image of which one megabyte's middle was written.
#[test]
fn a_unit_tells_where_it_is_mapped() {
    let vstgt = serve(1, ",provisioning=thin");
    let mut driver = attach(&vstgt, 0);
    let status = |driver: &mut Driver| data(driver, &[0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0], 24);
    assert_eq!(status(&mut driver)[8..], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 1, 0, 0, 0], "all deallocated");
    let write = driver.write(to(), 1024, &[9; 65536]);
    assert!(driver.wait(&write).good());
    let sent = driver.command_in(to(), &[0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 56, 0, 0], 56);
    assert_eq!(
        driver.wait_good(&sent),
        [
            0, 0, 0, 52, 0, 0, 0, 0, //
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0, //
            0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 128, 0, 0, 0, 0, //
            0, 0, 0, 0, 0, 0, 4, 128, 0, 0, 3, 128, 1, 0, 0, 0,
        ]
    );
    vstgt.stop();
}

#[test]
fn two_images_with_one_identity_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut vstgt = command(dir.path());
    vstgt.arg("--socket-path").arg(dir.path().join("a.sock"));
    for (number, name) in ["one.img", "two.img"].into_iter().enumerate() {
        let path = dir.path().join(name);
        File::create(&path).unwrap().set_len(SIZE).unwrap();
        vstgt.arg("--lun").arg(format!("file={},lun={},serial=S1", path.display(), number + 1));
    }
    let mut child = vstgt.spawn().unwrap();
    assert!(!child.wait().unwrap().success());
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(log.contains("one.img and ") && log.contains("two.img have one serial number 'S1'"), "{log}");
    assert!(!dir.path().join("a.sock").exists());
}

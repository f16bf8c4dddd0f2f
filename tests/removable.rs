//! Removable media, over real sockets: what one guest ejects is gone for all, through restarts, until a guest or the host loads it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

mod drive;
mod frontend;

use std::fs::File;
use std::path::Path;

use drive::*;
use frontend::guest::lun;
use frontend::{Guest, Vstgt, eventually};

const SIZE: u64 = 1 << 20;
const SIGUSR1: i32 = 10;

const EMPTY: Option<(u8, u8, u8)> = Some((2, 0x3a, 0x00));
const MAY_HAVE_CHANGED: Option<(u8, u8, u8)> = Some((6, 0x28, 0x00));
const CAPACITY_CHANGED: Option<(u8, u8, u8)> = Some((6, 0x2a, 0x09));

const EJECT: [u8; 6] = [0x1b, 0, 0, 0, 2, 0];
const LOAD: [u8; 6] = [0x1b, 0, 0, 0, 3, 0];

/// A removable unit beside the image that all tests have: `medium.img`, as LUN 1, for two guests.
fn serve(dir: tempfile::TempDir) -> Vstgt {
    let unit = format!("file={}/medium.img,lun=1,removable=on", dir.path().display());
    Vstgt::start_in(dir, 2, |command| {
        command.arg("--lun").arg(unit).arg("-v");
    })
}

fn new_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, size) in [("disk.img", frontend::process::IMAGE_SIZE), ("medium.img", SIZE)] {
        File::create(dir.path().join(name)).unwrap().set_len(size).unwrap();
    }
    dir
}

fn resize(dir: &Path, size: u64) {
    File::options().write(true).open(dir.join("medium.img")).unwrap().set_len(size).unwrap();
}

fn to() -> To {
    To::ring(2).lun(lun(0, 1))
}

fn send(driver: &mut Driver, cdb: &[u8]) -> Option<(u8, u8, u8)> {
    let sent = driver.command(to(), cdb);
    driver.wait(&sent).sense_code()
}

/// TEST UNIT READY.
fn ready(driver: &mut Driver) -> Option<(u8, u8, u8)> {
    send(driver, &[0; 6])
}

fn attach(vstgt: &Vstgt, socket: usize) -> Driver {
    let mut driver = Driver::new(Guest::attached(vstgt.socket(socket)));
    assert_eq!(ready(&mut driver), Some((6, 0x29, 0x00)), "POWER ON");
    driver
}

#[test]
fn one_guest_takes_it_from_all_and_any_gives_it_back() {
    let vstgt = serve(new_dir());
    let (mut a, mut b) = (attach(&vstgt, 0), attach(&vstgt, 1));
    let inquiry = a.command_in(to(), &[0x12, 0, 0, 0, 36, 0], 36);
    assert_eq!(a.wait_good(&inquiry)[1], 0x80, "RMB");
    let write = a.write(to(), 7, &[3; 512]);
    assert!(a.wait(&write).good());

    assert_eq!(send(&mut b, &[0x1e, 0, 0, 0, 1, 0]), None, "PREVENT");
    assert_eq!(send(&mut a, &EJECT), Some((5, 0x53, 0x02)));
    assert_eq!(send(&mut b, &[0x1e, 0, 0, 0, 0, 0]), None, "ALLOW");
    assert_eq!(send(&mut a, &EJECT), None);
    assert_eq!([ready(&mut a), ready(&mut b)], [EMPTY; 2]);
    let read = b.read(to(), 7, 512);
    assert_eq!(b.wait(&read).sense_code(), EMPTY);
    resize(vstgt.dir.path(), 2 * SIZE);
    assert_eq!(send(&mut b, &LOAD), None);
    assert_eq!([ready(&mut a), ready(&mut a), ready(&mut a)], [MAY_HAVE_CHANGED, CAPACITY_CHANGED, None]);
    assert_eq!([ready(&mut b), ready(&mut b)], [CAPACITY_CHANGED, None]);
    let read = a.read(to(), 4095, 512);
    assert_eq!(a.wait_good(&read), [0; 512], "the last block of the new size");
    let read = b.read(to(), 7, 512);
    assert_eq!(b.wait_good(&read), [3; 512]);
    vstgt.stop();
}

/// Stopped in order, and killed; SIGUSR1 loads it.
#[test]
fn it_stays_out_until_the_host_loads_it() {
    let vstgt = serve(new_dir());
    let mut a = attach(&vstgt, 0);
    assert_eq!(send(&mut a, &EJECT), None);
    drop(a);
    let vstgt = serve(vstgt.kill());
    let mut a = Driver::new(Guest::attached(vstgt.socket(0)));
    assert_eq!(ready(&mut a), EMPTY);
    drop(a);
    let vstgt = serve(vstgt.stop());
    let mut b = attach(&vstgt, 1);
    assert_eq!(ready(&mut b), EMPTY, "for who is new, too");

    // There is nothing in it that could be loaded.
    resize(vstgt.dir.path(), 0);
    vstgt.signal(SIGUSR1);
    eventually("it is looked at", || vstgt.log().contains("medium.img: empty"));
    assert_eq!(ready(&mut b), EMPTY);
    resize(vstgt.dir.path(), 3 * SIZE);
    vstgt.signal(SIGUSR1);
    eventually("it is loaded", || vstgt.log().contains("medium.img: loaded, 6144 blocks"));
    assert_eq!([ready(&mut b), ready(&mut b), ready(&mut b)], [MAY_HAVE_CHANGED, CAPACITY_CHANGED, None]);

    // What is in may have grown.
    resize(vstgt.dir.path(), 4 * SIZE);
    vstgt.signal(SIGUSR1);
    eventually("it is looked at", || vstgt.log().contains("medium.img: 8192 blocks"));
    assert_eq!([ready(&mut b), ready(&mut b)], [CAPACITY_CHANGED, None]);
    vstgt.stop();
}

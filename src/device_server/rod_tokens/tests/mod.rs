//! Copies by token, as CDBs and parameter lists.

mod commands;
mod copies;
mod lifetime;
mod refused;

use std::sync::Arc;

use crate::device_server::Answer;
use crate::device_server::testkit::{Bench, MemImage, Ran, check, good, nexus_of};
use crate::lu::{LuSetup, Rods};
use crate::scsi::{AdditionalSense, FieldPointer, Sense, SenseKey};

/// Two units that know each other's tokens, each seen by a nexus of its own.
struct Pair {
    a: Bench,
    b: Bench,
}

impl Pair {
    /// Each of 100 blocks of 512 bytes: one patterned, one of FFh bytes.
    fn new() -> Pair {
        Pair::of(MemImage::patterned(51_200), MemImage::holding(vec![0xff; 51_200]))
    }

    fn of(a: MemImage, b: MemImage) -> Pair {
        Pair::with(a, b, |_| ())
    }

    /// After a change to the set-up of the second.
    fn with(a: MemImage, b: MemImage, change: impl FnOnce(&mut LuSetup)) -> Pair {
        let rods: Arc<Rods> = Arc::default();
        let a = Bench::with(a, |setup| setup.rods = rods.clone());
        let b = Bench::with(b, |setup| {
            setup.rods = rods;
            change(setup);
        });
        Pair { a, b }
    }
}

/// Another nexus of a bench's unit.
fn other(bench: &Bench) -> Bench {
    Bench::of(bench.image.clone(), nexus_of(bench.itl.lu().clone(), None))
}

/// POPULATE TOKEN and WRITE USING TOKEN: byte 1 service action, bytes 6–9 LIST IDENTIFIER, 10–13 PARAMETER LIST LENGTH.
fn out_cdb(service_action: u8, list: u32, length: u32) -> [u8; 16] {
    let [a, b, c, d] = list.to_be_bytes();
    let [e, f, g, h] = length.to_be_bytes();
    [0x83, service_action, 0, 0, 0, 0, a, b, c, d, e, f, g, h, 0, 0]
}

/// RECEIVE COPY STATUS(LID4) and RECEIVE ROD TOKEN INFORMATION: bytes 2–5 LIST IDENTIFIER, 10–13 ALLOCATION LENGTH.
fn in_cdb(service_action: u8, list: u32, length: u32) -> [u8; 16] {
    let [a, b, c, d] = list.to_be_bytes();
    let [e, f, g, h] = length.to_be_bytes();
    [0x84, service_action, a, b, c, d, 0, 0, 0, 0, e, f, g, h, 0, 0]
}

fn descriptors(ranges: &[(u64, u32)]) -> Vec<u8> {
    ranges.iter().flat_map(|(lba, blocks)| [&lba.to_be_bytes()[..], &blocks.to_be_bytes(), &[0; 4]].concat()).collect()
}

/// What POPULATE TOKEN is sent: flags (01h IMMED, 02h RTV), INACTIVITY TIMEOUT, ranges.
fn populate_list(flags: u8, inactivity: u32, ranges: &[(u64, u32)]) -> Vec<u8> {
    let length = 16 * ranges.len() as u16;
    let header = [&(14 + length).to_be_bytes()[..], &[flags, 0], &inactivity.to_be_bytes(), &[0; 6]].concat();
    [header, length.to_be_bytes().to_vec(), descriptors(ranges)].concat()
}

/// What WRITE USING TOKEN is sent: flags (01h IMMED, 02h DEL_TKN), OFFSET INTO ROD, token, ranges.
fn write_list(flags: u8, offset: u64, token: &[u8; 512], ranges: &[(u64, u32)]) -> Vec<u8> {
    let length = 16 * ranges.len() as u16;
    let header = [&(534 + length).to_be_bytes()[..], &[flags, 0, 0, 0, 0, 0], &offset.to_be_bytes()].concat();
    [header, token.to_vec(), vec![0; 6], length.to_be_bytes().to_vec(), descriptors(ranges)].concat()
}

fn populate(bench: &Bench, list: u32, ranges: &[(u64, u32)]) -> Answer {
    let data = populate_list(0, 0, ranges);
    bench.data_out(&out_cdb(0x10, list, data.len() as u32), &data)
}

fn write(bench: &Bench, list: u32, token: &[u8; 512], ranges: &[(u64, u32)]) -> Answer {
    write_with(bench, list, 0, 0, token, ranges)
}

fn write_with(bench: &Bench, list: u32, flags: u8, offset: u64, token: &[u8; 512], ranges: &[(u64, u32)]) -> Answer {
    let data = write_list(flags, offset, token, ranges);
    bench.data_out(&out_cdb(0x11, list, data.len() as u32), &data)
}

/// RECEIVE ROD TOKEN INFORMATION with room for all.
fn information(bench: &Bench, list: u32) -> Ran {
    bench.data_in(&in_cdb(0x07, list, 1024), 1024)
}

/// The token of a POPULATE TOKEN that went well.
fn fetch(bench: &Bench, list: u32) -> [u8; 512] {
    let ran = information(bench, list);
    assert_eq!((ran.answer, ran.data[5]), (good(36 + 514), 0x01));
    ran.data[38..550].try_into().unwrap()
}

/// A token for these blocks.
fn token(bench: &Bench, ranges: &[(u64, u32)]) -> [u8; 512] {
    let answer = populate(bench, 0x7777, ranges);
    assert_eq!(answer.sense, None);
    fetch(bench, 0x7777)
}

/// COPY OPERATION STATUS, EXTENDED COPY COMPLETION STATUS and TRANSFER COUNT.
fn status(bench: &Bench, list: u32) -> (u8, u8, u64) {
    let ran = bench.data_in(&in_cdb(0x05, list, 1024), 1024);
    assert_eq!(ran.answer.sense, None);
    (ran.data[5], ran.data[12], u64::from_be_bytes(ran.data[16..24].try_into().unwrap()))
}

/// Sense data of ILLEGAL REQUEST.
fn illegal(code: u16) -> Sense {
    Sense::illegal_request(AdditionalSense(code))
}

/// INVALID FIELD IN PARAMETER LIST.
fn invalid(byte: u16) -> Sense {
    illegal(0x2600).with_field(FieldPointer { in_cdb: false, byte, bit: Some(7) })
}

/// The block device zero ROD token (SBC-3 table 31).
fn zero_token() -> [u8; 512] {
    let mut token = [0; 512];
    token[..8].copy_from_slice(&[0xff, 0xff, 0x00, 0x01, 0, 0, 0x01, 0xf8]);
    token
}

/// WRITE(10) of one block.
fn write10(bench: &Bench, lba: u8) -> Answer {
    bench.data_out(&[0x2a, 0, 0, 0, 0, lba, 0, 0, 1, 0], &[0x11; 512])
}

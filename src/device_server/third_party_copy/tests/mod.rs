//! Copies between units in memory.

mod copying;
mod list;
mod receiving;

use std::sync::Arc;

use crate::device_server::Answer;
use crate::device_server::testkit::{Bench, MemImage};
use crate::lu::{Itl, LuSetup};
use crate::scsi::{AdditionalSense, FieldPointer, Sense};

/// Blocks of an image of 64 KiB.
const BLOCKS: usize = 128;

/// A unit whose NAA designator is 3000_0000_0000_000n.
fn unit(n: u8, image: MemImage, change: impl FnOnce(&mut LuSetup)) -> Bench {
    Bench::with(image, |setup| {
        setup.naa = 0x3000_0000_0000_0000 | u64::from(n);
        setup.serial = format!("S{n}");
        change(setup);
    })
}

/// Two units of one nexus: number 1 holds a pattern, number 2 zeros.
fn pair() -> (Bench, Bench) {
    joined(unit(1, MemImage::patterned(BLOCKS * 512), |_| ()), unit(2, MemImage::new(BLOCKS * 512), |_| ()))
}

/// Each sees both.
fn joined(mut a: Bench, mut b: Bench) -> (Bench, Bench) {
    let peers: Vec<Arc<Itl>> = vec![Arc::clone(&a.itl), Arc::clone(&b.itl)];
    (a.peers, b.peers) = (peers.clone(), peers);
    (a, b)
}

/// An identification CSCD descriptor (SPC-4 table 110): a disk with that NAA designator and block length.
fn cscd(n: u8, block: u16) -> Vec<u8> {
    let [high, low] = block.to_be_bytes();
    vec![
        0xe4, 0x00, 0, 0, 0x01, 0x03, 0, 8, 0x30, 0, 0, 0, 0, 0, 0, n, //
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x00, 0, high, low,
    ]
}

/// A segment descriptor block → block (SPC-4 table 120).
fn blocks(from: u16, to: u16, count: u16, from_lba: u64, to_lba: u64) -> Vec<u8> {
    let mut segment = vec![0x02, 0x00, 0, 0x18];
    segment.extend(from.to_be_bytes());
    segment.extend(to.to_be_bytes());
    segment.extend([0, 0]);
    segment.extend(count.to_be_bytes());
    segment.extend(from_lba.to_be_bytes());
    segment.extend(to_lba.to_be_bytes());
    segment
}

/// A segment descriptor block with offset → block with offset (SPC-4 table 126), from the first CSCD descriptor to the second.
fn bytes(count: u32, from: (u64, u16), to: (u64, u16)) -> Vec<u8> {
    let mut segment = vec![0x0a, 0x00, 0, 0x1c, 0, 0, 0, 1];
    segment.extend(count.to_be_bytes());
    segment.extend(from.0.to_be_bytes());
    segment.extend(to.0.to_be_bytes());
    segment.extend(from.1.to_be_bytes());
    segment.extend(to.1.to_be_bytes());
    segment
}

/// A parameter list (SPC-4 table 101) with this list identifier, LIST ID USAGE 00b.
fn list(id: u8, cscds: &[Vec<u8>], segments: &[Vec<u8>]) -> Vec<u8> {
    let (cscds, segments) = (cscds.concat(), segments.concat());
    let mut list = vec![id, 0];
    list.extend((cscds.len() as u16).to_be_bytes());
    list.extend([0; 4]);
    list.extend((segments.len() as u32).to_be_bytes());
    list.extend([0; 4]);
    [list, cscds, segments].concat()
}

/// The list that copies `segments` between units 1 and 2.
fn between(segments: &[Vec<u8>]) -> Vec<u8> {
    list(1, &[cscd(1, 512), cscd(2, 512)], segments)
}

fn extended_copy(length: usize) -> [u8; 16] {
    let [a, b, c, d] = (length as u32).to_be_bytes();
    [0x83, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d, 0, 0]
}

/// Sends EXTENDED COPY.
fn send(bench: &Bench, list: &[u8]) -> Answer {
    bench.data_out(&extended_copy(list.len()), list)
}

/// Blocks of an image of 512-byte blocks.
fn block(bench: &Bench, lba: usize, count: usize) -> Vec<u8> {
    bench.image.bytes()[lba * 512..(lba + count) * 512].to_vec()
}

/// COPY ABORTED in that segment, at that byte of its descriptor.
fn aborted(code: AdditionalSense, segment: u16, byte: u16) -> Answer {
    Answer::check(Sense::copy_aborted(code).with_segment(segment).with_field(FieldPointer::parameter_list(byte, 7)))
}

/// ILLEGAL REQUEST, pointing at that byte of the parameter list.
fn illegal(code: u16, byte: u16, bit: u8) -> Answer {
    let sense = Sense::illegal_request(AdditionalSense(code)).with_field(FieldPointer::parameter_list(byte, bit));
    Answer::check(sense)
}

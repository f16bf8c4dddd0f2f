//! The smallest disk and the largest: one block, and 2^48 of them. The large ones lie on tmpfs, the only file system here that has files
//! of 2^60 bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

mod drive;
mod frontend;

use std::fs::File;

use drive::*;
use frontend::guest::lun;
use frontend::{Buffer, Guest, Vstgt};

/// A unit of `blocks` blocks of `block_size` bytes as LUN 1, which does not tell that no host has room for them all. The image goes away with what is returned.
fn serve(blocks: u64, block_size: u32) -> (Vstgt, tempfile::TempDir) {
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let image = memory.path().join("unit.img");
    File::create(&image).unwrap().set_len(blocks * u64::from(block_size)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    File::create(dir.path().join("disk.img")).unwrap().set_len(frontend::process::IMAGE_SIZE).unwrap();
    let vstgt = Vstgt::start_in(dir, 1, |command| {
        command.arg("--lun").arg(format!("file={},lun=1,block-size={block_size},threshold=off", image.display()));
    });
    (vstgt, memory)
}

fn to() -> To {
    To::ring(2).lun(lun(0, 1))
}

fn attach(vstgt: &Vstgt) -> Driver {
    let mut driver = Driver::new(Guest::attached(vstgt.socket(0)));
    let sent = driver.command(to(), &[0; 6]);
    assert_eq!(driver.wait(&sent).sense_code(), Some((6, 0x29, 0x00)));
    driver
}

fn data(driver: &mut Driver, cdb: &[u8], len: u32) -> Vec<u8> {
    let sent = driver.command_in(to(), cdb, len);
    driver.wait_good(&sent)
}

/// Sends `bytes` and returns the sense data, if there is any.
fn send(driver: &mut Driver, cdb: &[u8], bytes: &[u8]) -> Option<(u8, u8, u8)> {
    let at = driver.guest.ram.alloc(bytes.len().max(1) as u64);
    driver.guest.ram.write(at, bytes);
    let buffers: &[Buffer] = if bytes.is_empty() { &[] } else { &[Buffer::out(at, bytes.len() as u32)] };
    let sent = driver.out(to(), cdb, buffers);
    let answer = driver.wait(&sent);
    assert!(answer.good() || answer.sense_code().is_some(), "{answer:?}");
    answer.sense_code()
}

/// Sixteen bytes: opcode, flags, LBA, blocks.
fn cdb16(opcode: u8, flags: u8, lba: u64, blocks: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    (cdb[0], cdb[1]) = (opcode, flags);
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

const OUT_OF_RANGE: Option<(u8, u8, u8)> = Some((5, 0x21, 0x00));

/// What holds of a disk of any size.
fn a_whole_disk(blocks: u64, block_size: u32) {
    let (vstgt, memory) = serve(blocks, block_size);
    let mut driver = attach(&vstgt);
    let last = blocks - 1;
    let len = block_size as usize;

    let capacity = data(&mut driver, &cdb16(0x9e, 0x10, 0, 32), 32);
    assert_eq!(capacity[..8], last.to_be_bytes());
    assert_eq!(capacity[8..12], block_size.to_be_bytes());
    let short = data(&mut driver, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8);
    assert_eq!(short[..4], u32::try_from(last).unwrap_or(u32::MAX).to_be_bytes());
    // MODE SENSE(10) with LLBAA: a block descriptor of sixteen bytes.
    let mode = data(&mut driver, &[0x5a, 0x10, 0x08, 0, 0, 0, 0, 0, 24, 0], 24);
    assert_eq!((mode[4], mode[7]), (1, 16), "LONGLBA");
    assert_eq!(mode[8..16], blocks.to_be_bytes());
    // And with eight: what does not fit is FFFFFFFFh.
    let mode = data(&mut driver, &[0x5a, 0, 0x08, 0, 0, 0, 0, 0, 16, 0], 16);
    assert_eq!(mode[8..12], u32::try_from(blocks).unwrap_or(u32::MAX).to_be_bytes());

    let pattern: Vec<u8> = (0..len).map(|at| (at * 7) as u8).collect();
    assert_eq!(send(&mut driver, &cdb16(0x8a, 0x08, last, 1), &pattern), None, "WRITE with FUA");
    assert_eq!(data(&mut driver, &cdb16(0x88, 0, last, 1), block_size), pattern);
    assert_eq!(send(&mut driver, &cdb16(0x8f, 0x02, last, 1), &pattern), None, "VERIFY of bytes");
    assert_eq!(send(&mut driver, &cdb16(0x91, 0, last, 0), &[]), None, "SYNCHRONIZE CACHE to the end");
    for (lba, count) in [(blocks, 1), (last, 2), (blocks, 0), (u64::MAX, 1), (u64::MAX, 0), (1 << 63, 1)] {
        let there = vec![0; len * count as usize];
        assert_eq!(send(&mut driver, &cdb16(0x8a, 0, lba, count), &there), OUT_OF_RANGE, "{lba} {count}");
        assert_eq!(send(&mut driver, &cdb16(0x8f, 0, lba, count), &[]), OUT_OF_RANGE, "{lba} {count}");
        assert_eq!(send(&mut driver, &cdb16(0x91, 0, lba, count), &[]), OUT_OF_RANGE, "{lba} {count}");
        assert_eq!(send(&mut driver, &cdb16(0x93, 0x09, lba, count), &[]), OUT_OF_RANGE, "{lba} {count}");
    }
    // GET LBA STATUS of the last block, which is mapped with others of its page.
    let status = data(&mut driver, &cdb16(0x9e, 0x12, last, 24), 24);
    assert_eq!((&status[8..16], &status[16..21]), (&last.to_be_bytes()[..], &[0, 0, 0, 1, 0][..]));
    // COMPARE AND WRITE of it.
    let both = [&pattern[..], &vec![0x11; len]].concat();
    let mut cdb = cdb16(0x89, 0, last, 1);
    cdb[13] = 1;
    assert_eq!(send(&mut driver, &cdb, &both), None);
    assert_eq!(send(&mut driver, &cdb, &both).map(|sense| sense.0), Some(0x0e), "MISCOMPARE");

    // UNMAP of as many blocks as a descriptor names, up to the last one; and WRITE SAME up to the end.
    let count = u32::try_from(blocks).unwrap_or(u32::MAX);
    let mut list = vec![0, 22, 0, 16, 0, 0, 0, 0];
    list.extend((blocks - u64::from(count)).to_be_bytes());
    list.extend(count.to_be_bytes());
    list.extend([0; 4]);
    assert_eq!(send(&mut driver, &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], &list), None);
    assert_eq!(data(&mut driver, &cdb16(0x88, 0, last, 1), block_size), vec![0; len]);
    assert_eq!(send(&mut driver, &cdb16(0x8a, 0, 0, 1), &pattern), None);
    assert_eq!(send(&mut driver, &cdb16(0x93, 0x09, 0, 0), &[]), None, "UNMAP and NDOB, to the end of the medium");
    let status = data(&mut driver, &cdb16(0x9e, 0x12, 0, 24), 24);
    // Files are deallocated by pages; what is left of the last one is mapped, and zero.
    let pages = count - count % (4096 / block_size);
    if pages > 0 {
        let told = u32::from_be_bytes(status[16..20].try_into().unwrap());
        assert!(told >= pages && status[20] == 1, "{told} blocks, status {}", status[20]);
    }
    assert_eq!(data(&mut driver, &cdb16(0x88, 0, 0, 1), block_size), vec![0; len]);
    vstgt.stop();
    drop(memory);
}

#[test]
fn one_block() {
    a_whole_disk(1, 512);
    a_whole_disk(1, 4096);
}

#[test]
fn two_to_the_forty_eight_blocks() {
    a_whole_disk(1 << 48, 512);
    a_whole_disk(1 << 48, 4096);
}

/// Around the last LBA that ten-byte CDBs can name.
#[test]
fn thirty_two_bits_of_blocks() {
    for blocks in [u64::from(u32::MAX), 1 << 32, (1 << 32) + 1] {
        a_whole_disk(blocks, 512);
    }
}

//! An image in memory whose operations take their time: most little, some a few milliseconds.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, dead_code, reason = "test code")]

use std::sync::Mutex;
use std::time::Duration;

use vstgt::backing::{BackingError, Capabilities, Image, RawFile};
use vstgt::mem::IoBuf;

use super::random::Random;

pub const SIZE: u64 = 1 << 20;

/// An operation is done at one moment, between two waits.
#[derive(Debug)]
pub struct SlowImage {
    bytes: Mutex<Vec<u8>>,
    random: Mutex<Random>,
}

impl SlowImage {
    pub fn new(seed: u64) -> SlowImage {
        SlowImage { bytes: Mutex::new(vec![0; SIZE as usize]), random: Mutex::new(Random::new(seed)) }
    }

    fn dawdle(&self) {
        let micros = {
            let mut random = self.random.lock().unwrap();
            let longest = random.weighted(&[(50, 1), (35, 400), (15, 3000)]);
            random.below(longest)
        };
        if micros > 0 {
            std::thread::sleep(Duration::from_micros(micros));
        }
    }

    fn slowly<T>(&self, work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        self.dawdle();
        let done = work(&mut self.bytes.lock().unwrap());
        self.dawdle();
        done
    }
}

impl Image for SlowImage {
    fn size(&self) -> u64 {
        SIZE
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            read_only: false,
            unmap: false,
            write_zeroes: false,
            unmap_granularity: 512,
            never_waits: false,
            direct: true,
            volatile: false,
        }
    }

    fn read(&self, offset: u64, len: u64, buf: &mut IoBuf, at: u64) -> Result<(), BackingError> {
        let range = offset as usize..(offset + len) as usize;
        let n = self.slowly(|bytes| buf.write_at(at, &bytes[range]));
        if n as u64 == len { Ok(()) } else { Err(BackingError::ReadFailed) }
    }

    fn write(&self, offset: u64, len: u64, buf: &IoBuf, at: u64, _fua: bool) -> Result<(), BackingError> {
        let range = offset as usize..(offset + len) as usize;
        let n = self.slowly(|bytes| buf.read_at(at, &mut bytes[range]));
        if n as u64 == len { Ok(()) } else { Err(BackingError::WriteFailed) }
    }

    fn read_bytes(&self, offset: u64, dst: &mut [u8]) -> Result<(), BackingError> {
        self.slowly(|bytes| dst.copy_from_slice(&bytes[offset as usize..offset as usize + dst.len()]));
        Ok(())
    }

    fn write_bytes(&self, offset: u64, src: &[u8]) -> Result<(), BackingError> {
        self.slowly(|bytes| bytes[offset as usize..offset as usize + src.len()].copy_from_slice(src));
        Ok(())
    }

    fn flush(&self) -> Result<(), BackingError> {
        self.dawdle();
        Ok(())
    }

    fn unmap(&self, _offset: u64, _len: u64) -> Result<(), BackingError> {
        Err(BackingError::Unsupported)
    }

    fn write_zeroes(&self, _offset: u64, _len: u64, _unmap: bool) -> Result<(), BackingError> {
        Err(BackingError::Unsupported)
    }

    fn raw(&self) -> Option<&RawFile> {
        None
    }
}

//! An image in memory that logs what is done to it, for hosts without FUSE and for what FUSE cannot do: writes that are never torn, operations that
//! run at the same time and take their time.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, dead_code, reason = "test code")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vstgt::backing::{AtomicUnit, BackingError, Capabilities, Image, RawFile};
use vstgt::mem::IoBuf;

use crate::write_log::medium::mix;
use crate::write_log::{Record, WriteLog};

/// The file's number in the log.
pub const FILE: u64 = 1;

/// How an image lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// It does not.
    None,
    /// A flush does nothing.
    Flush,
    /// FUA is not heeded.
    Fua,
    /// A flush covers only what was written a moment before: it begins too early.
    StaleFlush,
}

pub struct LoggedImage {
    bytes: Mutex<Vec<u8>>,
    size: u64,
    log: WriteLog,
    lie: Lie,
    operations: AtomicU64,
}

impl std::fmt::Debug for LoggedImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoggedImage").finish_non_exhaustive()
    }
}

impl LoggedImage {
    /// Of zeros.
    pub fn new(size: u64, log: WriteLog, lie: Lie) -> LoggedImage {
        LoggedImage { bytes: Mutex::new(vec![0; size as usize]), size, log, lie, operations: AtomicU64::new(0) }
    }

    /// Takes a while, so that operations overlap.
    fn take_a_while(&self) {
        let number = self.operations.fetch_add(1, Ordering::Relaxed);
        let micros = mix(0x70_77_72, number) % 400;
        if micros > 100 {
            std::thread::sleep(Duration::from_micros(micros - 100));
        }
    }

    /// Stores and logs; the log is in the order in which things were stored.
    fn store(&self, offset: u64, data: Vec<u8>, synced: bool, atomic: bool) -> Result<(), BackingError> {
        self.take_a_while();
        let (from, to) = (offset as usize, offset as usize + data.len());
        let mut bytes = self.bytes.lock().unwrap();
        bytes.get_mut(from..to).ok_or(BackingError::OutOfRange)?.copy_from_slice(&data);
        let synced = synced && self.lie != Lie::Fua;
        self.log.push(Record::Write { file: FILE, offset, data, synced, atomic });
        drop(bytes);
        self.take_a_while();
        Ok(())
    }

    fn clear(&self, offset: u64, len: u64) -> Result<(), BackingError> {
        self.take_a_while();
        let mut bytes = self.bytes.lock().unwrap();
        bytes.get_mut(offset as usize..(offset + len) as usize).ok_or(BackingError::OutOfRange)?.fill(0);
        self.log.push(Record::Clear { file: FILE, offset, len });
        Ok(())
    }
}

impl Image for LoggedImage {
    fn size(&self) -> u64 {
        self.size
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            read_only: false,
            unmap: true,
            write_zeroes: true,
            unmap_granularity: 4096,
            never_waits: false,
            direct: true,
            volatile: false,
        }
    }

    fn read(&self, offset: u64, len: u64, buf: &mut IoBuf, at: u64) -> Result<(), BackingError> {
        let mut bytes = vec![0; len as usize];
        self.read_bytes(offset, &mut bytes)?;
        if buf.write_at(at, &bytes) as u64 == len { Ok(()) } else { Err(BackingError::ReadFailed) }
    }

    fn write(&self, offset: u64, len: u64, buf: &IoBuf, at: u64, fua: bool) -> Result<(), BackingError> {
        let mut data = vec![0; len as usize];
        if buf.read_at(at, &mut data) as u64 != len {
            return Err(BackingError::WriteFailed);
        }
        self.store(offset, data, fua, false)
    }

    fn read_bytes(&self, offset: u64, dst: &mut [u8]) -> Result<(), BackingError> {
        let bytes = self.bytes.lock().unwrap();
        let from = offset as usize;
        dst.copy_from_slice(bytes.get(from..from + dst.len()).ok_or(BackingError::OutOfRange)?);
        Ok(())
    }

    fn write_bytes(&self, offset: u64, src: &[u8]) -> Result<(), BackingError> {
        self.store(offset, src.to_vec(), false, false)
    }

    fn flush(&self) -> Result<(), BackingError> {
        let covers = match self.lie {
            Lie::Flush => return Ok(()),
            Lie::StaleFlush => self.log.len().saturating_sub(20),
            Lie::None | Lie::Fua => self.log.len(),
        };
        self.take_a_while();
        self.log.push(Record::Sync { file: FILE, covers });
        Ok(())
    }

    fn unmap(&self, offset: u64, len: u64) -> Result<(), BackingError> {
        self.clear(offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64, _unmap: bool) -> Result<(), BackingError> {
        self.clear(offset, len)
    }

    fn atomic_unit(&self) -> Option<AtomicUnit> {
        Some(AtomicUnit { min: 4096, max: 65536 })
    }

    fn write_atomic(&self, offset: u64, src: &[u8], fua: bool) -> Result<(), BackingError> {
        self.store(offset, src.to_vec(), fua, true)
    }

    fn raw(&self) -> Option<&RawFile> {
        None
    }
}

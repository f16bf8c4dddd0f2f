//! An image in memory, as large as one likes, that writes down what was changed.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use vstgt::backing::{AtomicUnit, BackingError, Capabilities, Image, RawFile, Run, Space};
use vstgt::mem::IoBuf;

const PAGE: u64 = 4096;

/// How many bytes may be moved for one input, and how many kept: then the image fails. What takes for ever on a disk of this size must
/// end when the disk fails.
const BUDGET: u64 = 16 << 20;
const PAGES: usize = 2048;

/// See the module.
#[derive(Debug)]
pub struct SparseImage {
    state: Mutex<State>,
    size: AtomicU64,
    resized: AtomicU64,
    thin: bool,
}

#[derive(Debug)]
struct State {
    pages: HashMap<u64, Box<[u8; PAGE as usize]>>,
    changed: Vec<Range<u64>>,
    budget: u64,
    fails: Option<BackingError>,
}

impl SparseImage {
    /// `size` bytes of zeros.
    pub fn new(size: u64, thin: bool) -> SparseImage {
        let state = State { pages: HashMap::new(), changed: Vec::new(), budget: BUDGET, fails: None };
        SparseImage { state: Mutex::new(state), size: AtomicU64::new(size), resized: AtomicU64::new(size), thin }
    }

    /// The next call fails so.
    pub fn fail_next(&self, error: BackingError) {
        self.lock().fails = Some(error);
    }

    /// Somebody makes the file larger or smaller.
    pub fn resize(&self, size: u64) {
        self.resized.store(size, Ordering::Relaxed);
    }

    /// What was changed since this was asked last.
    pub fn take_changes(&self) -> Vec<Range<u64>> {
        std::mem::take(&mut self.lock().changed)
    }

    /// The bytes there; no call.
    pub fn peek(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.lock().copy_out(offset, &mut bytes);
        bytes
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic before")
    }

    fn begin(
        &self,
        offset: u64,
        len: u64,
        cost: u64,
        error: BackingError,
    ) -> Result<MutexGuard<'_, State>, BackingError> {
        let end = offset.checked_add(len).ok_or(BackingError::OutOfRange)?;
        if end > self.size() || end > self.resized.load(Ordering::Relaxed) {
            return Err(BackingError::OutOfRange);
        }
        let mut state = self.lock();
        if let Some(error) = state.fails.take() {
            return Err(error);
        }
        state.budget = state.budget.checked_sub(cost + 512).ok_or(error)?;
        Ok(state)
    }
}

impl State {
    fn copy_out(&self, mut offset: u64, mut dst: &mut [u8]) {
        while !dst.is_empty() {
            let (page, at) = (offset / PAGE, (offset % PAGE) as usize);
            let take = dst.len().min(PAGE as usize - at);
            let (now, later) = std::mem::take(&mut dst).split_at_mut(take);
            match self.pages.get(&page) {
                Some(bytes) => now.copy_from_slice(&bytes[at..at + take]),
                None => now.fill(0),
            }
            (dst, offset) = (later, offset + take as u64);
        }
    }

    fn copy_in(&mut self, mut offset: u64, mut src: &[u8]) -> Result<(), BackingError> {
        self.changed.push(offset..offset + src.len() as u64);
        while !src.is_empty() {
            let (page, at) = (offset / PAGE, (offset % PAGE) as usize);
            let (now, later) = src.split_at(src.len().min(PAGE as usize - at));
            if !self.pages.contains_key(&page) && self.pages.len() >= PAGES {
                return Err(BackingError::NoSpace);
            }
            self.pages.entry(page).or_insert_with(|| Box::new([0; PAGE as usize]))[at..at + now.len()]
                .copy_from_slice(now);
            (src, offset) = (later, offset + now.len() as u64);
        }
        Ok(())
    }

    fn zero(&mut self, range: Range<u64>) {
        self.changed.push(range.clone());
        for (page, bytes) in &mut self.pages {
            let start = page * PAGE;
            let (from, to) = (range.start.max(start), range.end.min(start + PAGE));
            if from < to {
                bytes[(from - start) as usize..(to - start) as usize].fill(0);
            }
        }
    }
}

impl Image for SparseImage {
    fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    fn refresh_size(&self, block: u32) -> Result<u64, BackingError> {
        let size = self.resized.load(Ordering::Relaxed);
        let whole = size - size % u64::from(block);
        if whole > 0 {
            self.size.store(whole, Ordering::Relaxed);
        }
        Ok(self.size())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            read_only: false,
            unmap: self.thin,
            write_zeroes: self.thin,
            unmap_granularity: PAGE as u32,
            never_waits: true,
            direct: false,
            volatile: false,
        }
    }

    fn read(&self, offset: u64, len: u64, buf: &mut IoBuf, at: u64) -> Result<(), BackingError> {
        let state = self.begin(offset, len, len, BackingError::ReadFailed)?;
        let mut bytes = vec![0; len as usize];
        state.copy_out(offset, &mut bytes);
        assert_eq!(buf.write_at(at, &bytes) as u64, len, "read past the buffer");
        Ok(())
    }

    fn write(&self, offset: u64, len: u64, buf: &IoBuf, at: u64, _fua: bool) -> Result<(), BackingError> {
        let mut state = self.begin(offset, len, len, BackingError::WriteFailed)?;
        let mut bytes = vec![0; len as usize];
        assert_eq!(buf.read_at(at, &mut bytes) as u64, len, "write past the buffer");
        state.copy_in(offset, &bytes)
    }

    fn read_bytes(&self, offset: u64, dst: &mut [u8]) -> Result<(), BackingError> {
        let len = dst.len() as u64;
        self.begin(offset, len, len, BackingError::ReadFailed)?.copy_out(offset, dst);
        Ok(())
    }

    fn write_bytes(&self, offset: u64, src: &[u8]) -> Result<(), BackingError> {
        let len = src.len() as u64;
        self.begin(offset, len, len, BackingError::WriteFailed)?.copy_in(offset, src)
    }

    fn flush(&self) -> Result<(), BackingError> {
        self.begin(0, 0, 0, BackingError::FlushFailed).map(drop)
    }

    fn unmap(&self, offset: u64, len: u64) -> Result<(), BackingError> {
        assert!(self.thin, "it cannot be deallocated");
        self.begin(offset, len, 0, BackingError::WriteFailed)?.zero(offset..offset + len);
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, len: u64, _unmap: bool) -> Result<(), BackingError> {
        let cost = if self.thin { 0 } else { len };
        self.begin(offset, len, cost, BackingError::WriteFailed)?.zero(offset..offset + len);
        Ok(())
    }

    fn atomic_unit(&self) -> Option<AtomicUnit> {
        Some(AtomicUnit { min: 512, max: 16384 })
    }

    fn write_atomic(&self, offset: u64, src: &[u8], _fua: bool) -> Result<(), BackingError> {
        let unit = self.atomic_unit().expect("it has one");
        assert!(unit.takes(offset, src.len() as u64), "{offset}+{} may be torn", src.len());
        self.write_bytes(offset, src)
    }

    fn run_at(&self, offset: u64, len: u64) -> Result<Run, BackingError> {
        let state = self.begin(offset, len, 0, BackingError::ReadFailed)?;
        let mapped = state.pages.contains_key(&(offset / PAGE));
        let rest = PAGE - offset % PAGE;
        let next = state.pages.keys().map(|page| page * PAGE).filter(|start| *start > offset).min();
        let run = match (mapped, next) {
            (true, _) => rest,
            (false, Some(next)) => next - offset,
            (false, None) => u64::MAX,
        };
        Ok(Run { mapped, len: run.min(len) })
    }

    fn space(&self) -> Option<Space> {
        let used = self.lock().pages.len() as u64 * PAGE;
        Some(Space { used, available: PAGES as u64 * PAGE - used })
    }

    fn raw(&self) -> Option<&RawFile> {
        None
    }
}

//! An image in memory that remembers what it was asked and fails on demand.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::backing::{AtomicUnit, BackingError, Capabilities, Image, RawFile, Run, Space};
use crate::mem::{IoBuf, testing};

/// What a [`MemImage`] was asked to do, in order; offsets and lengths in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Read(u64, u64),
    Write(u64, u64, bool),
    WriteAtomic(u64, u64, bool),
    Flush,
    Unmap(u64, u64),
    WriteZeroes(u64, u64, bool),
    RunAt(u64, u64),
    RefreshSize,
}

/// An image in memory.
#[derive(Debug)]
pub struct MemImage {
    state: Mutex<State>,
    capabilities: Capabilities,
    atomic: Option<AtomicUnit>,
    hook: Mutex<Option<Hook>>,
    reported: AtomicU64,
}

/// Something to do during a later call.
struct Hook {
    calls_left: u64,
    action: Box<dyn FnOnce() + Send>,
}

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hook in {} calls", self.calls_left)
    }
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    calls: Vec<Call>,
    read_error: Option<(u64, BackingError)>,
    write_error: Option<(u64, BackingError)>,
    flush_error: Option<BackingError>,
    unmap_error: Option<BackingError>,
    size_error: Option<BackingError>,
    /// What the size will turn out to be when it is looked at.
    resized: Option<u64>,
    holes: Vec<std::ops::Range<u64>>,
    space: Option<Space>,
}

impl MemImage {
    /// `len` bytes of zeros, thin, granularity 4096.
    pub fn new(len: usize) -> MemImage {
        MemImage {
            state: Mutex::new(State { bytes: vec![0; len], ..State::default() }),
            capabilities: Capabilities {
                read_only: false,
                unmap: true,
                write_zeroes: true,
                unmap_granularity: 4096,
                never_waits: true,
                direct: false,
                volatile: false,
            },
            atomic: None,
            hook: Mutex::default(),
            reported: AtomicU64::new(len as u64),
        }
    }

    /// Filled with a pattern in which every 16-bit word tells where it is.
    pub fn patterned(len: usize) -> MemImage {
        MemImage::holding(pattern(0, len))
    }

    /// Filled with these bytes.
    pub fn holding(bytes: Vec<u8>) -> MemImage {
        let image = MemImage::new(bytes.len());
        image.state.lock().unwrap().bytes = bytes;
        image
    }

    /// Opened read-only.
    pub fn read_only(mut self) -> MemImage {
        self.capabilities.read_only = true;
        self
    }

    /// Cannot deallocate, nor zero without writing.
    pub fn without_unmap(mut self) -> MemImage {
        self.capabilities.unmap = false;
        self.capabilities.write_zeroes = false;
        self
    }

    /// Writes of these sizes are never torn.
    pub fn with_atomic(mut self, min: u32, max: u32) -> MemImage {
        self.atomic = Some(AtomicUnit { min, max });
        self
    }

    /// Claims a size without having the bytes.
    pub fn claiming(self, len: u64) -> MemImage {
        self.reported.store(len, Ordering::Relaxed);
        self
    }

    /// Reads that touch the byte at `at` fail.
    pub fn fail_reads(&self, at: u64, error: BackingError) {
        self.state.lock().unwrap().read_error = Some((at, error));
    }

    /// Writes (and zeroing) that touch the byte at `at` fail.
    pub fn fail_writes(&self, at: u64, error: BackingError) {
        self.state.lock().unwrap().write_error = Some((at, error));
    }

    /// Flushes fail.
    pub fn fail_flushes(&self, error: BackingError) {
        self.state.lock().unwrap().flush_error = Some(error);
    }

    /// Deallocation fails.
    pub fn fail_unmaps(&self, error: BackingError) {
        self.state.lock().unwrap().unmap_error = Some(error);
    }

    /// Calls on it may wait.
    pub fn waiting(mut self) -> MemImage {
        self.capabilities.never_waits = false;
        self
    }

    /// Becomes larger or smaller; nobody notices before the size is looked at.
    pub fn resize(&self, len: u64) {
        let mut state = self.state.lock().unwrap();
        state.bytes.resize(len as usize, 0);
        state.resized = Some(len);
    }

    /// The size cannot be looked at.
    pub fn fail_size(&self, error: BackingError) {
        self.state.lock().unwrap().size_error = Some(error);
    }

    /// Its map has holes at these bytes, ascending, and tells of each by itself.
    pub fn with_holes(self, holes: &[std::ops::Range<u64>]) -> MemImage {
        self.state.lock().unwrap().holes = holes.to_vec();
        self
    }

    /// Its file system has so much space left, from now on, and it takes so much, in bytes. Before this it does not tell.
    pub fn set_space(&self, used: u64, available: u64) {
        self.state.lock().unwrap().space = Some(Space { used, available });
    }

    /// Runs `action` during the `n`th call from now.
    pub fn at_call(&self, n: u64, action: impl FnOnce() + Send + 'static) {
        *self.hook.lock().unwrap() = Some(Hook { calls_left: n, action: Box::new(action) });
    }

    /// Fills a range with FFh.
    pub fn write_full(&self, offset: usize, len: usize) {
        self.state.lock().unwrap().bytes[offset..offset + len].fill(0xff);
    }

    /// Fills all of it.
    pub fn set_bytes(&self, bytes: &[u8]) {
        self.state.lock().unwrap().bytes.copy_from_slice(bytes);
    }

    /// What is in it.
    pub fn bytes(&self) -> Vec<u8> {
        self.state.lock().unwrap().bytes.clone()
    }

    /// What was asked since the last look.
    pub fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.state.lock().unwrap().calls)
    }

    fn enter(&self, call: Call) -> std::sync::MutexGuard<'_, State> {
        let mut hook = self.hook.lock().unwrap();
        if let Some(due) = hook.as_mut() {
            due.calls_left -= 1;
        }
        if let Some(due) = hook.take_if(|due| due.calls_left == 0) {
            (due.action)();
        }
        let mut state = self.state.lock().unwrap();
        state.calls.push(call);
        state
    }
}

/// Bytes `offset..offset + len` of the pattern.
pub fn pattern(offset: u64, len: usize) -> Vec<u8> {
    (offset..offset + len as u64).map(|at| if at % 2 == 0 { (at / 512) as u8 } else { (at / 2) as u8 }).collect()
}

impl State {
    fn range(&self, offset: u64, len: u64) -> Result<std::ops::Range<usize>, BackingError> {
        let end = offset.checked_add(len).ok_or(BackingError::OutOfRange)?;
        if end > self.bytes.len() as u64 {
            return Err(BackingError::OutOfRange);
        }
        Ok(offset as usize..end as usize)
    }

    fn reads(&self, offset: u64, len: u64) -> Result<std::ops::Range<usize>, BackingError> {
        hit(self.read_error, offset, len)?;
        self.range(offset, len)
    }

    fn writes(&self, offset: u64, len: u64) -> Result<std::ops::Range<usize>, BackingError> {
        hit(self.write_error, offset, len)?;
        self.range(offset, len)
    }
}

fn hit(error: Option<(u64, BackingError)>, offset: u64, len: u64) -> Result<(), BackingError> {
    match error {
        Some((at, error)) if (offset..offset + len).contains(&at) => Err(error),
        _ => Ok(()),
    }
}

impl Image for MemImage {
    fn size(&self) -> u64 {
        self.reported.load(Ordering::Relaxed)
    }

    fn refresh_size(&self, block: u32) -> Result<u64, BackingError> {
        let mut state = self.enter(Call::RefreshSize);
        state.size_error.map_or(Ok(()), Err)?;
        if let Some(size) = state.resized.take() {
            self.reported.store(size - size % u64::from(block), Ordering::Relaxed);
        }
        Ok(self.size())
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn read(&self, offset: u64, len: u64, buf: &mut IoBuf, at: u64) -> Result<(), BackingError> {
        let state = self.enter(Call::Read(offset, len));
        let range = state.reads(offset, len)?;
        assert_eq!(buf.write_at(at, &state.bytes[range]) as u64, len, "read past the buffer");
        Ok(())
    }

    fn write(&self, offset: u64, len: u64, buf: &IoBuf, at: u64, fua: bool) -> Result<(), BackingError> {
        let mut state = self.enter(Call::Write(offset, len, fua));
        let range = state.writes(offset, len)?;
        let mut data = vec![0; len as usize];
        assert_eq!(buf.read_at(at, &mut data) as u64, len, "write past the buffer");
        // Sector by sector, as far as this process lives.
        let sectors = state.bytes[range].chunks_mut(512).zip(data.chunks(512));
        sectors.filter(|_| !testing::is_dead()).for_each(|(to, from)| to.copy_from_slice(from));
        Ok(())
    }

    fn read_bytes(&self, offset: u64, dst: &mut [u8]) -> Result<(), BackingError> {
        let state = self.enter(Call::Read(offset, dst.len() as u64));
        let range = state.reads(offset, dst.len() as u64)?;
        dst.copy_from_slice(&state.bytes[range]);
        Ok(())
    }

    fn write_bytes(&self, offset: u64, src: &[u8]) -> Result<(), BackingError> {
        let mut state = self.enter(Call::Write(offset, src.len() as u64, false));
        let range = state.writes(offset, src.len() as u64)?;
        state.bytes[range].copy_from_slice(src);
        Ok(())
    }

    fn flush(&self) -> Result<(), BackingError> {
        let state = self.enter(Call::Flush);
        state.flush_error.map_or(Ok(()), Err)
    }

    fn unmap(&self, offset: u64, len: u64) -> Result<(), BackingError> {
        let mut state = self.enter(Call::Unmap(offset, len));
        state.unmap_error.map_or(Ok(()), Err)?;
        let range = state.writes(offset, len)?;
        state.bytes[range].fill(0);
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> Result<(), BackingError> {
        let mut state = self.enter(Call::WriteZeroes(offset, len, unmap));
        let range = state.writes(offset, len)?;
        state.bytes[range].fill(0);
        Ok(())
    }

    fn atomic_unit(&self) -> Option<AtomicUnit> {
        self.atomic
    }

    fn write_atomic(&self, offset: u64, src: &[u8], fua: bool) -> Result<(), BackingError> {
        let len = src.len() as u64;
        let mut state = self.enter(Call::WriteAtomic(offset, len, fua));
        assert!(self.atomic.unwrap().takes(offset, len), "{offset} {len}");
        let range = state.writes(offset, len)?;
        state.bytes[range].copy_from_slice(src);
        Ok(())
    }

    fn run_at(&self, offset: u64, len: u64) -> Result<Run, BackingError> {
        let state = self.enter(Call::RunAt(offset, len));
        hit(state.read_error, offset, 1)?;
        match state.holes.iter().find(|hole| hole.end > offset) {
            Some(hole) if hole.start <= offset => Ok(Run { mapped: false, len: len.min(hole.end - offset) }),
            Some(hole) => Ok(Run { mapped: true, len: len.min(hole.start - offset) }),
            None => Ok(Run { mapped: true, len }),
        }
    }

    fn space(&self) -> Option<Space> {
        self.state.lock().unwrap().space
    }

    fn raw(&self) -> Option<&RawFile> {
        None
    }
}

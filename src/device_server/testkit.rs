//! For tests: an image in memory that fails on demand, and an executor that runs a plan to its end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::{AbortFlag, Answer, Plan, Request, io_done, start};
use crate::backing::{BackingError, Capabilities, Image, Op, OpKind, RawFile};
use crate::lu::{Itl, Lu, LuSetup};
use crate::mem::{Direction, IoBuf};
use crate::scsi::{Sense, Status};

/// What a [`MemImage`] was asked to do, in order; offsets and lengths in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named after the methods of Image")]
pub enum Call {
    Read(u64, u64),
    Write(u64, u64, bool),
    Flush,
    Unmap(u64, u64),
    WriteZeroes(u64, u64, bool),
}

/// An image in memory.
#[derive(Debug)]
pub struct MemImage {
    state: Mutex<State>,
    capabilities: Capabilities,
    /// Aborts this flag's job after so many more calls.
    abort: Mutex<Option<(AbortFlag, u64)>>,
    reported: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    calls: Vec<Call>,
    read_error: Option<(u64, BackingError)>,
    write_error: Option<(u64, BackingError)>,
    flush_error: Option<BackingError>,
    unmap_error: Option<BackingError>,
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
            },
            abort: Mutex::default(),
            reported: AtomicU64::new(len as u64),
        }
    }

    /// Filled with a pattern in which every 16-bit word tells where it is.
    pub fn patterned(len: usize) -> MemImage {
        let image = MemImage::new(len);
        image.state.lock().unwrap().bytes = pattern(0, len);
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

    /// Raises `flag` during the `n`th call from now.
    pub fn abort_after(&self, n: u64, flag: AbortFlag) {
        *self.abort.lock().unwrap() = Some((flag, n));
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
        let mut abort = self.abort.lock().unwrap();
        if let Some((flag, left)) = abort.as_mut() {
            *left = left.saturating_sub(1);
            if *left == 0 {
                flag.raise();
            }
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
        assert_eq!(buf.read_at(at, &mut state.bytes[range]) as u64, len, "write past the buffer");
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

    fn raw(&self) -> Option<&RawFile> {
        None
    }
}

/// One nexus on one unit on one [`MemImage`].
pub struct Bench {
    /// The image.
    pub image: Arc<MemImage>,
    /// The nexus's unit.
    pub itl: Arc<Itl>,
    /// What REPORT LUNS is to show.
    pub luns: Vec<u16>,
}

/// What became of a command.
#[derive(Debug)]
pub struct Ran {
    /// Its answer.
    pub answer: Answer,
    /// Its data buffer afterwards, whole.
    pub data: Vec<u8>,
}

impl Bench {
    /// A unit as [`LuSetup::new`] makes it, no unit attention pending.
    pub fn new(image: MemImage) -> Bench {
        Bench::with(image, |_| ())
    }

    /// The same after a change to its set-up.
    pub fn with(image: MemImage, change: impl FnOnce(&mut LuSetup)) -> Bench {
        let image = Arc::new(image);
        let mut setup = LuSetup::new(image.clone(), 0x3123_4567_89ab_cdef, "SERIAL01".into());
        change(&mut setup);
        let itl = Itl::new(Lu::new(setup).unwrap(), None);
        Bench { image, itl, luns: vec![0] }
    }

    /// Runs a command without data.
    pub fn none(&self, cdb: &[u8]) -> Answer {
        self.run(cdb, IoBuf::empty()).answer
    }

    /// Runs a command with a Data-In buffer of `len` bytes, filled with EEh.
    pub fn data_in(&self, cdb: &[u8], len: usize) -> Ran {
        let mut buf = IoBuf::owned(len, Direction::In);
        buf.write_at(0, &vec![0xee; len]);
        self.run(cdb, buf)
    }

    /// Runs a command with a Data-Out buffer.
    pub fn data_out(&self, cdb: &[u8], data: &[u8]) -> Answer {
        self.run(cdb, out_buf(data)).answer
    }

    /// Plans a command and runs the plan to its end.
    pub fn run(&self, cdb: &[u8], buf: IoBuf) -> Ran {
        self.run_with(cdb, buf, &AbortFlag::default())
    }

    /// The same with an abort flag that somebody else holds.
    pub fn run_with(&self, cdb: &[u8], mut buf: IoBuf, abort: &AbortFlag) -> Ran {
        let plan = self.plan(cdb, &mut buf);
        let answer = execute(plan, &mut buf, abort);
        Ran { answer, data: contents(&buf) }
    }

    /// Plans a command.
    pub fn plan(&self, cdb: &[u8], buf: &mut IoBuf) -> Plan {
        start(&Request { cdb, itl: Some(&self.itl), luns: &self.luns, well_known: false }, buf)
    }
}

/// Runs a plan to its end, as a target with a simple engine would.
pub fn execute(plan: Plan, buf: &mut IoBuf, abort: &AbortFlag) -> Answer {
    match plan {
        Plan::Done(answer) => answer,
        Plan::Io(io) => {
            let Op { kind, offset, len } = io.op;
            let result = match kind {
                OpKind::Read => {
                    assert_eq!(buf.direction(), Direction::In);
                    io.image.read(offset, len, buf, 0)
                }
                OpKind::Write { fua } => {
                    assert_eq!(buf.direction(), Direction::Out);
                    io.image.write(offset, len, buf, 0, fua)
                }
                OpKind::Flush => io.image.flush(),
                OpKind::Unmap => io.image.unmap(offset, len),
                OpKind::WriteZeroes { unmap } => io.image.write_zeroes(offset, len, unmap),
            };
            io_done(io.finish, result)
        }
        Plan::Job(job) => (job.run)(buf, abort),
    }
}

/// A Data-Out buffer that holds `data`.
pub fn out_buf(data: &[u8]) -> IoBuf {
    let mut buf = IoBuf::owned(data.len(), Direction::Out);
    buf.write_at(0, data);
    buf
}

/// The bytes of a buffer.
pub fn contents(buf: &IoBuf) -> Vec<u8> {
    let mut data = vec![0; buf.len() as usize];
    buf.read_at(0, &mut data);
    data
}

/// GOOD, having moved `transferred` bytes.
pub fn good(transferred: u64) -> Answer {
    Answer { status: Status::Good, sense: None, transferred }
}

/// CHECK CONDITION with `sense`, having moved nothing.
pub fn check(sense: Sense) -> Answer {
    Answer { status: Status::CheckCondition, sense: Some(sense), transferred: 0 }
}

//! The work itself.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use crate::backing::BackingError;
use crate::device_server::outcome::sense;
use crate::device_server::sbc::pieces::STEP;
use crate::lu::{Lu, Method, Occupation, Pattern, Stage};
use crate::scsi::Sense;

/// How often it is written down how far the work is: each time costs a flush.
const CHECKPOINT: Duration = Duration::from_secs(5);

/// How long to wait before what could not be written down is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Who hears how it ended. Without a word: the process ends first.
type Ended = Option<Sender<Result<(), Sense>>>;

/// Goes on with what the process before this one did to a unit's whole medium, if it was not through.
pub fn go_on(lu: &Arc<Lu>) {
    if lu.occupation().is_some_and(|occupation| matches!(occupation.stage, Stage::Running { .. })) {
        log::info!("{}: goes on to erase the medium", lu.identity().serial);
        if let Err(sense) = start(lu, None) {
            log::warn!("{}: it is not erased now: {sense:?}", lu.identity().serial);
        }
    }
}

/// Begins the work, or goes on with it.
///
/// # Errors
///
/// It cannot be done now: sense data. If the process ends, the next one does it.
pub(super) fn start(lu: &Arc<Lu>, ended: Ended) -> Result<(), Sense> {
    let unit = Arc::clone(lu);
    let work = move || run(&unit, ended);
    lu.background().start(Box::new(work)).map_err(|e| {
        if !lu.background().stopping() {
            log::error!("{}: nothing can erase the medium: {e}", lu.identity().serial);
            lu.fail_occupation();
        }
        lu.occupied_sense()
    })
}

/// Why the work stopped before it was through.
enum Stopped {
    /// The process ends.
    ProcessEnds,
    /// The image failed, with the byte offset of the step.
    Failed(BackingError, u64),
}

fn run(lu: &Lu, ended: Ended) {
    let Some(Occupation { erasure, stage: Stage::Running { done, len } }) = lu.occupation() else { return };
    let mut pass = Passes::new(lu, &erasure.method, erasure.passes(), done, len);
    let result = match pass.run() {
        Err(Stopped::ProcessEnds) => return,
        Err(Stopped::Failed(error, offset)) => {
            let lba = lu.geometry().lba_of(offset);
            log::error!("{}: erasing the medium failed at block {lba}: {error}", lu.identity().serial);
            lu.count_error(&sense(error, lba), false);
            false
        }
        Ok(()) => true,
    };
    // Not before the end is kept: a process that is killed now is followed by one that erases again.
    while let Err(e) = lu.end_occupation(result) {
        log::warn!("{}: the end of erasing the medium cannot be kept: {e}", lu.identity().serial);
        if !pause(lu) {
            return;
        }
    }
    if let Some(ended) = ended
        && ended.send(if result { Ok(()) } else { Err(lu.occupied_sense()) }).is_err()
    {
        log::debug!("{}: erased, and the command that asked for it was ended", lu.identity().serial);
    }
}

/// Waits a while; false if the process ends.
fn pause(lu: &Lu) -> bool {
    let until = Instant::now() + RETRY;
    while Instant::now() < until {
        if lu.background().stopping() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

/// All passes over the medium.
struct Passes<'a> {
    lu: &'a Lu,
    method: &'a Method,
    passes: u8,
    /// Bytes of one pass.
    len: u64,
    /// Bytes done, of all passes together.
    done: u64,
    /// When it was written down last.
    kept: Instant,
}

impl<'a> Passes<'a> {
    /// Goes on at `done` of passes of `then` bytes each, if they still have so many.
    fn new(lu: &'a Lu, method: &'a Method, passes: u8, done: u64, then: u64) -> Passes<'a> {
        let geometry = lu.geometry();
        let block = u64::from(geometry.block_size);
        let len = geometry.blocks.saturating_mul(block);
        let done = if then == len { done - done % block } else { 0 };
        Passes { lu, method, passes, len, done, kept: Instant::now() }
    }

    fn total(&self) -> u64 {
        self.len.saturating_mul(u64::from(self.passes))
    }

    fn run(&mut self) -> Result<(), Stopped> {
        if self.len == 0 {
            // The image is empty since the process before this one ended: what was to be erased is not here.
            return Err(Stopped::Failed(BackingError::OutOfRange, 0));
        }
        let mut written = (u64::MAX, Vec::new());
        while self.done < self.total() {
            self.lu.set_progress(self.done, self.total());
            if self.lu.background().stopping() {
                // What was done since the last time is done again: a flush could take longer than anybody waits for the process to end.
                return Err(Stopped::ProcessEnds);
            }
            if self.kept.elapsed() >= CHECKPOINT {
                self.keep()?;
            }
            let (pass, offset) = (self.done / self.len, self.done % self.len);
            let step = STEP.min(self.len - offset);
            let stepped = match self.method {
                Method::Zero => self.zero(offset, step),
                Method::Pattern(pattern) => {
                    if written.0 != pass {
                        written = (pass, self.content(pattern, pass));
                    }
                    let bytes = written.1.get(..step as usize).unwrap_or_default();
                    self.lu.image().write_bytes(offset, bytes).map(|()| step)
                }
            };
            self.done += stepped.map_err(|error| Stopped::Failed(error, offset))?;
            if self.done.is_multiple_of(self.len) {
                // Of two passes that the page cache holds only the second would reach the medium.
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Zeroes a step, or passes over a hole; returns how many bytes are zeros now.
    fn zero(&self, offset: u64, step: u64) -> Result<u64, BackingError> {
        let image = self.lu.image();
        if self.lu.thin() {
            let run = image.run_at(offset, self.len - offset)?;
            if !run.mapped && run.len > 0 {
                return Ok(run.len.min(self.len - offset));
            }
            return image.unmap(offset, step).map(|()| step);
        }
        if image.capabilities().write_zeroes {
            return image.write_zeroes(offset, step, false).map(|()| step);
        }
        image.write_bytes(offset, &vec![0; step as usize]).map(|()| step)
    }

    /// What a step of a pass writes.
    fn content(&self, pattern: &Pattern, pass: u64) -> Vec<u8> {
        let inverted = pattern.invert && (u64::from(self.passes) - 1 - pass) % 2 == 1;
        let block = self.lu.geometry().block_size as usize;
        let bytes = pattern.bytes.iter().map(|byte| if inverted { !byte } else { *byte });
        let block: Vec<u8> = bytes.cycle().take(block).collect();
        block.repeat(STEP.min(self.len) as usize / block.len())
    }

    fn flush(&self) -> Result<(), Stopped> {
        let offset = self.done.saturating_sub(1) % self.len;
        self.lu.image().flush().map_err(|error| Stopped::Failed(error, offset))
    }

    /// Writes down how far it is, which is durable then.
    fn keep(&mut self) -> Result<(), Stopped> {
        self.flush()?;
        self.lu.checkpoint(self.done, self.len);
        self.kept = Instant::now();
        Ok(())
    }
}

//! An image that is copied from and to through a mapping: no system call moves its data.
//!
//! Only where a page fault cannot wait for a device: on tmpfs. And only where the file holds data: reading a hole through a mapping
//! would give it a page, and writing one could find no memory left, which is a signal and not an error. So the file is
//! divided into chunks, and a chunk goes through the mapping once it was found to be data throughout, and in memory, not in swap. It is looked at seldom while it is not.
//! A look asks the kernel for that chunk alone: to ask for the next hole would make it go through all of the file behind.
//!
//! The mapping is a shorter way to the same bytes, never the only one: whatever it does not have goes through the file's calls,
//! which also say what is wrong. One thing it cannot have: a file that was truncated *inside* a page ends at that page's end for a
//! mapping. So the mapping is given up as soon as the file is seen to be shorter, by a fault behind that page or by whoever looks at its
//! size; until then those bytes read as zeros.

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use crate::mem::{FileWindow, IoBuf};
use crate::sys::file;

/// The smallest chunk.
const CHUNK: u64 = 64 << 10;

/// The most chunks of an image: so many bytes are spent on it.
const CHUNKS_MAX: u64 = 256 << 10;

/// The largest image: one whose page tables alone would take much memory is no image on tmpfs.
const SIZE_MAX: u64 = 16 << 40;

/// A chunk that is data throughout. Below it, the number of times it was asked for in vain.
const DATA: u8 = u8::MAX;

/// A file's mapping, and where it may be used.
#[derive(Debug)]
pub(super) struct Mapped {
    window: FileWindow,
    /// Bytes of a chunk, a power of two.
    chunk: u64,
    size: u64,
    chunks: Box<[AtomicU8]>,
    /// Counts changes from data to hole, twice each: before and after.
    holes: AtomicU64,
    given_up: AtomicBool,
}

impl Mapped {
    /// The mapping of a file of `size` bytes; `None` if it cannot be had, for it is only a shorter way.
    pub(super) fn new(file: &File, size: u64, writable: bool) -> Option<Mapped> {
        if size > SIZE_MAX {
            return None;
        }
        if !file::tells_residence(file).unwrap_or(false) {
            log::info!(
                "an image on tmpfs is not mapped: it belongs to another user, so the kernel does not say where it has holes"
            );
            return None;
        }
        let window = FileWindow::map(file, size, writable).inspect_err(|e| log::warn!("not mapped: {e}")).ok()?;
        let chunk = size.div_ceil(CHUNKS_MAX).next_power_of_two().max(CHUNK);
        let chunks = (0..size.div_ceil(chunk)).map(|_| AtomicU8::new(0)).collect();
        Some(Mapped { window, chunk, size, chunks, holes: AtomicU64::new(0), given_up: AtomicBool::new(false) })
    }

    /// Reads into `buf` from its byte `at` on; false if this is not the way.
    pub(super) fn read(&self, file: &File, offset: u64, len: u64, buf: &mut IoBuf, at: u64) -> bool {
        self.is_data(file, offset, len) && self.window.read(offset, len, buf, at).is_ok()
    }

    /// Writes from `buf` from its byte `at` on; false if this is not the way, and then any part may have been written.
    pub(super) fn write(&self, file: &File, offset: u64, len: u64, buf: &IoBuf, at: u64) -> bool {
        self.is_data(file, offset, len) && self.window.write(offset, len, buf, at).is_ok()
    }

    /// To be held while data of this range become a hole.
    pub(super) fn punching(&self, offset: u64, len: u64) -> Punching<'_> {
        let punching = Punching { mapped: self, offset, len };
        punching.mark();
        punching
    }

    /// The file has turned out to be `size` bytes long. If that is less than what is mapped, the mapping is not used any more.
    pub(super) fn seen(&self, size: u64) {
        if size < self.size && !self.given_up.swap(true, Ordering::Relaxed) {
            log::warn!(
                "an image is {size} bytes long and was {} when it was mapped; its mapping is not used any more",
                self.size
            );
        }
    }

    fn is_data(&self, file: &File, offset: u64, len: u64) -> bool {
        let usable = self.window.has(offset, len) && !self.given_up.load(Ordering::Relaxed);
        usable && self.range(offset, len).all(|index| self.chunk_is_data(file, index))
    }

    /// The numbers of the chunks that a range is in.
    fn range(&self, offset: u64, len: u64) -> impl Iterator<Item = u64> {
        let end = offset.saturating_add(len).min(self.size);
        offset / self.chunk..end.div_ceil(self.chunk)
    }

    #[inline]
    fn chunk_is_data(&self, file: &File, index: u64) -> bool {
        let Some(chunk) = self.chunks.get(index as usize) else { return false };
        let seen = chunk.load(Ordering::Relaxed);
        seen == DATA || self.look(file, index, chunk, seen)
    }

    /// Looks at every chunk that is asked for the 1st, 2nd, 4th, ... time, and then each 128th: a sparse image must not cost a look for each of its commands.
    #[cold]
    fn look(&self, file: &File, index: u64, chunk: &AtomicU8, seen: u8) -> bool {
        let count = if seen == DATA - 1 { DATA / 2 } else { seen + 1 };
        chunk.store(count, Ordering::Relaxed);
        if !count.is_power_of_two() {
            return false;
        }
        let holes = self.holes.load(Ordering::Acquire);
        let start = index * self.chunk;
        let len = self.chunk.min(self.size - start);
        if !self.window.is_resident(start, len).unwrap_or(false) {
            if file::size(file).is_ok_and(|size| size < self.size) {
                self.seen(start);
            }
            return false;
        }
        chunk.store(DATA, Ordering::SeqCst);
        if self.holes.load(Ordering::SeqCst) != holes {
            // It may have become a hole since; whoever made it one may have marked it before we did.
            chunk.store(0, Ordering::Relaxed);
            return false;
        }
        self.window.populate(start, len);
        true
    }
}

/// Data of a range become a hole while this lives.
pub(super) struct Punching<'a> {
    mapped: &'a Mapped,
    offset: u64,
    len: u64,
}

impl Punching<'_> {
    fn mark(&self) {
        self.mapped.holes.fetch_add(1, Ordering::SeqCst);
        for index in self.mapped.range(self.offset, self.len) {
            if let Some(chunk) = self.mapped.chunks.get(index as usize) {
                chunk.store(0, Ordering::SeqCst);
            }
        }
    }
}

impl Drop for Punching<'_> {
    fn drop(&mut self) {
        self.mark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Direction;
    use std::os::unix::fs::{FileExt, MetadataExt};

    const SIZE: u64 = 1 << 20;

    fn sparse() -> (File, Mapped) {
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        file.set_len(SIZE).unwrap();
        let mapped = Mapped::new(&file, SIZE, true).unwrap();
        (file, mapped)
    }

    fn reads(mapped: &Mapped, file: &File, offset: u64, len: u64) -> bool {
        mapped.read(file, offset, len, &mut IoBuf::owned(len as usize, Direction::In), 0)
    }

    /// Reading a sparse image takes no memory, however often.
    #[test]
    fn holes_stay_holes() {
        let (file, mapped) = sparse();
        let buf = IoBuf::owned(4096, Direction::Out);
        for round in 0..1000 {
            assert!(!reads(&mapped, &file, round % 256 * 4096, 4096));
            assert!(!mapped.write(&file, round % 256 * 4096, 4096, &buf, 0));
        }
        assert_eq!(file.metadata().unwrap().blocks(), 0);
    }

    #[test]
    fn a_chunk_of_data_is_found_before_long_and_a_punched_one_is_left() {
        let (file, mapped) = sparse();
        assert!(!reads(&mapped, &file, 3 * CHUNK, 4096));
        file.write_all_at(&vec![7; 2 * CHUNK as usize], 3 * CHUNK).unwrap();
        let tries = (0..200).take_while(|_| !reads(&mapped, &file, 3 * CHUNK, 4096)).count();
        assert!(tries < 128, "{tries}");
        assert!(!reads(&mapped, &file, 5 * CHUNK, 1), "a hole");
        assert!((0..200).any(|_| reads(&mapped, &file, 4 * CHUNK - 10, 20)), "across chunks of data");
        assert!(!reads(&mapped, &file, 5 * CHUNK - 10, 20), "across data and a hole");

        let punching = mapped.punching(4 * CHUNK + 5, 1);
        file::fallocate(&file, super::super::raw_file::PUNCH, 4 * CHUNK, 4096).unwrap();
        drop(punching);
        assert!(!(0..300).any(|_| reads(&mapped, &file, 4 * CHUNK, 1)));
        assert!(reads(&mapped, &file, 3 * CHUNK, CHUNK), "its neighbour");
    }

    /// Who looks while a hole is being made believes nothing.
    #[test]
    fn a_look_beside_punching_is_void() {
        let (file, mapped) = sparse();
        file.write_all_at(&vec![7; SIZE as usize], 0).unwrap();
        let punching = mapped.punching(0, CHUNK);
        let before = mapped.holes.load(Ordering::SeqCst);
        assert!(mapped.is_data(&file, 0, 1), "nothing was punched yet");
        drop(punching);
        assert!(mapped.holes.load(Ordering::SeqCst) != before);
        assert_eq!(mapped.chunks[0].load(Ordering::Relaxed), 0, "and now it is not believed");
    }

    #[test]
    fn the_last_chunk_need_not_be_whole() {
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        let size = CHUNK + 512;
        file.write_all_at(&vec![9; size as usize], 0).unwrap();
        let mapped = Mapped::new(&file, size, false).unwrap();
        assert!(reads(&mapped, &file, CHUNK, 512));
        assert!(!reads(&mapped, &file, CHUNK, 513));
        assert!(!mapped.write(&file, 0, 1, &IoBuf::owned(1, Direction::Out), 0), "opened for reading");
    }

    #[test]
    fn a_large_image_takes_few_chunks() {
        let file = tempfile::tempfile_in("/dev/shm").unwrap();
        file.set_len(8 << 40).unwrap();
        let mapped = Mapped::new(&file, 8 << 40, true).unwrap();
        assert!(mapped.chunks.len() as u64 <= CHUNKS_MAX);
        assert!(!reads(&mapped, &file, (8 << 40) - 512, 512));
        assert!(Mapped::new(&file, SIZE_MAX + 1, true).is_none());
    }
}

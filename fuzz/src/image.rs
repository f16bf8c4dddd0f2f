//! `image`: what an image file holds, and what is done to it.
//!
//! There is one format, raw: nothing in an image is interpreted, and this is what is held to. The input gives the file's size, its first
//! bytes (a header of some other format, perhaps) and last ones, how it is opened, and then operations, compared with the same ones on plain bytes.

use crate::input::Input;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;
use vstgt::backing::{self, BackingError, EngineChoice, OpenError, OpenOptions};
use vstgt::mem::{Direction, IoBuf};

/// The longest image, so that the bytes it is compared with are few.
const MAX_SIZE: u64 = 1 << 18;

/// Takes any bytes.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let flags = input.u8();
    let block_size = match flags & 3 {
        0 => 512,
        1 => 4096,
        2 => 1u32 << (input.u8() % 32),
        _ => input.u32(),
    };
    let unit = if flags & 4 == 0 { 4096 } else { 1 };
    let size = (u64::from(input.u16()) * unit) % (MAX_SIZE + 1);
    let (head_len, tail_len) = (usize::from(input.u16()), usize::from(input.u8()));
    let mut expected = vec![0; size as usize];
    let (head, tail) = (input.take(head_len.min(expected.len())), input.take(tail_len.min(expected.len())));
    expected[..head.len()].copy_from_slice(head);
    let tail_at = expected.len() - tail.len();
    expected[tail_at..].copy_from_slice(tail);

    let mut file = tempfile::NamedTempFile::new_in(directory(flags & 8 != 0)).expect("a file");
    let made = file.as_file().set_len(size).and_then(|()| file.write_all(&expected[..head.len()]));
    made.and_then(|()| file.seek(SeekFrom::Start(tail_at as u64))).expect("a file");
    file.write_all(&expected[tail_at..]).expect("a file");

    let options = OpenOptions {
        read_only: flags & 16 != 0,
        block_size,
        shared: flags & 32 != 0,
        engine: if flags & 64 == 0 { EngineChoice::Auto } else { EngineChoice::Threads },
        ..OpenOptions::new(file.path())
    };
    let possible = (512..=65536).contains(&block_size) && block_size.is_power_of_two();
    let image = match backing::open(&options) {
        Ok(image) => image,
        Err(error) => {
            match error {
                OpenError::BlockSize { .. } => assert!(!possible),
                OpenError::Empty { .. } => assert_eq!(size, 0),
                OpenError::PartialBlock { .. } => assert_ne!(size % u64::from(block_size), 0),
                other => panic!("{other}"),
            }
            return;
        }
    };
    assert!(possible && size > 0 && size.is_multiple_of(u64::from(block_size)));
    assert_eq!(image.size(), size, "nothing in a raw image says how long it is");
    let mut fenced = Fenced { expected, read_only: options.read_only, block_size };
    fenced.compare(&*image);
    for _ in 0..32 {
        if input.is_empty() {
            break;
        }
        fenced.step(&*image, &mut input);
    }
    fenced.compare(&*image);
    assert_eq!(std::fs::read(file.path()).expect("a file"), fenced.expected, "the file's bytes are the image's");
}

fn directory(memory: bool) -> PathBuf {
    let shm = PathBuf::from("/dev/shm");
    if memory && shm.is_dir() { shm } else { std::env::temp_dir() }
}

/// What the image must hold.
struct Fenced {
    expected: Vec<u8>,
    read_only: bool,
    block_size: u32,
}

impl Fenced {
    fn compare(&self, image: &dyn backing::Image) {
        let mut found = vec![0xee; self.expected.len()];
        image.read_bytes(0, &mut found).expect("all of it can be read");
        assert!(found == self.expected, "the image holds something else");
    }

    /// The range if it lies within the image.
    fn range(&self, offset: u64, len: u64) -> Option<std::ops::Range<usize>> {
        let end = offset.checked_add(len)?;
        (end <= self.expected.len() as u64).then_some(offset as usize..end as usize)
    }

    fn step(&mut self, image: &dyn backing::Image, input: &mut Input<'_>) {
        let what = input.u8();
        let offset = match what & 0x40 {
            0 => u64::from(input.u16()) * 512 % MAX_SIZE,
            _ => input.u64(),
        };
        let len = match what & 0x80 {
            0 => u64::from(input.u16()) * 8,
            _ => input.u64(),
        };
        // Direct I/O is in whole blocks, as the device server asks for them.
        let whole = |n: u64| if image.capabilities().direct { n - n % u64::from(self.block_size) } else { n };
        let (offset, len) = (whole(offset), whole(len));
        let range = self.range(offset, len);
        let changes =
            |result: Result<(), BackingError>, expected: &mut Vec<u8>, read_only: bool, bytes: &dyn Fn(usize) -> u8| {
                match (result, range.clone()) {
                    (Ok(()), Some(range)) if !read_only => range.for_each(|at| expected[at] = bytes(at)),
                    (Ok(()), None) => panic!("{offset}+{len} is not in the image"),
                    (Ok(()), Some(range)) => assert!(range.is_empty(), "a read-only image was written"),
                    (Err(BackingError::OutOfRange), None) => {}
                    (Err(BackingError::ReadOnly), _) if read_only => {}
                    (Err(BackingError::Unsupported), _) => {}
                    (Err(error), range) => panic!("{what:#x} {offset}+{len} {range:?}: {error}"),
                }
            };
        let short = whole(len.min(1 << 17)) as usize;
        match what % 8 {
            0 => {
                let mut buf = IoBuf::owned(short, Direction::In);
                match image.read(offset, short as u64, &mut buf, 0) {
                    Ok(()) => {
                        let mut found = vec![0; short];
                        buf.read_at(0, &mut found);
                        let range = self.range(offset, short as u64).expect("only what is there is read");
                        assert!(found == self.expected[range]);
                    }
                    Err(error) => assert!(self.range(offset, short as u64).is_none(), "{error}"),
                }
            }
            1 if short as u64 == len => {
                let byte = input.u8();
                let mut buf = IoBuf::owned(short, Direction::Out);
                buf.write_at(0, &vec![byte; short]);
                let result = image.write(offset, len, &buf, 0, what & 8 != 0);
                changes(result, &mut self.expected, self.read_only, &|_| byte);
            }
            2 if short as u64 == len => {
                let byte = input.u8();
                let result = image.write_bytes(offset, &vec![byte; short]);
                changes(result, &mut self.expected, self.read_only, &|_| byte);
            }
            3 => changes(image.unmap(offset, len), &mut self.expected, self.read_only, &|_| 0),
            4 => {
                let result = image.write_zeroes(offset, len, what & 8 != 0);
                changes(result, &mut self.expected, self.read_only, &|_| 0);
            }
            5 => match image.run_at(offset, len) {
                Ok(run) => {
                    let range = self.range(offset, len).expect("only what is there has a map");
                    assert!(run.len <= len && (run.len > 0 || len == 0), "{run:?} of {len}");
                    let end = range.start + run.len as usize;
                    assert!(run.mapped || self.expected[range.start..end].iter().all(|byte| *byte == 0));
                }
                Err(error) => assert!(range.is_none(), "{error}"),
            },
            6 => {
                let to = whole(u64::from(input.u16()) * 512 % MAX_SIZE);
                let there = range.clone().zip(self.range(to, len));
                match (image.copy_from(to, image, offset, len, what & 8 != 0), there) {
                    (Ok(()), Some((from, _))) if !self.read_only => self.expected.copy_within(from, to as usize),
                    (Ok(()), Some((from, _))) => assert!(from.is_empty()),
                    (Ok(()), None) => panic!("{offset}+{len} to {to} is not in the image"),
                    (Err(error), Some(_)) => assert!(self.read_only, "{error}"),
                    (Err(_), None) => {}
                }
            }
            _ => {
                image.flush().expect("it can be flushed");
                assert_eq!(image.refresh_size(512), Ok(self.expected.len() as u64));
            }
        }
    }
}

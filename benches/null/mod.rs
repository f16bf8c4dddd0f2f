//! An image that stores nothing and does nothing: what a command costs apart from it.

use vstgt::backing::{BackingError, Capabilities, Image, RawFile};
use vstgt::mem::IoBuf;

/// Every operation succeeds at once. What is read is whatever the buffer held before.
#[derive(Debug)]
pub struct NullImage;

impl Image for NullImage {
    fn size(&self) -> u64 {
        1 << 40
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            read_only: false,
            unmap: false,
            write_zeroes: false,
            unmap_granularity: 512,
            never_waits: true,
            direct: true,
            volatile: false,
        }
    }

    fn read(&self, _offset: u64, _len: u64, _buf: &mut IoBuf, _at: u64) -> Result<(), BackingError> {
        Ok(())
    }

    fn write(&self, _offset: u64, _len: u64, _buf: &IoBuf, _at: u64, _fua: bool) -> Result<(), BackingError> {
        Ok(())
    }

    fn read_bytes(&self, _offset: u64, dst: &mut [u8]) -> Result<(), BackingError> {
        dst.fill(0);
        Ok(())
    }

    fn write_bytes(&self, _offset: u64, _src: &[u8]) -> Result<(), BackingError> {
        Ok(())
    }

    fn flush(&self) -> Result<(), BackingError> {
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

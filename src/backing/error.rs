//! What can go wrong with an image, in words that know nothing of SCSI.

/// Why an operation on an image failed. The device server turns it into sense data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackingError {
    /// The range passes the end of the image.
    #[error("beyond the end of the image")]
    OutOfRange,
    /// The file ended before the range did (truncated under us), or the device failed to read.
    #[error("read failed")]
    ReadFailed,
    /// The device failed to write.
    #[error("write failed")]
    WriteFailed,
    /// The buffer's memory is gone (EFAULT): the front-end cut off the file behind it. The image has nothing to do with it.
    #[error("the buffer's memory is gone")]
    BufferGone,
    /// No space left on the file system (ENOSPC, EDQUOT).
    #[error("no space left")]
    NoSpace,
    /// The image was opened read-only.
    #[error("image is read-only")]
    ReadOnly,
    /// Data could not be made durable.
    #[error("flush failed")]
    FlushFailed,
    /// The image cannot do this (e.g. punch holes on a file system without).
    #[error("not supported by the image")]
    Unsupported,
    /// The operation was cancelled before it had an effect.
    #[error("cancelled")]
    Cancelled,
    /// Compared data differed; the byte offset, within the range, of the first difference.
    #[error("data differ at byte {0}")]
    Miscompare(u64),
}

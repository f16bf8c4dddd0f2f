//! The host's page cache between the guests and the image, and what a flush means: the modes that users of QEMU know by these names.

/// How an image is cached by the host.
///
/// | | through the page cache | default of WCE | SYNCHRONIZE CACHE and FUA |
/// |---|---|---|---|
/// | [`Writeback`](CacheMode::Writeback) | yes | 1 | durable |
/// | [`Writethrough`](CacheMode::Writethrough) | yes | 0 | durable |
/// | [`None`](CacheMode::None) | no | 1 | durable |
/// | [`Directsync`](CacheMode::Directsync) | no | 0 | durable |
/// | [`Unsafe`](CacheMode::Unsafe) | yes | 1 | answered, and nothing done |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// Like `Writeback` while one initiator uses the image; like `None` where several do and the file can do it.
    #[default]
    Auto,
    /// Through the page cache.
    Writeback,
    /// Through the page cache; each write is durable when it is answered, until a guest turns WCE on.
    Writethrough,
    /// Direct I/O. What is answered may still be in the drive's own cache.
    None,
    /// Direct I/O; each write is durable when it is answered, until a guest turns WCE on.
    Directsync,
    /// Through the page cache, and nothing is ever made durable: for images that are thrown away.
    Unsafe,
}

impl CacheMode {
    /// The mode of this name; "auto" is none.
    pub fn from_name(name: &str) -> Option<CacheMode> {
        match name {
            "writeback" => Some(CacheMode::Writeback),
            "writethrough" => Some(CacheMode::Writethrough),
            "none" => Some(CacheMode::None),
            "directsync" => Some(CacheMode::Directsync),
            "unsafe" => Some(CacheMode::Unsafe),
            _ => None,
        }
    }

    /// The default of WCE (SBC-3 6.5.5).
    pub fn write_cache(self) -> bool {
        !matches!(self, CacheMode::Writethrough | CacheMode::Directsync)
    }

    /// Whether it has to be direct I/O.
    pub(super) fn is_direct(self) -> bool {
        matches!(self, CacheMode::None | CacheMode::Directsync)
    }
}

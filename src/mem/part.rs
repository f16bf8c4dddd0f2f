//! A part of a region, to be held in memory by the kernel.
#![allow(unsafe_code, reason = "advises the kernel about a mapping")]

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use super::Region;
use super::region::page_size;

/// A part of a region, which it keeps mapped.
#[derive(Clone, Debug)]
pub struct RegionPart {
    region: Arc<Region>,
    /// From the region's first byte on.
    offset: u64,
    len: u64,
}

impl RegionPart {
    /// The `index`th of the parts of `size` bytes that a region is made of, the last of which may be shorter; `None` past the last.
    pub fn of(region: &Arc<Region>, index: u64, size: u64) -> Option<RegionPart> {
        let offset = index.checked_mul(size).filter(|offset| *offset < region.size())?;
        Some(RegionPart { region: Arc::clone(region), offset, len: size.min(region.size() - offset) })
    }

    /// The region.
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// Where it begins in this process. Mapped while this lives.
    pub fn host(&self) -> NonNull<u8> {
        // SAFETY: `of` made it begin inside the region, whose size is mapped.
        unsafe { self.region.host().add(self.offset as usize) }
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        self.len
    }

    /// Makes all of its pages be there, so that nobody else has to wait for one. Takes as long as it takes to clear those that were not.
    ///
    /// # Errors
    ///
    /// There is no memory for them, the file was shrunk, or the kernel is older than Linux 5.14 (`EINVAL`).
    pub fn populate(&self) -> io::Result<()> {
        let page = page_size() as usize;
        let start = self.host().as_ptr();
        let lead = start.addr() % page;
        let len = (lead + self.len as usize).next_multiple_of(page);
        // SAFETY: the pages that hold the part, which are mapped in whole pages; what is in them is not changed.
        let result = unsafe { libc::madvise(start.sub(lead).cast(), len, libc::MADV_POPULATE_WRITE) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn a_region_is_made_of_its_parts() {
        let region = testing::region(0x10_0000, 0x5000);
        let part = |index| RegionPart::of(&region, index, 0x2000);
        let bounds = |index| part(index).map(|p| (p.host().as_ptr().addr() - region.host().as_ptr().addr(), p.size()));
        assert_eq!([0, 1, 2, 3].map(bounds), [Some((0, 0x2000)), Some((0x2000, 0x2000)), Some((0x4000, 0x1000)), None]);
        assert!(part(u64::MAX).is_none());
        (0..3).for_each(|index| part(index).unwrap().populate().unwrap());
    }

    #[test]
    fn a_part_past_the_end_of_its_file_is_not_made() {
        let region = testing::region(0, 0x4000);
        region.file_offset().unwrap().file().set_len(0x1000).unwrap();
        RegionPart::of(&region, 0, 0x1000).unwrap().populate().unwrap();
        RegionPart::of(&region, 1, 0x1000).unwrap().populate().unwrap_err();
        assert!(!region.poisoned(), "nothing was touched");
    }
}

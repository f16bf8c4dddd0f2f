//! The memory table: SET_MEM_TABLE, ADD_MEM_REG and REM_MEM_REG as steps from one [`MemoryMap`] to the next.
//!
//! A region that a new table repeats is kept, not mapped again (same place, same file): so tasks on it need not be
//! waited for. Every map is whole: a step that fails leaves the one before in force.
//!
//! Two regions may be at one user address (a front-end may show the guest the same memory twice); a ring address then means
//! either, which are the same bytes.

use std::fs::File;
use std::sync::Arc;

use vhost::vhost_user::message::{VhostUserMemoryRegion, VhostUserSingleMemoryRegion};

use super::session::Refused;
use crate::mem::{MemoryMap, Region, RegionSpec};

/// Answer to GET_MAX_MEM_SLOTS: regions that a front-end may have at once. A number once answered must never shrink, or a
/// front-end that reconnects finds that its memory no longer fits.
pub(super) const MAX_SLOTS: usize = 509;

fn spec_of(region: &VhostUserMemoryRegion) -> RegionSpec {
    RegionSpec {
        guest_addr: region.guest_phys_addr,
        size: region.memory_size,
        user_addr: region.user_addr,
        mmap_offset: region.mmap_offset,
    }
}

fn spec_of_single(region: &VhostUserSingleMemoryRegion) -> RegionSpec {
    RegionSpec {
        guest_addr: region.guest_phys_addr,
        size: region.memory_size,
        user_addr: region.user_addr,
        mmap_offset: region.mmap_offset,
    }
}

/// SET_MEM_TABLE: a whole new table.
pub(super) fn replaced(
    now: &MemoryMap,
    regions: &[VhostUserMemoryRegion],
    files: Vec<File>,
) -> Result<Arc<MemoryMap>, Refused> {
    if regions.len() != files.len() {
        return Err(Refused::new("as many descriptors as memory regions are needed"));
    }
    let mut next = Vec::with_capacity(regions.len());
    for (region, file) in regions.iter().zip(files) {
        let spec = spec_of(region);
        next.push(match now.same_region(&spec, &file) {
            Some(kept) => kept,
            None => Region::map(&spec, file)?,
        });
    }
    Ok(Arc::new(MemoryMap::new(next)?))
}

/// ADD_MEM_REG: one region more.
pub(super) fn added(
    now: &MemoryMap,
    region: &VhostUserSingleMemoryRegion,
    file: File,
) -> Result<Arc<MemoryMap>, Refused> {
    if now.regions().len() >= MAX_SLOTS {
        return Err(Refused::new(format!("more than {MAX_SLOTS} memory regions")));
    }
    Ok(Arc::new(now.with_region(Region::map(&spec_of_single(region), file)?)?))
}

/// REM_MEM_REG: one region less.
pub(super) fn removed(now: &MemoryMap, region: &VhostUserSingleMemoryRegion) -> Result<Arc<MemoryMap>, Refused> {
    let spec = spec_of_single(region);
    let map = now.without_region(&spec).ok_or_else(|| {
        Refused::new(format!("no memory region of {:#x} bytes at guest address {:#x}", spec.size, spec.guest_addr))
    })?;
    Ok(Arc::new(map))
}

//! Huge pages for the tests that want some: borrowed from the kernel, given back.

use std::fs;

const POOL: &str = "/proc/sys/vm/nr_hugepages";

/// How many pages the tests need at most.
const WANTED: u64 = 16;

/// A pool that is large enough; a smaller one is made again of it when this is dropped.
pub struct HugePages {
    before: u64,
}

impl HugePages {
    /// Sees to it that the kernel's pool has enough pages. `None` if it has not and may not be enlarged.
    pub fn borrow() -> Option<HugePages> {
        let before = pool()?;
        if before < WANTED {
            fs::write(POOL, WANTED.to_string()).ok()?;
        }
        let pages = HugePages { before };
        (pool()? >= WANTED).then_some(pages)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        if self.before < WANTED
            && let Err(e) = fs::write(POOL, self.before.to_string())
        {
            eprintln!("cannot give huge pages back ({POOL}): {e}");
        }
    }
}

fn pool() -> Option<u64> {
    fs::read_to_string(POOL).ok()?.trim().parse().ok()
}

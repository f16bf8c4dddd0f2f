//! What is asked of a back-end.

use std::fmt;

/// Where the image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// A file on tmpfs.
    Tmpfs,
    /// A file on a file system, in its page cache.
    Cached,
    /// A file on a file system, past its page cache (O_DIRECT).
    Direct,
}

impl fmt::Display for Medium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Medium::Tmpfs => "tmpfs",
            Medium::Cached => "cached",
            Medium::Direct => "direct",
        })
    }
}

/// A stream of equal requests. Displayed as `tmpfs/randread/4k/d32/q1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// Where the image is.
    pub medium: Medium,
    /// Writes, else reads.
    pub write: bool,
    /// At random places, else one after another.
    pub random: bool,
    /// Bytes of a request.
    pub bytes: u32,
    /// Requests of a queue at any time.
    pub depth: u16,
    /// Request queues.
    pub queues: u16,
}

impl Workload {
    /// fio's word for it.
    pub fn pattern(&self) -> &'static str {
        match (self.random, self.write) {
            (true, false) => "randread",
            (true, true) => "randwrite",
            (false, false) => "read",
            (false, true) => "write",
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Workload { medium, bytes, depth, queues, .. } = self;
        write!(f, "{medium}/{}/{}k/d{depth}/q{queues}", self.pattern(), bytes / 1024)
    }
}

/// All workloads: 4 KiB at random places at several depths on one and two queues, and 512 KiB one after another. With
/// `quick`, only random ones at depth 32 on one queue, of which only reads where writes would wear a device.
pub fn all(quick: bool) -> Vec<Workload> {
    let mut all = Vec::new();
    for medium in [Medium::Tmpfs, Medium::Cached, Medium::Direct] {
        for write in [false, true] {
            for (depth, queues) in [(1, 1), (32, 1), (128, 1), (1, 2), (32, 2), (128, 2)] {
                all.push(Workload { medium, write, random: true, bytes: 4 << 10, depth, queues });
            }
            all.push(Workload { medium, write, random: false, bytes: 512 << 10, depth: 8, queues: 1 });
        }
    }
    if quick {
        all.retain(|w| w.random && w.depth == 32 && w.queues == 1 && (!w.write || w.medium == Medium::Tmpfs));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_workloads_apart() {
        let names: Vec<String> = all(false).iter().map(Workload::to_string).collect();
        let mut unique = names.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), names.len());
        assert!(names.contains(&"tmpfs/randread/4k/d32/q1".to_owned()), "{names:?}");
    }

    #[test]
    fn a_quick_run_is_a_part() {
        let all_of_them = all(false);
        assert!(!all(true).is_empty());
        assert!(all(true).iter().all(|workload| all_of_them.contains(workload)));
    }
}

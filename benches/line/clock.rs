//! How much processor time another thread of this process has used, and how often it has slept.
#![allow(unsafe_code, reason = "std has no processor clocks")]

use std::fs;
use std::time::Duration;

pub struct ThreadClock {
    id: libc::pid_t,
}

impl ThreadClock {
    /// Of the one thread that has this name.
    pub fn of(name: &str) -> ThreadClock {
        let threads = fs::read_dir("/proc/self/task").unwrap().map(|entry| entry.unwrap());
        let is_it =
            |path: &std::path::Path| fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name);
        let mut found = threads.filter(|thread| is_it(&thread.path()));
        let (thread, other) = (found.next().expect("a thread of that name"), found.next());
        assert!(other.is_none(), "several threads have the name {name}");
        ThreadClock { id: thread.file_name().to_str().unwrap().parse().unwrap() }
    }

    /// Its processor time, to the nanosecond.
    pub fn spent(&self) -> Duration {
        // As pthread_getcpuclockid makes it (clock_getcpuclockid(3)): what is scheduled (2) of a thread (4), by its number.
        let clock = (!self.id) << 3 | 4 | 2;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: writes one timespec to a local.
        let failed = unsafe { libc::clock_gettime(clock, &mut time) };
        assert_eq!(failed, 0, "no clock of thread {}", self.id);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }

    /// How often it gave the processor up by itself.
    pub fn sleeps(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/self/task/{}/status", self.id)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse().unwrap()
    }
}

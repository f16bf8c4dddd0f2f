//! How many system calls a process makes, as the kernel's own event counters tell (perf_event_open(2)). They are not to be had everywhere:
//! they want tracefs and the right to look at others.

#![allow(unsafe_code, reason = "a system call that std does not wrap; its block argues for itself")]

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::FromRawFd;

/// `struct perf_event_attr` of linux/perf_event.h, its first version, as far as it is used here.
#[derive(Default)]
#[repr(C)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    period: u64,
    sample: u64,
    format: u64,
    flags: u64,
    wakeup: u32,
    breakpoint: u32,
    address: u64,
}

/// `PERF_TYPE_TRACEPOINT`.
const TRACEPOINT: u32 = 2;

/// `PERF_FLAG_FD_CLOEXEC`.
const CLOSE_ON_EXEC: libc::c_ulong = 8;

/// Where Linux tells the number of the event "a system call is entered".
const EVENT: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Counts from when it was made, for all threads that the process had then.
#[derive(Debug)]
pub struct Counter(Vec<File>);

impl Counter {
    /// A counter of this process's system calls; `None` where there are none to be had.
    pub fn of_process(pid: u32) -> Option<Counter> {
        let id = |dir: &&str| fs::read_to_string(format!("{dir}/events/raw_syscalls/sys_enter/id")).ok();
        let id: u64 = EVENT.iter().find_map(id)?.trim().parse().ok()?;
        let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
        let ids = threads.filter_map(|thread| thread.ok()?.file_name().to_str()?.parse::<libc::pid_t>().ok());
        let counters: Option<Vec<File>> = ids.map(|thread| open(id, thread)).collect();
        counters.filter(|counters| !counters.is_empty()).map(Counter)
    }

    /// How many there have been.
    pub fn read(&self) -> Option<u64> {
        let mut sum = 0;
        for mut counter in &self.0 {
            let mut count = [0; 8];
            counter.read_exact(&mut count).ok()?;
            sum += u64::from_ne_bytes(count);
        }
        Some(sum)
    }
}

fn open(id: u64, thread: libc::pid_t) -> Option<File> {
    let attributes =
        Attributes { kind: TRACEPOINT, size: size_of::<Attributes>() as u32, config: id, ..Attributes::default() };
    // SAFETY: the structure has the size that it says and lives through the call; everything else is a number.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const attributes, thread, -1, -1, CLOSE_ON_EXEC) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: just made, nobody else's.
    Some(unsafe { File::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_where_they_can_be() {
        let Some(counter) = Counter::of_process(std::process::id()) else {
            println!("system calls cannot be counted here");
            return;
        };
        let before = counter.read().unwrap();
        for _ in 0..100 {
            std::thread::yield_now();
        }
        assert!(counter.read().unwrap() >= before + 100);
    }
}

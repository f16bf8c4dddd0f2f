//! The clock that runs while the host does.
#![allow(unsafe_code, reason = "clock_gettime has no safe wrapper in std for this clock")]

use std::time::Duration;

/// Time since the host was started, time asleep included (`CLOCK_BOOTTIME`): the same to all processes of one boot.
pub fn since_boot() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a live struct of the type that the call fills in. The call cannot fail: Linux has had this clock since 2.6.39.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut now) };
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// The same in nanoseconds: some five hundred years have room.
pub fn nanoseconds_since_boot() -> u64 {
    u64::try_from(since_boot().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_hosts_uptime() {
        let told: f64 = std::fs::read_to_string("/proc/uptime").unwrap().split(' ').next().unwrap().parse().unwrap();
        let before = since_boot();
        assert!((before.as_secs_f64() - told).abs() < 60.0, "{before:?} {told}");
        std::thread::sleep(Duration::from_millis(2));
        assert!(since_boot() >= before + Duration::from_millis(2));
    }
}

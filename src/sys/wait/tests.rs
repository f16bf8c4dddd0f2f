use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use std::os::fd::OwnedFd;

use super::*;
use crate::sys::mailbox::Waker;
use crate::sys::ring::Ring;

const NONE: [u64; 0] = [];

/// Runs a test on each implementation that this machine lets us have.
fn each(test: impl Fn(&mut dyn Wait)) {
    test(&mut EpollWait::new().unwrap());
    let mut coarse = EpollWait::new().unwrap();
    coarse.without_nanoseconds();
    test(&mut coarse);
    if probe_io_uring() {
        // A small ring, so that its queues overflow.
        test(&mut UringWait::new(Ring::new(4).unwrap()).unwrap());
    }
}

fn event() -> File {
    File(EventFd::new(EFD_NONBLOCK).unwrap())
}

/// An eventfd that can be borrowed.
struct File(EventFd);

impl File {
    fn set(&self) {
        self.0.write(1).unwrap();
    }

    fn clear(&self) {
        self.0.read().unwrap();
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsRawFd;
        #[allow(unsafe_code, reason = "EventFd has no AsFd in this version of vmm-sys-util")]
        // SAFETY: open and owned by `self.0` for the borrow's lifetime.
        unsafe {
            BorrowedFd::borrow_raw(self.0.as_raw_fd())
        }
    }
}

/// What is readable now.
fn now(wait: &mut dyn Wait) -> Vec<u64> {
    let mut ready = Vec::new();
    wait.wait(Some(Duration::ZERO), &mut ready).unwrap();
    ready.sort();
    ready
}

/// What is readable now, after the last report of what was emptied since.
fn settled(wait: &mut dyn Wait) -> Vec<u64> {
    now(wait);
    now(wait)
}

#[test]
fn reports_as_long_as_it_is_readable() {
    each(|wait| {
        let (a, b) = (event(), event());
        wait.add(a.as_fd(), 7).unwrap();
        wait.add(b.as_fd(), u64::MAX).unwrap();
        assert_eq!(now(wait), NONE);
        a.set();
        assert_eq!(now(wait), [7]);
        assert_eq!(now(wait), [7]);
        b.set();
        assert_eq!(settled(wait), [7, u64::MAX]);
        a.clear();
        assert_eq!(settled(wait), [u64::MAX]);
        a.set();
        assert_eq!(settled(wait), [7, u64::MAX]);
    });
}

#[test]
fn set_before_it_is_added() {
    each(|wait| {
        let a = event();
        a.set();
        wait.add(a.as_fd(), 1).unwrap();
        assert_eq!(now(wait), [1]);
    });
}

#[test]
fn sleeps_until_the_timeout() {
    each(|wait| {
        let a = event();
        wait.add(a.as_fd(), 1).unwrap();
        let start = Instant::now();
        let mut ready = Vec::new();
        wait.wait(Some(Duration::from_millis(30)), &mut ready).unwrap();
        assert_eq!(ready, NONE);
        assert!(start.elapsed() >= Duration::from_millis(30), "{:?}", start.elapsed());
        wait.wait(Some(Duration::from_micros(1)), &mut ready).unwrap();
        a.set();
        wait.wait(Some(Duration::from_secs(1 << 40)), &mut ready).unwrap();
        assert_eq!(ready, [1]);
    });
}

#[test]
fn another_thread_wakes_it() {
    each(|wait| {
        let waker = std::sync::Arc::new(Waker::new().unwrap());
        wait.add(waker.as_fd(), 5).unwrap();
        let mut woken = 0;
        std::thread::scope(|scope| {
            let (ask, asked) = std::sync::mpsc::channel::<()>();
            let sender = std::sync::Arc::clone(&waker);
            scope.spawn(move || {
                while asked.recv().is_ok() {
                    sender.wake();
                }
            });
            for _ in 0..200 {
                waker.prepare_sleep();
                ask.send(()).unwrap();
                let mut ready = Vec::new();
                while ready.is_empty() {
                    wait.wait(None, &mut ready).unwrap();
                }
                assert_eq!(ready, [5]);
                waker.awake();
                waker.drain();
                woken += 1;
                // A poll that was armed before the drain may have fired already.
                now(wait);
            }
        });
        assert_eq!(woken, 200);
    });
}

#[test]
fn removed_is_removed() {
    each(|wait| {
        let (a, b) = (event(), event());
        wait.add(a.as_fd(), 1).unwrap();
        a.set();
        assert_eq!(now(wait), [1]);
        // Its poll has fired, but was not looked at.
        now(wait);
        wait.remove(1).unwrap();
        assert_eq!(now(wait), NONE);
        // The same token for another file, the same file under another token.
        wait.add(b.as_fd(), 1).unwrap();
        wait.add(a.as_fd(), 2).unwrap();
        assert_eq!(settled(wait), [2]);
        b.set();
        assert_eq!(settled(wait), [1, 2]);
        wait.remove(2).unwrap();
        assert_eq!(settled(wait), [1]);
        wait.remove(1).unwrap();
        assert_eq!(now(wait), NONE);
    });
}

#[test]
fn removed_with_a_poll_in_flight_and_the_number_used_again() {
    each(|wait| {
        for _ in 0..50 {
            let a = event();
            wait.add(a.as_fd(), 1).unwrap();
            assert_eq!(now(wait), NONE);
            wait.remove(1).unwrap();
            a.set();
            drop(a);
            let b = event();
            wait.add(b.as_fd(), 1).unwrap();
            assert_eq!(now(wait), NONE);
            b.set();
            assert_eq!(now(wait), [1]);
            wait.remove(1).unwrap();
        }
    });
}

#[test]
fn the_caller_may_close_its_descriptor() {
    each(|wait| {
        let a = event();
        wait.add(a.as_fd(), 1).unwrap();
        let twin = a.as_fd().try_clone_to_owned().unwrap();
        drop(a);
        assert_eq!(now(wait), NONE);
        set_by(&twin);
        assert_eq!(now(wait), [1]);
        wait.remove(1).unwrap();
        assert_eq!(now(wait), NONE);
    });
}

fn set_by(fd: &OwnedFd) {
    use std::io::Write;
    std::fs::File::from(fd.try_clone().unwrap()).write_all(&1u64.to_ne_bytes()).unwrap();
}

#[test]
fn more_than_the_queues_hold() {
    each(|wait| {
        let events: Vec<File> = (0..100).map(|_| event()).collect();
        for (token, event) in events.iter().enumerate() {
            wait.add(event.as_fd(), token as u64).unwrap();
        }
        assert_eq!(now(wait), NONE);
        events.iter().for_each(File::set);
        // Completions that overflowed the queue may take several calls.
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..100 {
            seen.extend(now(wait));
        }
        assert_eq!(seen, (0..100).collect());
        events.iter().for_each(File::clear);
        for _ in 0..100 {
            now(wait);
        }
        assert_eq!(now(wait), NONE);
        for token in 0..100 {
            wait.remove(token).unwrap();
        }
        events.iter().for_each(File::set);
        assert_eq!(now(wait), NONE);
    });
}

#[test]
fn hang_up_is_reported() {
    each(|wait| {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        wait.add(ours.as_fd(), 3).unwrap();
        assert_eq!(now(wait), NONE);
        drop(theirs);
        assert_eq!(now(wait), [3]);
        assert_eq!(ours.read(&mut [0; 8]).unwrap(), 0);
        assert_eq!(now(wait), [3]);
    });
}

#[test]
fn refusals() {
    each(|wait| {
        let a = event();
        wait.add(a.as_fd(), 1).unwrap();
        assert_eq!(wait.add(a.as_fd(), 1).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(wait.remove(2).unwrap_err().kind(), ErrorKind::NotFound);
        wait.remove(1).unwrap();
        assert_eq!(wait.remove(1).unwrap_err().kind(), ErrorKind::NotFound);
        let file = tempfile::tempfile().unwrap();
        assert_eq!(wait.add(file.as_fd(), 9).unwrap_err().raw_os_error(), Some(libc::EPERM));
        let zero = std::fs::File::open("/dev/zero").unwrap();
        assert_eq!(wait.add(zero.as_fd(), 9).unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert_eq!(wait.remove(9).unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn descriptors_are_given_back() {
    each(|wait| {
        let a = event();
        let peer = |token: u64| (token, UnixStream::pair().unwrap());
        for (token, (ours, mut theirs)) in (0..20).map(peer) {
            wait.add(ours.as_fd(), token).unwrap();
            wait.add(a.as_fd(), 99).unwrap();
            now(wait);
            wait.remove(token).unwrap();
            wait.remove(99).unwrap();
            // Two calls: one to submit the removal, one to take note of it.
            settled(wait);
            drop(ours);
            // Only when the last duplicate is closed does the other end see it.
            theirs.set_nonblocking(true).unwrap();
            assert_eq!(theirs.read(&mut [0; 1]).unwrap(), 0);
        }
    });
}

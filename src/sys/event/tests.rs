#![allow(unsafe_code, reason = "EventFd has no safe way to a File")]

use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EFD_SEMAPHORE, EventFd};

use super::*;

/// The counter's largest value by `write`.
const FULL: u64 = u64::MAX - 1;

fn eventfd(initial: u64, flags: i32) -> File {
    let event = EventFd::new(flags).unwrap();
    if initial > 0 {
        event.write(initial).unwrap();
    }
    // SAFETY: the descriptor was just given up by `into_raw_fd`.
    unsafe { File::from_raw_fd(event.into_raw_fd()) }
}

#[test]
fn taking_empties_and_never_blocks() {
    let event = eventfd(3, EFD_NONBLOCK);
    take(&event).unwrap();
    signal(&event).unwrap();
    take(&event).unwrap();
    // Blocking and empty: a plain read would wait for ever.
    take(&eventfd(0, 0)).unwrap();
    let blocking = eventfd(7, 0);
    take(&blocking).unwrap();
    take(&blocking).unwrap();
}

#[test]
fn each_signal_counts() {
    prepare();
    for flags in [0, EFD_NONBLOCK] {
        let event = eventfd(0, flags);
        // More than completions are kept, and more than there is room for.
        for _ in 0..10_000 {
            signal(&event).unwrap();
        }
        assert_eq!(bell::read(&event).unwrap(), 10_000);
    }
}

/// A plain write would wait for ever.
#[test]
fn a_full_counter_that_blocks_does_not() {
    let event = eventfd(FULL, 0);
    for _ in 0..100 {
        signal(&event).unwrap();
    }
    assert!(bell::read(&event).unwrap() >= FULL);
    signal(&event).unwrap();
    assert_eq!(bell::read(&event).unwrap(), 1);
}

#[test]
fn without_asynchronous_io_it_is_a_write() {
    let event = eventfd(FULL, EFD_NONBLOCK);
    write(&event).unwrap();
    take(&event).unwrap();
    write(&event).unwrap();
    assert_eq!(bell::read(&event).unwrap(), 1);
}

#[test]
fn threads_signal_one_eventfd() {
    let event = eventfd(0, EFD_NONBLOCK);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..1000).for_each(|_| signal(&event).unwrap()));
        }
    });
    assert_eq!(bell::read(&event).unwrap(), 4000);
}

/// Several rings may share a kick; one of them runs, and its reactor empties it while it is looked at for the next.
#[test]
fn one_that_somebody_else_empties_is_known_for_what_it_is() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let (event, over) = (eventfd(0, EFD_NONBLOCK), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                take(&event).unwrap();
                std::thread::sleep(std::time::Duration::from_micros(20));
            }
        });
        let natures: Vec<_> = (0..2000).map(|_| examine(&event, true)).collect();
        over.store(true, Ordering::Relaxed);
        assert!(natures.iter().all(|nature| matches!(nature, Ok(Nature::Eventfd))), "{natures:?}");
    });
    assert_eq!(examine(&eventfd(0, EFD_NONBLOCK | EFD_SEMAPHORE), true).unwrap(), Nature::Semaphore);
}

#[test]
fn what_cannot_be_emptied_or_signalled_is_an_error() {
    // An epoll descriptor is an anonymous file as well, but cannot be read.
    let epoll = vmm_sys_util::epoll::Epoll::new().unwrap();
    // SAFETY: a duplicate of an open descriptor, which nobody else has.
    let epoll = unsafe { File::from_raw_fd(libc::dup(epoll.as_raw_fd())) };
    assert!(take(&epoll).is_err());
    assert_eq!(signal(&epoll).unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn natures() {
    for flags in [0, EFD_NONBLOCK] {
        for initial in [0, 1, 5, FULL] {
            let event = eventfd(initial, flags);
            assert_eq!(examine(&event, false).unwrap(), Nature::Eventfd);
            let left = bell::read(&event).ok();
            assert_eq!(left, Some(initial).filter(|left| *left > 0), "only looked at");
            assert_eq!(examine(&event, true).unwrap(), Nature::Eventfd);
            assert!(bell::read(&event).is_err(), "emptied");
            let semaphore = eventfd(initial, flags | EFD_SEMAPHORE);
            assert_eq!(examine(&semaphore, true).unwrap(), Nature::Semaphore);
        }
    }
    let (reader, writer) = io::pipe().unwrap();
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let epoll = vmm_sys_util::epoll::Epoll::new().unwrap();
    // SAFETY: flags only; the descriptor is checked by whoever uses it.
    let timer = unsafe { OwnedFd::from_raw_fd(libc::timerfd_create(libc::CLOCK_MONOTONIC, 0)) };
    // SAFETY: a duplicate of an open descriptor, which nobody else has.
    let epoll = unsafe { OwnedFd::from_raw_fd(libc::dup(epoll.as_raw_fd())) };
    let file = tempfile::tempfile().unwrap();
    let null = File::open("/dev/null").unwrap();
    let others: [OwnedFd; 7] = [reader.into(), writer.into(), socket.into(), timer, epoll, file.into(), null.into()];
    for other in others {
        assert_eq!(examine(&File::from(other), true).unwrap(), Nature::Other);
    }
}

//! The eventfds that a front-end shares with us: it can fill them, empty them, and make them block, at any time.

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EFD_SEMAPHORE, EventFd};

use super::*;

/// The counter's largest value by `write`.
const FULL: u64 = u64::MAX - 1;

/// Whether a read or write of the open file, by whomever, waits.
fn set_blocking(event: &EventFd, blocking: bool) {
    let flags = libc::O_RDWR | if blocking { 0 } else { libc::O_NONBLOCK };
    // SAFETY: fcntl with F_SETFL takes an integer.
    #[allow(unsafe_code, reason = "there is no safe way to make a descriptor blocking again")]
    let rc = unsafe { libc::fcntl(event.as_raw_fd(), libc::F_SETFL, flags) };
    assert_eq!(rc, 0);
}

/// An interrupt cannot be added to a counter that is full, and `write` would wait for room for ever.
#[test]
fn calls_that_are_full_and_block() {
    let mut scene = Scene::new();
    let mut guest = scene.guest();
    let calls: Vec<EventFd> = (0..3).map(|_| EventFd::new(0).unwrap()).collect();
    for (ring, call) in calls.iter().enumerate() {
        call.write(FULL).unwrap();
        guest.frontend.set_vring_call(ring, call).unwrap();
        set_blocking(call, true);
    }
    for _ in 0..100 {
        guest.submit(REQUESTS, &[0; 6], &[], &[]);
        guest.queue(REQUESTS).wait_used(BOUND).expect("answers come though no interrupt can");
    }
    scene.assert_undisturbed("calls that are full and block");
    let (at, response) = (guest.ram.alloc(24), guest.ram.alloc(16));
    guest.queue(0).push(&[Buffer::out(at, 24), Buffer::input(response, 1)]);
    guest.queue(0).kick();
    guest.queue(0).wait_used(BOUND).expect("a task management function is answered");
    // The same where a broken ring is reported.
    let err = EventFd::new(0).unwrap();
    err.write(FULL).unwrap();
    guest.frontend.set_vring_err(2, &err).unwrap();
    set_blocking(&err, true);
    let taken = guest.queue(REQUESTS).avail_idx;
    guest.queue(REQUESTS).set_avail_idx(taken.wrapping_add(5000));
    guest.queue(REQUESTS).kick();
    scene.assert_undisturbed("a ring that is reported broken");
    assert_eq!(guest.stop().len(), 3);
    drop(guest);
    scene.check("calls that are full and block");
    scene.end();
}

/// Filled, emptied, made blocking and not, all the time: whatever is looked at before a signal is another thing when it is given.
#[test]
fn calls_that_change_all_the_time() {
    let mut scene = Scene::new();
    let mut guest = scene.guest();
    let call = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
    guest.frontend.set_vring_call(2, &call).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let threads = [0, 1].map(|which| {
        let (call, stop) = (Arc::clone(&call), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if which == 0 {
                    set_blocking(&call, true);
                    set_blocking(&call, false);
                } else if call.write(FULL).is_err() {
                    // Full already, or nearly: a write that found it blocking would have been stuck there itself, were it not for the reads.
                    drop(call.read());
                }
            }
        })
    });
    let start = Instant::now();
    let mut commands = 0;
    while start.elapsed() < Duration::from_secs(2) {
        guest.submit(REQUESTS, &[0; 6], &[], &[]);
        guest.queue(REQUESTS).wait_used(BOUND).expect("answers come");
        commands += 1;
    }
    println!("{commands} commands");
    stop.store(true, Ordering::Relaxed);
    set_blocking(&call, false);
    eventually("the threads end", || {
        // One may wait in a write or a read that found it blocking.
        drop(call.read());
        drop(call.write(1));
        set_blocking(&call, false);
        threads.iter().all(std::thread::JoinHandle::is_finished)
    });
    drop(guest);
    scene.check("calls that change all the time");
    scene.end();
}

/// A kick that the front-end itself takes away as fast as it gives it, made blocking again behind the back of who made it non-blocking:
/// a plain read of it would block.
#[test]
fn kicks_that_are_taken_away() {
    let mut scene = Scene::new();
    let guest = scene.guest();
    let kick = Arc::new(EventFd::new(0).unwrap());
    guest.frontend.set_vring_kick(2, &kick).unwrap();
    set_blocking(&kick, true);
    let stop = Arc::new(AtomicBool::new(false));
    let thief = {
        let (kick, stop) = (Arc::clone(&kick), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                kick.write(1).unwrap();
                // If the other side was faster, this blocks until the next kick, which is made below.
                drop(kick.read());
            }
        })
    };
    for _ in 0..10 {
        scene.assert_undisturbed("kicks that are taken away");
        kick.write(1).unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    while !thief.is_finished() {
        kick.write(1).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    thief.join().unwrap();
    drop(guest);
    scene.check("kicks that are taken away");
    scene.end();
}

/// Kicks without end, and nothing in the ring; full ones, too.
#[test]
fn storms_of_kicks() {
    let mut scene = Scene::new();
    let mut guest = scene.guest();
    let kicks: Vec<EventFd> = guest.queues.iter().map(|queue| queue.kick.try_clone().unwrap()).collect();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        for _ in 0..1000 {
            kicks.iter().for_each(|kick| drop(kick.write(1)));
        }
    }
    kicks.iter().for_each(|kick| drop(kick.write(FULL / 2)));
    scene.assert_undisturbed("storms of kicks");
    assert!(guest.test_unit_ready().good());
    drop(guest);
    scene.check("storms of kicks");
    scene.end();
}

/// What is no eventfd, or one that is readable for ever, is refused where it comes in: a wait for it would be a loop.
#[test]
fn kicks_that_never_end() {
    let mut scene = Scene::new();
    let semaphore = EventFd::new(EFD_SEMAPHORE | EFD_NONBLOCK).unwrap();
    semaphore.write(FULL).unwrap();
    let epoll = vmm_sys_util::epoll::Epoll::new().unwrap();
    let ready = EventFd::new(0).unwrap();
    ready.write(1).unwrap();
    let event = vmm_sys_util::epoll::EpollEvent::new(vmm_sys_util::epoll::EventSet::IN, 0);
    epoll.ctl(vmm_sys_util::epoll::ControlOperation::Add, ready.as_raw_fd(), event).unwrap();
    let mut timer = vmm_sys_util::timerfd::TimerFd::new().unwrap();
    timer.reset(Duration::from_micros(1), Some(Duration::from_micros(1))).unwrap();
    let kinds =
        [("a semaphore", semaphore.as_raw_fd()), ("an epoll set", epoll.as_raw_fd()), ("a timer", timer.as_raw_fd())];
    for (what, fd) in kinds {
        let guest = scene.guest();
        guest.wire.send(SET_VRING_KICK, &2u64.to_ne_bytes(), &[fd]);
        guest.wire.assert_closed();
        drop(guest);
        scene.check(what);
    }
    // To be told by a semaphore is no matter.
    let mut guest = scene.guest();
    guest.frontend.set_vring_call(2, &semaphore).unwrap();
    assert!(guest.test_unit_ready().good());
    drop(guest);
    scene.check("a semaphore to call");
    scene.end();
}

/// A front-end that sends eventfds as fast as it can, for rings that run: none piles up.
#[test]
fn floods_of_eventfds() {
    let mut scene = Scene::new();
    let mut guest = scene.guest();
    let event = EventFd::new(EFD_NONBLOCK).unwrap();
    let most = scene.vstgt.open_descriptors() + 16;
    for round in 0..3000u32 {
        for request in [SET_VRING_CALL, SET_VRING_ERR] {
            guest.wire.send(request, &2u64.to_ne_bytes(), &[event.as_raw_fd()]);
        }
        if round % 100 == 0 {
            assert!(scene.vstgt.open_descriptors() < most, "they are not kept");
        }
    }
    guest.wire.barrier();
    scene.assert_undisturbed("floods of eventfds");
    assert!(guest.test_unit_ready().good());
    drop(guest);
    scene.check("floods of eventfds");
    scene.end();
}

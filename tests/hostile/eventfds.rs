//! The eventfds that a front-end shares with us.

use super::*;

/// The front-end's eventfds used against us: full ones, and kicks that are taken away before they are read.
#[test]
fn eventfds() {
    let mut scene = Scene::new();
    let mut guest = scene.guest();
    // A call that is full: an interrupt cannot be written to it, and would block for ever on an eventfd that blocks.
    let call = vmm_sys_util::eventfd::EventFd::new(0).unwrap();
    call.write(u64::MAX - 1).unwrap();
    guest.frontend.set_vring_call(2, &call).unwrap();
    for _ in 0..10 {
        guest.submit(REQUESTS, &[0; 6], &[], &[]);
        guest.queue(REQUESTS).wait_used(BOUND).expect("answers come though no interrupt can");
    }
    scene.assert_undisturbed("meanwhile");
    // A kick that the front-end itself takes away as fast as it gives it, made blocking again behind the back of who made
    // it non-blocking: a plain read of it would block.
    let kick = Arc::new(vmm_sys_util::eventfd::EventFd::new(0).unwrap());
    guest.frontend.set_vring_kick(2, &kick).unwrap();
    // SAFETY: fcntl with F_SETFL takes an integer.
    #[allow(unsafe_code, reason = "there is no safe way to make a descriptor blocking again")]
    let rc = unsafe { libc::fcntl(kick.as_raw_fd(), libc::F_SETFL, libc::O_RDWR) };
    assert_eq!(rc, 0);
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
        scene.assert_undisturbed("meanwhile");
        kick.write(1).unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    while !thief.is_finished() {
        kick.write(1).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    thief.join().unwrap();
    drop(guest);
    scene.check("eventfds used against us");
    scene.end();
}

//! Connections: halfway, in crowds, never read.

use super::*;

/// Front-ends that stop in the middle: half a message, answers never read, connections by the dozen.
#[test]
fn front_ends_that_stop_halfway() {
    let mut scene = Scene::new();
    let path = scene.vstgt.socket(0).to_owned();
    let connect = || std::os::unix::net::UnixStream::connect(&path).unwrap();
    let mut half = connect();
    half.write_all(&[1, 0, 0]).unwrap();
    let mut half_body = connect();
    half_body.write_all(&[2, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 1]).unwrap();
    let unread = Wire::new(connect());
    unread.0.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    while unread.try_send(GET_FEATURES as u32, VERSION, &[], &[]).is_ok() {}
    scene.assert_serves("front-ends that stop halfway");
    // No more than so many at once of one socket; the surplus is closed, and when they go others may come.
    let many: Vec<_> = (0..100).map(|_| connect()).collect();
    let vstgt = &scene.vstgt;
    eventually("most are closed", || vstgt.threads() < 40);
    scene.assert_undisturbed("meanwhile");
    drop((half, half_body, unread, many));
    scene.check("a crowd of front-ends");
    // None of them keeps the process from ending.
    let mut half = connect();
    half.write_all(&[1, 0, 0]).unwrap();
    scene.end();
}

/// It asks and never reads an answer. Its rings run on; what waits for its session is the front-end itself, and the end of the process does
/// not wait for it.
#[test]
fn a_front_end_that_never_reads() {
    let mut scene = Scene::new();
    let mut guest = scene.guest();
    guest.wire.0.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    while guest.wire.try_send(GET_FEATURES as u32, VERSION, &[], &[]).is_ok() {}
    for seed in 0..50 {
        guest.check_io(seed);
    }
    scene.assert_undisturbed("a front-end that never reads");
    // It goes, and the next one gets its place.
    drop(guest);
    scene.check("a front-end that never reads");
    let guest = scene.guest();
    guest.wire.0.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    while guest.wire.try_send(GET_FEATURES as u32, VERSION, &[], &[]).is_ok() {}
    let start = Instant::now();
    scene.end();
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    drop(guest);
}

/// As many connections as there may be, which say nothing or half a thing and stay: who has something to say is served.
#[test]
fn silent_front_ends_keep_nobody_out() {
    let mut scene = Scene::new();
    let path = scene.vstgt.socket(0).to_owned();
    let silent: Vec<UnixStream> = (0..20)
        .map(|i| {
            let stream = UnixStream::connect(&path).unwrap();
            let half = [&[][..], &[1, 0, 0], &[1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]][i % 3];
            (&stream).write_all(half).unwrap();
            stream
        })
        .collect();
    for round in 0..3 {
        let mut guest = scene.guest();
        guest.check_io(round);
        guest.stop();
    }
    scene.assert_undisturbed("silent front-ends");
    assert!(scene.vstgt.threads() < 24);
    drop(silent);
    scene.check("silent front-ends");
    scene.end();
}

/// Connections that come and go as fast as they can, from several threads, at any stage of the handshake: a guest of the same socket is
/// served in time, others do not notice, and nothing grows.
#[test]
fn floods_of_connections() {
    let mut scene = Scene::new();
    let path = scene.vstgt.socket(0).to_owned();
    let stop = AtomicBool::new(false);
    let came: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3u64)
            .map(|which| {
                let (path, stop) = (&path, &stop);
                scope.spawn(move || {
                    let mut came = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let Ok(stream) = UnixStream::connect(path) else { continue };
                        came += 1;
                        let wire = Wire::new(stream);
                        let messages = [(GET_FEATURES, 0), (SET_OWNER, 0), (GET_QUEUE_NUM, 0), (SET_VRING_NUM, 8)];
                        for (request, len) in messages.into_iter().take(((which + came) % 5) as usize) {
                            if wire.try_send(request as u32, VERSION, &vec![0; len], &[]).is_err() {
                                break;
                            }
                        }
                    }
                    came
                })
            })
            .collect();
        let start = Instant::now();
        let mut most = 0;
        for round in 0..5 {
            let began = Instant::now();
            // Its connection may be among those that are closed because there are too many.
            eventually("a guest is served", || {
                let guest = std::panic::catch_unwind(|| Guest::attached(&path));
                guest.is_ok_and(|mut guest| {
                    guest.check_io(round);
                    true
                })
            });
            println!("a guest was served after {:?}", began.elapsed());
            most = most.max(scene.vstgt.threads());
            scene.assert_undisturbed("floods of connections");
        }
        assert!(most < 40, "{most} threads");
        println!("{:?}", start.elapsed());
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    println!("{came} connections");
    scene.check("floods of connections");
    scene.end();
}

/// Guests that are lost and come back, again and again, with commands under way.
#[test]
fn guests_that_come_and_go() {
    let mut scene = Scene::new();
    for round in 0..60u32 {
        let mut guest = scene.guest();
        let at = guest.ram.alloc(65536);
        for i in 0..20 {
            guest.submit(REQUESTS, &rw10(0x28, (round + i) * 128, 65536), &[], &[Buffer::input(at, 65536)]);
        }
        if round % 10 == 0 {
            scene.assert_undisturbed("guests that come and go");
        }
    }
    scene.check("guests that come and go");
    scene.end();
}

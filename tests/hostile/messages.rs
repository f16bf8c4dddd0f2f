//! Messages that make no sense, and descriptors with them.

use super::*;

/// Messages that make no sense, each on its own connection while it runs.
#[test]
fn messages() {
    let mut scene = Scene::new();
    let region = WireRegion { guest: 0, size: RAM, user: 0, offset: 0 };
    let cases: Vec<(&str, u32, u32, Vec<u8>)> = vec![
        ("no such message", 0, VERSION, vec![]),
        ("no such message either", 99, VERSION, vec![0; 8]),
        ("wrong version", GET_FEATURES as u32, 3, vec![]),
        ("an answer", GET_FEATURES as u32, VERSION | 4, vec![]),
        ("too long", SET_OWNER as u32, VERSION, vec![0; 4096]),
        ("much too long", SET_OWNER as u32, VERSION, vec![0; 100_000]),
        ("too short", SET_FEATURES as u32, VERSION, vec![0; 7]),
        ("ring 256", SET_VRING_NUM as u32, VERSION, Wire::state(256, 128).to_vec()),
        ("ring 4294967295", GET_VRING_BASE as u32, VERSION, Wire::state(u32::MAX, 0).to_vec()),
        ("ring size 3", SET_VRING_NUM as u32, VERSION, Wire::state(3, 3).to_vec()),
        ("ring size 4096", SET_VRING_NUM as u32, VERSION, Wire::state(3, 4096).to_vec()),
        ("ring base 65536", SET_VRING_BASE as u32, VERSION, Wire::state(3, 65536).to_vec()),
        ("size of a live ring", SET_VRING_NUM as u32, VERSION, Wire::state(2, 64).to_vec()),
        ("addresses of nothing", SET_VRING_ADDR as u32, VERSION, Wire::addr(2, 0, 0x10, 0x20, 0x40)),
        ("unaligned addresses", SET_VRING_ADDR as u32, VERSION, Wire::addr(2, 0, 1, 1, 1)),
        ("neither on nor off", SET_VRING_ENABLE as u32, VERSION, Wire::state(2, 2).to_vec()),
        ("a kick without its descriptor", SET_VRING_KICK as u32, VERSION, 2u64.to_ne_bytes().to_vec()),
        ("memory without its descriptor", ADD_MEM_REG as u32, VERSION, Wire::single(&region)),
        ("a table without descriptors", SET_MEM_TABLE as u32, VERSION, Wire::table(&[region])),
        ("an empty table", SET_MEM_TABLE as u32, VERSION, Wire::table(&[])),
        ("a table of 2^32-1 regions", SET_MEM_TABLE as u32, VERSION, (u64::from(u32::MAX)).to_ne_bytes().to_vec()),
        ("no such region", REM_MEM_REG as u32, VERSION, Wire::single(&region)),
        ("dirty log", SET_LOG_BASE as u32, VERSION, vec![0; 16]),
        ("inflight buffer", GET_INFLIGHT_FD as u32, VERSION, vec![0; 24]),
        ("configuration", GET_CONFIG as u32, VERSION, vec![0; 12]),
        ("status", SET_STATUS as u32, VERSION, vec![0; 8]),
    ];
    for (what, code, flags, body) in cases {
        let guest = scene.guest();
        // The send itself may fail when the other side closes in the middle of it.
        let sent = guest.wire.try_send(code, flags, &body, &[]);
        println!("{what}: {sent:?}");
        guest.wire.assert_closed();
        drop(guest);
        scene.check(what);
    }
    scene.end();
}

/// Descriptors of the wrong kind, too many, and where none belong: refused, and closed.
#[test]
fn descriptors() {
    let mut scene = Scene::new();
    let before = scene.vstgt.open_descriptors();
    let file = memfd(4096, 0).unwrap();
    let directory = std::fs::File::open("/").unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let kinds = [file.as_raw_fd(), directory.as_raw_fd(), reader.as_raw_fd(), writer.as_raw_fd()];
    for fd in kinds {
        for request in [SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR] {
            let guest = scene.guest();
            guest.wire.send(request, &2u64.to_ne_bytes(), &[fd]);
            guest.wire.assert_closed();
        }
    }
    let region = WireRegion { guest: 1 << 32, size: 4096, user: 1 << 32, offset: 0 };
    for fd in &kinds[1..] {
        let guest = scene.guest();
        guest.wire.send(ADD_MEM_REG, &Wire::single(&region), &[*fd]);
        guest.wire.assert_closed();
    }
    for count in [1, 2, 32, 33, 250] {
        let guest = scene.guest();
        let fds = vec![file.as_raw_fd(); count];
        guest.wire.send(GET_FEATURES, &[], &fds);
        if count <= 32 {
            guest.wire.assert_closed();
        }
    }
    scene.check("descriptors");
    let vstgt = &scene.vstgt;
    eventually("descriptors are closed", || vstgt.open_descriptors() <= before + 4);
    scene.end();
}

/// Random messages, some with descriptors: whatever comes, the other guest goes on.
#[test]
fn random_messages() {
    let mut scene = Scene::on_several_reactors();
    let file = memfd(RAM, 0).unwrap();
    let event = vmm_sys_util::eventfd::EventFd::new(libc::EFD_NONBLOCK).unwrap();
    for seed in 0..300u64 {
        let stream = std::os::unix::net::UnixStream::connect(scene.vstgt.socket(0)).unwrap();
        let wire = Wire::new(stream);
        wire.0.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        for step in 0..40u64 {
            let noise = pattern(seed * 1000 + step, 64);
            let code = u32::from(noise[0] % 45);
            // Mostly plausible fields: few rings, few sizes, few addresses.
            let small = |byte: u8| u64::from(byte % 6);
            let state = Wire::state(small(noise[1]) as u32, [0, 1, 2, 128, 256, 1024][usize::from(noise[2] % 6)]);
            let at = 0x1000 * small(noise[3]);
            let region = WireRegion { guest: at << 10, size: 0x40_0000, user: at << 10, offset: 0 };
            let (body, fds): (Vec<u8>, Vec<i32>) = match FrontendReq::try_from(code) {
                Ok(SET_VRING_NUM | SET_VRING_BASE | GET_VRING_BASE | SET_VRING_ENABLE) => (state.to_vec(), vec![]),
                Ok(SET_VRING_ADDR) => (Wire::addr(small(noise[1]) as u32, 0, at, at + 0x2000, at + 0x1000), vec![]),
                Ok(SET_VRING_KICK | SET_VRING_CALL | SET_VRING_ERR) => {
                    (small(noise[1]).to_ne_bytes().to_vec(), vec![event.as_raw_fd()])
                }
                Ok(SET_MEM_TABLE) => (Wire::table(&[region]), vec![file.as_raw_fd()]),
                Ok(ADD_MEM_REG) => (Wire::single(&region), vec![file.as_raw_fd()]),
                Ok(REM_MEM_REG) => (Wire::single(&region), vec![]),
                Ok(SET_FEATURES) => ((LINUX_FEATURES & u64::MAX << (noise[4] % 2)).to_ne_bytes().to_vec(), vec![]),
                Ok(SET_PROTOCOL_FEATURES) => (PROTOCOL_BITS.to_ne_bytes().to_vec(), vec![]),
                _ if !noise[5].is_multiple_of(4) => continue,
                _ => (noise[8..8 + usize::from(noise[6] % 40)].to_vec(), vec![]),
            };
            let flags = VERSION | if noise[7].is_multiple_of(2) { NEED_REPLY } else { 0 };
            if wire.try_send(code, flags, &body, &fds).is_err() {
                break;
            }
            event.write(1).unwrap();
            drop(event.read());
        }
    }
    // The last of them may not have been seen to go yet, and a socket takes so many at a time.
    eventually("connections are taken again", || {
        let next = Guest::connect(scene.vstgt.socket(0), Ram::new(1 << 20));
        next.frontend.get_features().is_ok()
    });
    scene.check("random messages");
    scene.end();
}

/// A message as it is on the wire.
fn message(request: FrontendReq, flags: u32, body: &[u8]) -> Vec<u8> {
    let header = [request as u32, flags, body.len() as u32].map(u32::to_ne_bytes).concat();
    [&header, body].concat()
}

/// Byte for byte: a message is served when it is whole, or it ends its connection; it holds up nobody.
#[test]
fn messages_that_come_slowly() {
    let mut scene = Scene::new();
    let enable = message(SET_VRING_ENABLE, VERSION, &Wire::state(2, 1));
    let messages = [
        message(GET_FEATURES, VERSION, &[]),
        message(SET_OWNER, VERSION, &[]),
        message(SET_FEATURES, VERSION, &LINUX_FEATURES.to_ne_bytes()),
        // Before features it is taken out of the stream by another hand.
        enable,
    ];
    for (at, bytes) in messages.iter().enumerate() {
        let stream = UnixStream::connect(scene.vstgt.socket(0)).unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        let mut sent = 0;
        for byte in bytes {
            std::thread::sleep(Duration::from_millis(3));
            if (&stream).write_all(&[*byte]).is_err() {
                break;
            }
            sent += 1;
        }
        scene.assert_undisturbed("messages that come slowly");
        // Whatever became of it, a question is answered, or the connection is over.
        let asked = (&stream).write_all(&message(GET_QUEUE_NUM, VERSION, &[]));
        let answered = (&stream).read(&mut [0; 64]);
        println!("message {at}: {sent} of {} bytes taken, {asked:?}, {answered:?}", bytes.len());
        drop(stream);
        scene.check("messages that come slowly");
    }
    scene.end();
}

/// An answer is asked for with everything, also where the message has one of its own: one comes for each.
#[test]
fn answers_to_everything() {
    let mut scene = Scene::new();
    let guest = raw(scene.vstgt.socket(0), &Ram::new(RAM));
    let acked = VERSION | NEED_REPLY;
    let ask = |request: FrontendReq, body: &[u8]| {
        guest.wire.try_send(request as u32, acked, body, &[]).unwrap();
        guest.wire.reply(request)
    };
    guest.wire.get(GET_PROTOCOL_FEATURES);
    guest.wire.set_u64(SET_PROTOCOL_FEATURES, PROTOCOL_BITS);
    for _ in 0..100 {
        for request in [GET_FEATURES, GET_PROTOCOL_FEATURES, GET_QUEUE_NUM, GET_MAX_MEM_SLOTS, SET_OWNER, RESET_DEVICE]
        {
            assert_eq!(ask(request, &[]).len(), 8, "{request:?}");
        }
        assert_eq!(ask(SET_FEATURES, &LINUX_FEATURES.to_ne_bytes()), [0; 8]);
        assert_eq!(ask(SET_VRING_NUM, &Wire::state(5, 64)), [0; 8]);
        assert_eq!(ask(GET_VRING_BASE, &Wire::state(5, 0)).len(), 8);
    }
    // After an error there is nobody to ask.
    assert_eq!(guest.wire.acked(SET_VRING_NUM, &Wire::state(5, 3), &[]), 1);
    while guest.wire.try_send(GET_FEATURES as u32, VERSION, &[], &[]).is_ok() {}
    drop(guest);
    scene.check("answers to everything");
    scene.end();
}

/// A front-end that asks without a pause, from as many connections as it gets.
#[test]
fn floods_of_messages() {
    let mut scene = Scene::in_memory();
    let connections: Vec<Guest> = (0..7).map(|_| raw(scene.vstgt.socket(0), &Ram::new(1 << 20))).collect();
    let stop = AtomicBool::new(false);
    let asked: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = connections
            .iter()
            .map(|guest| {
                scope.spawn(|| {
                    let mut asked = 0u64;
                    while !stop.load(Ordering::Relaxed) {
                        guest.wire.set_state(SET_VRING_NUM, 5, 64);
                        guest.wire.barrier();
                        asked += 1;
                    }
                    asked
                })
            })
            .collect();
        let stopping = Stopping(&stop);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(1) {
            scene.assert_undisturbed("floods of messages");
        }
        drop(stopping);
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    println!("{asked} questions");
    drop(connections);
    scene.check("floods of messages");
    scene.end();
}

/// Front-ends take all descriptors that the process may have: they are refused theirs, and the others keep what they have.
#[test]
fn descriptors_run_out() {
    const LIMIT: u64 = 400;
    let mut scene = Scene::with(2, |command| {
        let limit = libc::rlimit { rlim_cur: LIMIT, rlim_max: LIMIT };
        // SAFETY: setrlimit is async-signal-safe and reads a struct that lives in the closure.
        #[allow(unsafe_code, reason = "there is no safe way to limit a child's descriptors")]
        unsafe {
            std::os::unix::process::CommandExt::pre_exec(command, move || {
                libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
                Ok(())
            });
        }
    });
    let event = vmm_sys_util::eventfd::EventFd::new(libc::EFD_NONBLOCK).unwrap();
    let take = |rings: u64| {
        let wire = Wire::new(UnixStream::connect(scene.vstgt.socket(0)).unwrap());
        for ring in 0..rings {
            for request in [SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR] {
                if wire.try_send(request as u32, VERSION, &ring.to_ne_bytes(), &[event.as_raw_fd()]).is_err() {
                    return None;
                }
            }
        }
        Some(wire)
    };
    let connections: Vec<Wire> = (0..3).map(|_| take(33).unwrap()).collect();
    connections.iter().for_each(Wire::barrier);
    let held = scene.vstgt.open_descriptors() as u64;
    assert!(held > 300, "{held} descriptors");
    for _ in 0..10 {
        if let Some(wire) = take(200) {
            wire.assert_closed();
        }
    }
    connections.iter().for_each(Wire::barrier);
    let vstgt = &scene.vstgt;
    eventually("those who want too many lose all of theirs", || vstgt.open_descriptors() as u64 <= held);
    for _ in 0..5 {
        scene.assert_undisturbed("descriptors run out");
    }
    drop(connections);
    scene.check("descriptors run out");
    scene.end();
}

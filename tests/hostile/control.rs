//! The control queue and the event queue.

use super::*;

/// Nonsense on the control and on the event queue.
#[test]
fn control_and_event_queues() {
    let mut scene = Scene::new();
    let requests: [(&str, Vec<u8>, u32); 8] = [
        ("an empty request", vec![], 1),
        ("an unknown type", [9u32.to_le_bytes().to_vec(), vec![0; 20]].concat(), 1),
        ("an unknown function", [0u32.to_le_bytes(), 77u32.to_le_bytes()].concat().repeat(3), 1),
        ("half a function", vec![0; 11], 1),
        ("no room for a response", vec![0; 24], 0),
        ("half an asynchronous query", vec![1, 0, 0, 0, 1], 5),
        ("an asynchronous query without room", [1u32.to_le_bytes().to_vec(), vec![0; 12]].concat(), 2),
        ("a subscription for everything", [2u32.to_le_bytes().to_vec(), vec![0xff; 12]].concat(), 5),
    ];
    for (what, request, room) in requests {
        let mut guest = scene.guest();
        let (at, response) = (guest.ram.alloc(64), guest.ram.alloc(64));
        guest.ram.write(at, &request);
        let mut chain = Vec::new();
        if !request.is_empty() {
            chain.push(Buffer::out(at, request.len() as u32));
        }
        if room > 0 {
            chain.push(Buffer::input(response, room));
        }
        guest.queue(0).push(&chain);
        guest.queue(0).kick();
        println!("{what}: {:?}", outcome_on(&mut guest, 0));
        assert!(guest.test_unit_ready().good(), "{what}: commands go on");
    }
    scene.check("nonsense on the control queue");

    // Buffers of the event queue wait; bad ones may come back at once or break it, but nothing else.
    let mut guest = scene.guest();
    let at = guest.ram.alloc(64);
    for chain in [
        vec![Buffer::out(at, 16)],
        vec![Buffer::input(at, 3)],
        vec![Buffer::input(OUTSIDE, 16)],
        vec![Buffer::input(at, 16)],
    ] {
        guest.queue(1).push(&chain);
        guest.queue(1).kick();
    }
    guest.queue(1).write_desc(100, at, 16, F_NEXT | F_WRITE, 100);
    guest.queue(1).push_head(100);
    guest.queue(1).push_head(0xffff);
    guest.queue(1).kick();
    assert!(guest.test_unit_ready().good());
    assert_eq!(guest.stop().len(), 3);
    drop(guest);
    scene.check("nonsense on the event queue");
    scene.end();
}

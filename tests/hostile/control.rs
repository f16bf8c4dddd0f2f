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

/// What is asked of units that are not there is answered so, whatever is asked (SAM-5 7.1: INCORRECT LOGICAL UNIT NUMBER); and where it names
/// nothing, so is a command.
#[test]
fn functions_for_units_that_are_not_there() {
    let mut scene = Scene::new();
    let mut a = Driver::new(scene.guest());
    let nowhere =
        [lun(0, 1), lun(0, 255), lun(0, 0x3fff), lun(7, 0), lun(255, 9), [1, 0, 0xc1, 2, 0, 0, 0, 0], [0xff; 8]];
    for to in nowhere {
        for subtype in 0..8 {
            let sent = a.function(subtype, to, 5);
            let answer = a.wait_function(&sent);
            // CLEAR ACA (2) needs NACA, which is a unit's. I_T NEXUS RESET (4) is addressed to the port.
            let expected: &[u8] =
                if subtype == 4 { &[OK, INCORRECT_LUN, BAD_TARGET] } else { &[INCORRECT_LUN, BAD_TARGET] };
            assert!(expected.contains(&answer), "function {subtype} to {to:02x?}: {answer}");
        }
        let sent = a.function(8, to, 5);
        assert!([FUNCTION_REJECTED, FAILURE].contains(&a.wait_function(&sent)));
    }
    drop(a);
    scene.check("functions for units that are not there");
    scene.end();
}

/// A control queue full of requests of all kinds, again and again: all are answered, and cost the others little.
#[test]
fn thousands_of_control_requests() {
    const SIZE: u16 = 1024;
    let mut scene = Scene::new();
    let mut guest = Guest::connect(scene.vstgt.socket(0), Ram::new(RAM));
    guest.negotiate();
    guest.start(LINUX_FEATURES, &[0, 1, 2, 3], SIZE);
    guest.clear_attentions();
    let ram = guest.ram.clone();
    let mut requests: Vec<Vec<u8>> = Vec::new();
    for to in [lun(0, 0), lun(0, 9), lun(3, 0)] {
        // No resets: what they are to do to others they do.
        for subtype in [0u32, 1, 6, 7, 2, 77] {
            requests.push([&0u32.to_le_bytes()[..], &subtype.to_le_bytes(), &to, &7u64.to_le_bytes()].concat());
        }
        for kind in [1u32, 2] {
            requests.push([&kind.to_le_bytes()[..], &to, &u32::MAX.to_le_bytes()].concat());
        }
    }
    // One table for each kind, to which many heads refer.
    let response = ram.alloc(64);
    let tables: Vec<u64> = requests
        .iter()
        .map(|request| {
            let at = ram.alloc(32);
            ram.write(at, request);
            let table = ram.alloc(32);
            for (i, (addr, len, flags)) in
                [(at, request.len() as u32, F_NEXT), (response, 5, F_WRITE)].iter().enumerate()
            {
                let next = [1u16, 0][i].to_le_bytes();
                let entry = [&addr.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next].concat();
                ram.write(table + 16 * i as u64, &entry);
            }
            table
        })
        .collect();
    for round in 0..5 {
        for head in 0..SIZE {
            let queue = guest.queue(0);
            queue.write_desc(head, tables[usize::from(head) % tables.len()], 32, F_INDIRECT, 0);
            queue.push_head(head);
        }
        guest.queue(0).kick();
        // Commands of the same guest go on beside it.
        let start = Instant::now();
        assert!(guest.test_unit_ready().good());
        println!("round {round}: a command beside it took {:?}", start.elapsed());
        scene.assert_undisturbed("thousands of control requests");
        for _ in 0..SIZE {
            guest.queue(0).wait_used(BOUND).expect("each is answered");
        }
    }
    // And once more without waiting for the end.
    for head in 0..SIZE {
        guest.queue(0).push_head(head);
    }
    guest.queue(0).kick();
    drop(guest);
    scene.check("thousands of control requests");
    scene.end();
}

/// Event buffers of every size, as many as there is room for, and heads that repeat: they wait, or break their ring.
#[test]
fn event_buffers_without_end() {
    const SIZE: u16 = 1024;
    let mut scene = Scene::new();
    for absurd in [false, true] {
        let mut guest = Guest::connect(scene.vstgt.socket(0), Ram::new(RAM));
        guest.negotiate();
        guest.start(LINUX_FEATURES, &[0, 1, 2], SIZE);
        guest.clear_attentions();
        let at = guest.ram.alloc(4096);
        for head in 0..SIZE {
            let len = [16, 0, 1, 4096, u32::MAX][usize::from(head % 5)];
            let (addr, flags) = if absurd { (OUTSIDE, 0) } else { (at, F_WRITE) };
            guest.queue(1).write_desc(head, addr, len, flags, 0);
            guest.queue(1).push_head(if absurd { 7 } else { head });
            if head % 8 == 0 {
                guest.queue(1).kick();
            }
        }
        guest.queue(1).kick();
        assert!(guest.test_unit_ready().good());
        assert_eq!(guest.stop().len(), 3);
        drop(guest);
        scene.check("event buffers without end");
    }
    scene.end();
}

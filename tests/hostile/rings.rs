//! Rings that contradict themselves.

use super::*;

/// The available index jumps, the rings lie over each other, heads are repeated.
#[test]
fn rings() {
    type Act = fn(&mut Guest, &Parts);
    let acts: [(&str, Act); 7] = [
        ("the available index jumps ahead by 1000", |g, _| {
            let index = g.queue(2).avail_idx;
            g.queue(2).set_avail_idx(index.wrapping_add(1000));
        }),
        ("the available index goes back", |g, _| {
            let index = g.queue(2).avail_idx;
            g.queue(2).set_avail_idx(index.wrapping_sub(1));
        }),
        ("the available index jumps by the ring's size and one", |g, _| {
            let index = g.queue(2).avail_idx;
            g.queue(2).set_avail_idx(index.wrapping_add(129));
        }),
        ("one head, a ring full of it", |g, p| {
            g.queue(2).write_desc(0, p.header, 51, F_NEXT, 1);
            g.queue(2).write_desc(1, p.response, 108, F_NEXT | F_WRITE, 2);
            g.queue(2).write_desc(2, p.data, 4096, F_WRITE, 0);
            for _ in 0..128 {
                g.queue(2).push_head(0);
            }
        }),
        ("data is read into the descriptor table", |g, p| {
            let desc = g.queue(2).desc;
            g.queue(2).push(&[Buffer::out(p.header, 51), Buffer::input(p.response, 108), Buffer::input(desc, 2048)]);
        }),
        ("data is read into the used ring", |g, p| {
            let used = g.queue(2).used;
            g.queue(2).push(&[Buffer::out(p.header, 51), Buffer::input(p.response, 108), Buffer::input(used, 512)]);
        }),
        ("data is read into the available ring", |g, p| {
            let avail = g.queue(2).avail;
            g.queue(2).push(&[Buffer::out(p.header, 51), Buffer::input(p.response, 108), Buffer::input(avail, 256)]);
        }),
    ];
    let mut scene = Scene::new();
    // What the guest reads into its rings is chosen by itself.
    let mut guest = scene.guest();
    guest.write_blocks(0, &pattern(99, 4096));
    drop(guest);
    for (what, act) in acts {
        let mut guest = scene.guest();
        let parts = parts(&guest, &rw10(0x28, 0, 4096));
        act(&mut guest, &parts);
        guest.queue(REQUESTS).kick();
        let outcome = outcome_on(&mut guest, REQUESTS);
        println!("{what}: {outcome:?}");
        drop(guest);
        scene.check(what);
    }
    // All parts of a ring at one place.
    let mut guest = Guest::connect(scene.vstgt.socket(0), Ram::new(RAM));
    guest.negotiate();
    guest.set_features(LINUX_FEATURES);
    guest.add_region(0);
    let mut queue = guest.make_queue(REQUESTS, 128);
    queue.avail = queue.desc;
    queue.used = queue.desc;
    guest.set_up(&queue);
    guest.frontend.set_vring_kick(2, &queue.kick).unwrap();
    guest.frontend.set_vring_enable(2, true).unwrap();
    for i in 0..1000u16 {
        guest.ram.write(queue.desc, &pattern(i.into(), 2048));
        queue.kick();
    }
    drop(guest);
    scene.check("all parts of a ring at one place");
    scene.end();
}

/// One table of many descriptors, which all heads of many rings refer to, costs no host memory for each of them: neither while the
/// commands run nor after.
#[test]
fn one_table_for_all_heads() {
    const RINGS: u16 = 12;
    const SIZE: u16 = 1024;
    const PIECES: u64 = 1000;
    let mut scene = Scene::new();
    let before = scene.vstgt.anonymous_kib();
    let mut after = Vec::new();
    for (round, count) in [(0, RINGS), (1, RINGS / 2)] {
        let mut guest = Guest::connect(scene.vstgt.socket(0), Ram::new(RAM));
        guest.negotiate();
        let rings: Vec<u16> = (2..2 + count).collect();
        guest.start(LINUX_FEATURES, &rings, SIZE);
        guest.clear_attentions();
        let ram = guest.ram.clone();
        let (header, response, data) = (ram.alloc(51), ram.alloc(108), ram.alloc(2 * 512 * PIECES));
        ram.write(header, &Guest::header(lun(0, 0), &rw10(0x28, 0, 512 * PIECES as usize)));
        let table = ram.alloc(16 * (PIECES + 2));
        let entry = |at: u64, addr: u64, len: u32, flags: u16| {
            let mut bytes = addr.to_le_bytes().to_vec();
            bytes.extend(len.to_le_bytes());
            bytes.extend(flags.to_le_bytes());
            bytes.extend((at as u16 + 1).to_le_bytes());
            ram.write(table + 16 * at, &bytes);
        };
        entry(0, header, 51, F_NEXT);
        entry(1, response, 108, F_NEXT | F_WRITE);
        for piece in 0..PIECES {
            // They do not adjoin, so that each stays a piece of its own.
            let next = if piece + 1 < PIECES { F_NEXT } else { 0 };
            entry(2 + piece, data + 1024 * piece, 512, F_WRITE | next);
        }
        for &ring in &rings {
            let queue = guest.queue(ring);
            for head in 0..SIZE {
                queue.write_desc(head, table, 16 * (PIECES as u32 + 2), F_INDIRECT, 0);
                queue.push_head(head);
            }
            queue.kick();
        }
        let mut most = 0;
        for &ring in &rings {
            for _ in 0..SIZE {
                guest.queue(ring).wait_used(BOUND).expect("each is answered");
            }
            most = most.max(scene.vstgt.anonymous_kib());
        }
        let grown = most.saturating_sub(before) >> 10;
        println!("round {round}: grown by {grown} MiB");
        // 12 × 1024 × 1000 pieces, as descriptors and as addresses, would be 375 MiB.
        assert!(grown < 250, "grown by {grown} MiB");
        drop(guest);
        scene.check("one table for all heads");
        after.push(scene.vstgt.anonymous_kib());
    }
    println!("after each round: {after:?} KiB");
    assert!(after[1] < after[0] + (16 << 10), "what is left is used again: {after:?}");
    scene.end_having_kept(250 << 10);
}

/// A guest that makes heads available for ever and never looks at what was used.
#[test]
fn completions_that_are_never_taken() {
    let mut scene = Scene::new();
    let mut guest = scene.guest();
    let p = parts(&guest, &rw10(0x28, 0, 4096));
    guest.queue(2).write_desc(0, p.header, 51, F_NEXT, 1);
    guest.queue(2).write_desc(1, p.response, 108, F_NEXT | F_WRITE, 2);
    guest.queue(2).write_desc(2, p.data, 4096, F_WRITE, 0);
    let used = guest.queue(2).used + 2;
    for _ in 0..2000 {
        let before = guest.ram.load_u16(used);
        guest.queue(2).push_head(0);
        guest.queue(2).kick();
        // The head is the only one, so its last use must be over.
        let ram = guest.ram.clone();
        eventually("it is used", || ram.load_u16(used) != before);
    }
    scene.assert_undisturbed("completions that are never taken");
    assert_eq!(guest.stop().len(), 3);
    drop(guest);
    scene.check("completions that are never taken");
    scene.end();
}

/// As many rings as the front-end's library takes, as large as they may be, from one guest: what they cost is bounded, and given back.
#[test]
fn all_rings_at_their_largest() {
    const RINGS: u16 = 254;
    vstgt::sys::limits::raise_open_files().unwrap();
    let mut scene = Scene::on_several_reactors();
    let before = scene.vstgt.anonymous_kib();
    let mut grown = Vec::new();
    for _ in 0..2 {
        let mut guest = Guest::connect(scene.vstgt.socket(0), Ram::new(RAM));
        guest.negotiate();
        let rings: Vec<u16> = (0..RINGS).collect();
        guest.start(LINUX_FEATURES, &rings, 1024);
        guest.clear_attentions();
        grown.push(scene.vstgt.anonymous_kib().saturating_sub(before) >> 10);
        scene.assert_undisturbed("all rings at their largest");
        drop(guest);
        scene.check("all rings at their largest");
    }
    println!("grown by {grown:?} MiB");
    assert!(grown[0] < 200 && grown[1] < grown[0] + 16, "grown by {grown:?} MiB");
    scene.end_having_kept(200 << 10);
}

/// Rings that are started and stopped, and devices that are reset, as fast as it can be said, with commands in them.
#[test]
fn rings_that_start_and_stop_without_end() {
    let mut scene = Scene::on_several_reactors();
    let mut guest = scene.guest();
    let at = guest.ram.alloc(65536);
    for round in 0..300u32 {
        let (_, response) = guest.submit(REQUESTS, &rw10(0x28, round * 8, 65536), &[], &[Buffer::input(at, 65536)]);
        for on in [0, 1, 0, 1] {
            guest.wire.acked(SET_VRING_ENABLE, &Wire::state(2, on), &[]);
        }
        let (_, len) = guest.queue(REQUESTS).wait_used(BOUND).expect("taken before or after, it is answered");
        assert!(guest.parse_response(response, len).good());
        if round % 50 == 0 {
            scene.assert_undisturbed("rings that start and stop");
        }
    }
    for round in 0..100u32 {
        guest.submit(REQUESTS, &rw10(0x28, round * 8, 65536), &[], &[Buffer::input(at, 65536)]);
        guest.frontend.reset_device().unwrap();
        guest.queues.iter_mut().for_each(|queue| queue.clear());
        guest.set_features(LINUX_FEATURES);
        guest.go_on(&[0; 3]);
        guest.clear_attentions();
        if round % 20 == 0 {
            scene.assert_undisturbed("devices that are reset");
        }
    }
    drop(guest);
    scene.check("rings that start and stop without end");
    scene.end();
}

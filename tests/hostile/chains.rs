//! Descriptor chains and requests that make no sense.

use super::*;

/// One after the other, each on a fresh connection: malformed chains on a request queue. The ring goes on after those that are
/// answered.
#[test]
fn chains() {
    type Act = fn(&mut Guest, &Parts);
    let acts: [(&str, Act); 26] = [
        ("a loop of one", |g, p| {
            g.queue(2).write_desc(0, p.header, 51, F_NEXT, 0);
            g.queue(2).push_head(0);
        }),
        ("a loop of two", |g, p| {
            g.queue(2).write_desc(0, p.header, 51, F_NEXT, 1);
            g.queue(2).write_desc(1, p.response, 108, F_NEXT | F_WRITE, 0);
            g.queue(2).push_head(0);
        }),
        ("a loop in an indirect table", |g, p| {
            let mut entry = p.header.to_le_bytes().to_vec();
            entry.extend(51u32.to_le_bytes());
            entry.extend(F_NEXT.to_le_bytes());
            entry.extend(0u16.to_le_bytes());
            g.ram.write(p.data, &entry);
            g.queue(2).write_desc(0, p.data, 32, F_INDIRECT, 0);
            g.queue(2).push_head(0);
        }),
        ("a next index outside the table", |g, p| {
            g.queue(2).write_desc(0, p.header, 51, F_NEXT, 0xffff);
            g.queue(2).push_head(0);
        }),
        ("a head index outside the table", |g, _| g.queue(2).push_head(0x1000)),
        ("a header outside memory", |g, p| {
            g.queue(2).push(&[Buffer::out(OUTSIDE, 51), Buffer::input(p.response, 108)]);
        }),
        ("a header across the end of memory", |g, p| {
            g.queue(2).push(&[Buffer::out(RAM - 10, 51), Buffer::input(p.response, 108)]);
        }),
        ("a header at the end of the address space", |g, p| {
            g.queue(2).push(&[Buffer::out(u64::MAX - 10, 51), Buffer::input(p.response, 108)]);
        }),
        ("a response outside memory", |g, p| {
            g.queue(2).push(&[Buffer::out(p.header, 51), Buffer::input(OUTSIDE, 108)]);
        }),
        ("data outside memory", |g, p| {
            g.queue(2).push(&[Buffer::out(p.header, 51), Buffer::input(p.response, 108), Buffer::input(OUTSIDE, 4096)]);
        }),
        ("data across the end of memory", |g, p| {
            g.queue(2).push(&[
                Buffer::out(p.header, 51),
                Buffer::input(p.response, 108),
                Buffer::input(RAM - 100, 4096),
            ]);
        }),
        ("data at the end of the address space", |g, p| {
            g.queue(2).push(&[
                Buffer::out(p.header, 51),
                Buffer::input(p.response, 108),
                Buffer::input(u64::MAX - 100, 4096),
            ]);
        }),
        ("four times 4 GiB of data", |g, p| {
            let big = Buffer::input(p.data, u32::MAX);
            g.queue(2).push(&[Buffer::out(p.header, 51), Buffer::input(p.response, 108), big, big, big, big]);
        }),
        ("nothing to read", |g, p| {
            g.queue(2).push(&[Buffer::input(p.response, 108)]);
        }),
        ("nothing to write", |g, p| {
            g.queue(2).push(&[Buffer::out(p.header, 51)]);
        }),
        ("to write before to read", |g, p| {
            g.queue(2).push(&[Buffer::input(p.response, 108), Buffer::out(p.header, 51)]);
        }),
        ("a header of 10 bytes", |g, p| {
            g.queue(2).push(&[Buffer::out(p.header, 10), Buffer::input(p.response, 108)]);
        }),
        ("a response of 5 bytes", |g, p| {
            g.queue(2).push(&[Buffer::out(p.header, 51), Buffer::input(p.response, 5)]);
        }),
        ("buffers of no bytes", |g, p| {
            g.queue(2).push(&[Buffer::out(p.header, 0), Buffer::input(p.response, 0)]);
        }),
        ("data in both directions", |g, p| {
            g.queue(2).push(&[
                Buffer::out(p.header, 51 + 512),
                Buffer::input(p.response, 108),
                Buffer::input(p.data, 512),
            ]);
        }),
        ("an indirect table of no bytes", |g, p| {
            g.queue(2).write_desc(0, p.data, 0, F_INDIRECT, 0);
            g.queue(2).push_head(0);
        }),
        ("an indirect table of 17 bytes", |g, p| {
            g.queue(2).write_desc(0, p.data, 17, F_INDIRECT, 0);
            g.queue(2).push_head(0);
        }),
        ("an indirect table outside memory", |g, _| {
            g.queue(2).write_desc(0, OUTSIDE, 64, F_INDIRECT, 0);
            g.queue(2).push_head(0);
        }),
        ("an indirect table of 4 GiB", |g, p| {
            g.queue(2).write_desc(0, p.data, 0xffff_fff0, F_INDIRECT, 0);
            g.queue(2).push_head(0);
        }),
        ("an indirect table in an indirect table", |g, p| {
            let mut entry = p.data.to_le_bytes().to_vec();
            entry.extend(16u32.to_le_bytes());
            entry.extend(F_INDIRECT.to_le_bytes());
            entry.extend(0u16.to_le_bytes());
            g.ram.write(p.data, &entry);
            g.queue(2).write_desc(0, p.data, 16, F_INDIRECT, 0);
            g.queue(2).push_head(0);
        }),
        ("an indirect descriptor with a next one", |g, p| {
            g.queue(2).write_desc(0, p.data, 16, F_INDIRECT | F_NEXT, 1);
            g.queue(2).write_desc(1, p.response, 108, F_WRITE, 0);
            g.queue(2).push_head(0);
        }),
    ];
    let mut scene = Scene::new();
    for (what, act) in acts {
        let mut guest = scene.guest();
        let parts = parts(&guest, &rw10(0x28, 0, 4096));
        act(&mut guest, &parts);
        guest.queue(REQUESTS).kick();
        let outcome = outcome_on(&mut guest, REQUESTS);
        println!("{what}: {outcome:?}");
        if let Outcome::Used(_, len) = outcome {
            assert!(len <= 108 + 65536, "{what}: not more written than there was room for");
            // The ring goes on.
            assert!(guest.test_unit_ready().good(), "{what}: the ring goes on");
            assert_eq!(guest.stop().len(), 3);
        } else if outcome == Outcome::Broken {
            // It can still be stopped and set up again.
            assert_eq!(guest.stop().len(), 3, "{what}: stopping answers");
            guest.queue(REQUESTS).clear();
            guest.go_on(&[0, 0, 0]);
            assert!(guest.test_unit_ready().good(), "{what}: a new set-up works");
        }
        drop(guest);
        scene.check(what);
    }
    scene.end();
}

/// Those with room for a response get one that says FAILURE, and nothing outside of it is written.
#[test]
fn answers_to_bad_requests() {
    let vstgt = Vstgt::start(1);
    let mut guest = Guest::attached(vstgt.socket(0));
    let p = parts(&guest, &rw10(0x28, 0, 4096));
    guest.ram.write(p.data, &[0x5a; 4096]);
    let chains: [(&str, Vec<Buffer>); 4] = [
        (
            "a short header",
            vec![Buffer::out(p.header, 50), Buffer::input(p.response, 108), Buffer::input(p.data, 4096)],
        ),
        ("data outside", vec![Buffer::out(p.header, 51), Buffer::input(p.response, 108), Buffer::input(OUTSIDE, 4096)]),
        (
            "both directions",
            vec![
                Buffer::out(p.header, 51),
                Buffer::out(p.data, 4096),
                Buffer::input(p.response, 108),
                Buffer::input(p.data, 4096),
            ],
        ),
        ("header outside", vec![Buffer::out(OUTSIDE, 51), Buffer::input(p.response, 108)]),
    ];
    for (what, chain) in chains {
        guest.ram.write(p.response, &[0xff; 108]);
        let head = guest.queue(REQUESTS).push(&chain);
        guest.queue(REQUESTS).kick();
        let (used, len) = guest.queue(REQUESTS).wait_used(BOUND).expect("an answer");
        assert_eq!(used, head, "{what}");
        assert!((12..=108).contains(&len), "{what}: {len} bytes written");
        assert_eq!(guest.parse_response(p.response, len).response, 9, "{what}: VIRTIO_SCSI_S_FAILURE");
        assert_eq!(guest.ram.read(p.data, 4096), [0x5a; 4096], "{what}: data untouched");
    }
}

/// CDBs and headers of every byte: each is answered.
#[test]
fn random_requests() {
    let vstgt = Vstgt::start(2);
    let other = VerifiedIo::start(Guest::attached(vstgt.socket(1)));
    // Its own disk is at stake, not the other's blocks: everything but reads may be in here, so it gets a LUN that is not there
    // in two of three requests, and no write-like operation code in the third.
    let mut guest = Guest::attached(vstgt.socket(0));
    let (header, response, data) = (guest.ram.alloc(51), guest.ram.alloc(108), guest.ram.alloc(4096));
    for seed in 0..3000u64 {
        let mut bytes = pattern(seed, 51);
        bytes[..2].copy_from_slice(&[1, 0]);
        if seed % 3 == 0 {
            bytes[2..8].copy_from_slice(&[0x40, 0, 0, 0, 0, 0]);
            // INQUIRY, MODE SENSE, REPORT LUNS, REQUEST SENSE, READ of all sizes, REPORT SUPPORTED OPERATION CODES.
            const OPCODES: [u8; 10] = [0x12, 0x1a, 0x5a, 0xa0, 0x03, 0x08, 0x28, 0xa8, 0x88, 0xa3];
            bytes[19] = OPCODES[(seed / 3 % 10) as usize];
        }
        guest.ram.write(header, &bytes);
        let queue = guest.queue(REQUESTS);
        queue.push(&[Buffer::out(header, 51), Buffer::input(response, 108), Buffer::input(data, 4096)]);
        queue.kick();
        queue.wait_used(BOUND).unwrap_or_else(|| panic!("request {seed} is not answered: {bytes:02x?}"));
    }
    other.finish();
}

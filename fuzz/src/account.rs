//! A ring's account in an inflight buffer ("Inflight I/O tracking", split virtqueues, in QEMU's vhost-user specification) and what is
//! behind it there of vstgt's own, as somebody left it who may have been anybody. Written from the format's description, not with
//! vstgt's own writer.

use crate::front_end::RING;
use crate::input::Input;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// A ring's account.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    version: u16,
    desc_num: u16,
    last_batch_head: u16,
    used_idx: u16,
    states: Vec<State>,
}

/// What is said about one head.
#[derive(Clone, Debug)]
struct State {
    inflight: u8,
    next: u16,
    counter: u64,
    note: Option<Note>,
}

/// What vstgt notes about one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    word: u64,
    decision: u64,
    written: u32,
}

/// Bytes of a ring's region, and where one begins.
const REGION: u64 = (16 + 16 * RING as u64).next_multiple_of(64);

impl Account {
    /// Most of them can be right, of a ring whose used.idx stands there.
    pub(crate) fn read(input: &mut Input<'_>, used: u16) -> Account {
        let how = input.u8();
        let field = |bit: u8, usual: u16, input: &mut Input<'_>| if how & bit == 0 { usual } else { input.u16() };
        let version = field(1, 1, input);
        let desc_num = field(2, RING, input);
        let used_idx = field(4, used.wrapping_sub(u16::from(how >> 4)), input);
        let last_batch_head = field(8, 0, input);
        let mut states = Vec::new();
        for head in 0..RING {
            let what = input.u8();
            let counter = if what & 0x80 == 0 { u64::from(what >> 3 & 0xf) } else { input.u64() };
            let next = if what & 4 == 0 { (head + 1) % RING } else { input.u16() };
            let note = (what & 2 != 0).then(|| {
                let how = input.u8();
                let phase = u64::from(how & 3);
                let of = if how & 4 == 0 { counter } else { counter.wrapping_add(1) };
                let decision = match how >> 3 & 3 {
                    0 => u64::from(how >> 5),
                    1 => 1 << 63 | u64::from(how >> 5),
                    2 => 1 << 32 | u64::from(how >> 5),
                    _ => input.u64(),
                };
                Note { word: of << 2 | phase, decision, written: input.u8().into() }
            });
            states.push(State { inflight: what & 1, next, counter, note });
        }
        Account { version, desc_num, last_batch_head, used_idx, states }
    }

    /// Puts it where that of ring `ring` is in a buffer for so many rings, and vstgt's tail behind all.
    pub(crate) fn write(&self, file: &File, rings: u16, ring: u16) {
        let put = |at: u64, bytes: &[u8]| drop(file.write_at(bytes, at));
        let region = REGION * u64::from(ring);
        for (at, field) in [(8, self.version), (10, self.desc_num), (12, self.last_batch_head), (14, self.used_idx)] {
            put(region + at, &field.to_le_bytes());
        }
        let tail = REGION * u64::from(rings);
        put(tail, b"vstgtail");
        put(tail + 8, &1u32.to_le_bytes());
        put(tail + 12, &32u32.to_le_bytes());
        put(tail + 16, &rings.to_le_bytes());
        put(tail + 18, &RING.to_le_bytes());
        for (head, state) in (0u64..).zip(&self.states) {
            let at = region + 16 + 16 * head;
            put(at, &[state.inflight]);
            put(at + 6, &state.next.to_le_bytes());
            put(at + 8, &state.counter.to_le_bytes());
            let slot = tail + 64 + 32 * (u64::from(RING) * u64::from(ring) + head);
            let Note { word, decision, written } = state.note.unwrap_or(Note { word: 0, decision: 0, written: 0 });
            put(slot, &word.to_le_bytes());
            put(slot + 8, &decision.to_le_bytes());
            put(slot + 16, &written.to_le_bytes());
        }
    }

    /// What it says is in flight where used.idx stands there, in the order in which it was taken, each with the length of its
    /// answer if there is one. An account that cannot be right says nothing.
    pub(crate) fn owed(&self, used: u16) -> Vec<(u16, Option<u32>)> {
        let published = used.wrapping_sub(self.used_idx);
        if self.version != 1 || self.desc_num != RING || published > RING {
            return Vec::new();
        }
        let mut in_flight: HashMap<u16, u64> = HashMap::new();
        for (head, state) in (0..).zip(&self.states) {
            if state.inflight != 0 {
                in_flight.insert(head, state.counter);
            }
        }
        // The last batch, from its last one on: it was published although nothing says so.
        let mut head = self.last_batch_head;
        for _ in 0..published {
            let Some(state) = self.states.get(usize::from(head)) else { break };
            in_flight.remove(&head);
            head = state.next;
        }
        let mut heads: Vec<(u64, u16)> = in_flight.into_iter().map(|(head, counter)| (counter, head)).collect();
        heads.sort_unstable();
        let answered = |head: u16| {
            let state = &self.states[usize::from(head)];
            state.note.filter(|note| note.word == state.counter << 2 | 2).map(|note| note.written)
        };
        heads.into_iter().map(|(_, head)| (head, answered(head))).collect()
    }
}

/// Whether any head of a ring is in flight in a buffer.
pub(crate) fn anything_in_flight(file: &File, ring: u16) -> bool {
    let mut region = [0; REGION as usize];
    file.read_exact_at(&mut region, REGION * u64::from(ring)).expect("the buffer");
    (0..usize::from(RING)).any(|head| region[16 + 16 * head] != 0)
}

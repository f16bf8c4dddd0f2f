//! `session`: what a front-end may send over its socket, to a real session on a real target, with rings started and kicked.
//!
//! The input is a byte of settings and then steps: messages that are right but for what the input puts into their fields, messages that
//! are just bytes with any descriptors, and what a guest does in its memory meanwhile. Nobody waits: reactors and session run
//! as they do in the daemon.
//!
//! Held to: no panic in any thread; whatever was sent, the connection ends when the front-end goes, within seconds; every answer is one to a
//! message that was sent, in its order, and well-formed; no descriptor and no thread is left behind.

use crate::input::Input;
use crate::service::{Service, watched};

/// Steps of an input.
const STEPS: usize = 64;

/// Takes any bytes.
pub fn run(bytes: &[u8]) {
    watched(first, || play(Input::new(bytes)));
}

/// A handshake, two rings, an INQUIRY.
pub(crate) fn first() {
    play(Input::new(&[
        0, 0, 0, 1, 0, 0, 1, 2, 0, 2, 2, 8, 0, 7, 0x12, 0, 0, 0, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 96, 0, 26, 255,
    ]));
}

fn play(mut input: Input<'_>) {
    let mut service = Service::start(input.u8());
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        let what = input.u8();
        let which = usize::from(what >> 7);
        service.front_ends[which].step(what & 0x7f, &mut input);
    }
    for front_end in &mut service.front_ends {
        front_end.hear();
    }
    service.stop();
}

//! Races made on purpose: images hold their I/O while rings stop, devices are reset, connections break, memory goes away and
//! task management functions come. Every test runs with both ways to wait (`VSTGT_TEST_WAIT` restricts it to one).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

mod drive;
mod frontend;
mod held;

#[path = "held/functions.rs"]
mod functions;
#[path = "held/hostile.rs"]
mod hostile;
#[path = "held/memory.rs"]
mod memory;
#[path = "held/stopping.rs"]
mod stopping;

use std::sync::Arc;
use std::time::{Duration, Instant};

use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vstgt::backing::BackingError;

use drive::*;
use frontend::guest::{A_MOMENT, FrontendReq, FrontendReq::*, LINUX_FEATURES, RESPONSE, connect, lun, rw10};
use frontend::{BOUND, Buffer, Guest, Ram, VerifiedIo, Wire, eventually};
use held::image::Kind;
use held::{HeldImage, kinds, on_each, serve_units};

const LUN0: [u8; 8] = [1, 0, 0, 0, 0, 0, 0, 0];
const LUN1: [u8; 8] = [1, 0, 0, 1, 0, 0, 0, 0];
const TEST_UNIT_READY: [u8; 6] = [0; 6];

/// What the images of these tests hold at a block.
fn block(lba: u32) -> Vec<u8> {
    vec![(lba as u8).wrapping_add(1); 512]
}

/// Asks, with an acknowledgement wanted, and does not wait for it.
fn ask(guest: &Guest, request: FrontendReq, body: &[u8]) {
    guest.wire.try_send(request as u32, frontend::wire::VERSION | frontend::wire::NEED_REPLY, body, &[]).unwrap();
}

/// Nothing in guest memory changes any more.
fn assert_quiet(ram: &Ram) {
    let size = ram.regions[0].size as usize;
    let before = ram.read(0, size);
    std::thread::sleep(A_MOMENT);
    assert!(ram.read(0, size) == before, "guest memory was written to");
}

//! Hostile guests and front-ends against the real `vstgt`: each attempt gets an answer or costs only its own connection, while
//! a second guest's verified I/O runs on undisturbed and within its bound; the socket serves the next front-end as if nothing had been;
//! and neither descriptors nor threads, mappings or memory are left behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

#[path = "../drive/mod.rs"]
mod drive;
#[path = "../frontend/mod.rs"]
mod frontend;

mod chains;
mod connections;
mod control;
mod eventfds;
mod memory;
mod messages;
mod rings;
mod scene;

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use drive::{BAD_TARGET, Driver, FAILURE, FUNCTION_REJECTED, INCORRECT_LUN, OK};
use frontend::guest::{LINUX_FEATURES, REQUESTS, lun, pattern, raw, rw10};
use frontend::queue::{F_INDIRECT, F_NEXT, F_WRITE};
use frontend::ram::{Backing, memfd};
use frontend::wire::{NEED_REPLY, PROTOCOL_BITS, VERSION, WireRegion};
use frontend::{BOUND, Buffer, Guest, Ram, VerifiedIo, Vstgt, Wire, eventually};
use scene::{Outcome, Parts, Scene, outcome_on, parts};
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::FrontendReq::{self, *};

/// Guest memory of a guest as it usually is.
const RAM: u64 = 16 << 20;

/// An address that is nobody's memory.
const OUTSIDE: u64 = 0x7000_0000_0000;

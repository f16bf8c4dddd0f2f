//! A device that writes down what it is asked, for the tests of this room.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::{Device, Hangup, RingConfig, StartError};
use crate::mem::{DirtyLog, MemoryMap, UsedRingLog};

#[path = "../../tests/frontend/wire.rs"]
pub(super) mod wire;

/// What a device was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Features(u64),
    Start {
        index: u16,
        size: u16,
        desc: u64,
        avail: u64,
        used: u64,
        next_avail: u16,
        next_used: u16,
        kick: bool,
    },
    Stop(u16),
    NewInterrupt(u16, bool),
    SetErr(u16, bool),
    Memory {
        regions: usize,
        gone: bool,
    },
    /// Whether data is logged, and which rings are at which address.
    Log(bool, Vec<(u16, u64)>),
    Reset,
    Disconnected,
}

/// What the test and the device share.
#[derive(Default)]
pub(super) struct Book {
    pub(super) calls: Vec<Call>,
    /// How many chains each running ring has taken.
    pub(super) taken: HashMap<u16, u16>,
    pub(super) reject: Option<&'static str>,
    pub(super) hangup: Option<Hangup>,
    pub(super) map: Option<Arc<MemoryMap>>,
    pub(super) log: Option<Arc<DirtyLog>>,
    /// `disconnected` does not return while this is set.
    pub(super) stuck: bool,
    pub(super) running: HashMap<u16, RingConfig>,
}

#[derive(Clone, Default)]
pub(super) struct Mock(pub(super) Arc<(Mutex<Book>, Condvar)>);

impl Mock {
    pub(super) fn book<R>(&self, f: impl FnOnce(&mut Book) -> R) -> R {
        let result = f(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
        result
    }

    /// The calls since the last time.
    pub(super) fn calls(&self) -> Vec<Call> {
        self.book(|book| std::mem::take(&mut book.calls))
    }

    /// Waits until a call has been made, or gives up.
    pub(super) fn wait_for(&self, call: &Call) -> bool {
        let guard = self.0.0.lock().unwrap();
        let bound = Duration::from_secs(20);
        let (guard, _) = self.0.1.wait_timeout_while(guard, bound, |book| !book.calls.contains(call)).unwrap();
        guard.calls.contains(call)
    }

    fn note(&self, call: Call) {
        self.book(|book| book.calls.push(call));
    }
}

impl Device for Mock {
    fn connected(&mut self, hangup: Hangup) {
        self.book(|book| book.hangup = Some(hangup));
    }

    fn features(&self) -> u64 {
        // HOTPLUG, CHANGE, ANY_LAYOUT, INDIRECT_DESC, EVENT_IDX, VERSION_1.
        1 << 1 | 1 << 2 | 1 << 27 | 1 << 28 | 1 << 29 | 1 << 32
    }

    fn request_queues(&self) -> u16 {
        254
    }

    fn set_features(&mut self, acked: u64) {
        self.note(Call::Features(acked));
    }

    fn start_ring(&mut self, config: RingConfig) -> Result<(), StartError> {
        self.book(|book| {
            if let Some(why) = book.reject {
                return Err(StartError::LoginRejected(why.into()));
            }
            let RingConfig { index, size, desc, avail, used, next_avail, next_used, .. } = config;
            let kick = config.kick.is_some();
            book.calls.push(Call::Start { index, size, desc, avail, used, next_avail, next_used, kick });
            assert!(book.running.insert(index, config).is_none(), "ring {index} was running");
            Ok(())
        })
    }

    fn stop_ring(&mut self, index: u16) -> Option<u16> {
        self.book(|book| {
            book.calls.push(Call::Stop(index));
            let config = book.running.remove(&index)?;
            Some(config.next_avail.wrapping_add(book.taken.remove(&index).unwrap_or(0)))
        })
    }

    fn set_call(&mut self, index: u16, call: Option<File>) {
        self.note(Call::NewInterrupt(index, call.is_some()));
    }

    fn set_err(&mut self, index: u16, err: Option<File>) {
        self.note(Call::SetErr(index, err.is_some()));
    }

    fn set_memory(&mut self, map: Arc<MemoryMap>, gone: bool) {
        self.book(|book| {
            for config in book.running.values() {
                assert!(map.contains(config.desc, 16), "a running ring is always mapped");
            }
            book.calls.push(Call::Memory { regions: map.regions().len(), gone });
            book.map = Some(map);
        });
    }

    fn set_log(&mut self, log: Option<Arc<DirtyLog>>, rings: &[(u16, UsedRingLog)]) {
        let addresses = rings.iter().map(|(index, log)| (*index, log.addr)).collect();
        self.book(|book| {
            book.calls.push(Call::Log(log.is_some(), addresses));
            for config in book.running.values_mut() {
                config.used_log = rings.iter().find(|(index, _)| *index == config.index).map(|(_, log)| log.clone());
            }
            book.log = log;
        });
    }

    fn reset(&mut self) {
        self.book(|book| {
            book.running.clear();
            book.taken.clear();
            book.calls.push(Call::Reset);
        });
    }

    fn disconnected(&mut self) {
        self.book(|book| {
            book.running.clear();
            book.map = None;
            book.calls.push(Call::Disconnected);
        });
        drop(self.0.1.wait_while(self.0.0.lock().unwrap(), |book| book.stuck).unwrap());
    }
}

//! The thread that looks, now and then, at how much space the images' file systems have left.
//!
//! It is nobody's business how long a file system takes to answer: no command waits for this thread, and the process does not wait for it
//! when it ends.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::lu::{Crossing, Lu};

/// How long it rests. Space runs out at some gigabytes a second at most, and the least that units start with is some per cent of
/// a disk.
const REST: Duration = Duration::from_secs(2);

/// The running thread.
#[derive(Debug)]
pub(super) struct Watch {
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Watch {
    /// Watches units, each with the name of its image for the log; none if no unit has thresholds.
    ///
    /// # Errors
    ///
    /// There is no thread to be had.
    pub(super) fn start(units: impl Iterator<Item = (Arc<Lu>, String)>) -> io::Result<Option<Watch>> {
        let units: Vec<_> = units.filter(|(lu, _)| lu.threshold_exponent().is_some()).collect();
        if units.is_empty() {
            return Ok(None);
        }
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        let thread = std::thread::Builder::new().name("vstgt-space".into()).spawn(move || {
            while !stop.load(Ordering::Acquire) {
                units.iter().for_each(|(lu, name)| look(lu, name));
                std::thread::park_timeout(REST);
            }
        })?;
        Ok(Some(Watch { stopping, thread }))
    }

    /// Ends the thread soon, and does not wait for it.
    pub(super) fn stop(self) {
        self.stopping.store(true, Ordering::Release);
        self.thread.thread().unpark();
    }
}

fn look(lu: &Lu, name: &str) {
    match lu.look_at_space() {
        Some((_, Crossing::Reached)) => {
            log::warn!("{name}: its file system runs out of space; its initiators are told")
        }
        Some((_, Crossing::Left)) => log::info!("{name}: its file system has space again"),
        Some((_, Crossing::None)) | None => {}
    }
}

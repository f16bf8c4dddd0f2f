//! Intents: writes that a killed process had decided on, and that its successor finishes before anybody can look.
//!
//! COMPARE AND WRITE must not be carried out a second time: by then another initiator may have written the very same bytes (two that count
//! with it do), and nobody could tell whose they are. So what it is going to write is put down first, in memory that outlives the
//! process, and the successor writes it as it starts, before it serves anybody. Then the command needs an answer and nothing else.
//!
//! # Contract
//!
//! * [`Intents::prepare`] puts a write down, under a name, and says nothing of it yet; [`Intents::commit`] says that it is on its way, with one
//!   store; [`Intents::end`] that it is over. Nobody else uses the blocks from before the first to after the last.
//! * Whoever keeps notes of commands notes the name between prepare and commit. So for every note the successor knows whether the write
//!   was committed: then it was finished, see [`Intents::was_finished`], and else it was never begun.

use std::fmt;

use super::Lu;

/// Names a write that was put down. The topmost bit is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntentName(pub u64);

/// A write that was committed by a process that did not end it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// Its name.
    pub name: IntentName,
    /// Where, in bytes.
    pub offset: u64,
    /// What was there.
    pub expected: Vec<u8>,
    /// What is to be there.
    pub replacement: Vec<u8>,
}

/// Where intents are put down for one unit. Nothing here waits for a device.
pub trait Intents: Send + Sync + fmt::Debug {
    /// Puts a write down. `None` if there is no room, or it is too long: then it has to do without.
    fn prepare(&self, offset: u64, expected: &[u8], replacement: &[u8]) -> Option<IntentName>;

    /// The write is on its way.
    fn commit(&self, name: IntentName);

    /// It is over, or came to nothing.
    fn end(&self, name: IntentName);

    /// Those that an earlier process committed and did not end, and that nobody finished.
    fn committed(&self) -> Vec<Intent>;

    /// A committed one was finished by us.
    fn finished(&self, name: IntentName);

    /// Whether an intent of an earlier process was finished.
    fn was_finished(&self, name: IntentName) -> bool;

    /// Nobody will ask about a finished one any more.
    fn forget(&self, name: IntentName);
}

/// What no kill leaves written in part, in bytes: images are read and written in multiples of it.
const SECTOR: usize = 512;

impl Lu {
    /// Finishes what an earlier process had begun. Waits for the image.
    pub(super) fn finish_intents(&self) {
        let Some(intents) = self.intents() else { return };
        for intent in intents.committed() {
            let Intent { name, offset, expected, replacement } = intent;
            match self.finish(offset, &expected, &replacement) {
                Ok(true) => {
                    log::info!("finished a COMPARE AND WRITE at byte {offset} that a killed process had begun");
                    intents.finished(name);
                }
                Ok(false) => {
                    log::warn!(
                        "a COMPARE AND WRITE at byte {offset} was begun on another image, or somebody wrote there since"
                    );
                    intents.end(name);
                }
                Err(e) => log::error!("a COMPARE AND WRITE at byte {offset} cannot be finished: {e:?}"),
            }
        }
    }

    /// Whether what is there is what the write found or made, sector by sector; then it is what it made now.
    fn finish(&self, offset: u64, expected: &[u8], replacement: &[u8]) -> Result<bool, crate::backing::BackingError> {
        let image = self.image();
        let mut medium = vec![0; replacement.len()];
        image.read_bytes(offset, &mut medium)?;
        let sectors = medium.chunks(SECTOR).zip(expected.chunks(SECTOR).zip(replacement.chunks(SECTOR)));
        if !{ sectors }.all(|(is, (was, will_be))| is == was || is == will_be) {
            return Ok(false);
        }
        image.write_bytes(offset, replacement)?;
        // It may have been asked for with FUA.
        image.flush()?;
        Ok(true)
    }
}

//! One I_T_L nexus.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Attention, Gate, GateBits, Lu, NexusId, Ports};

/// A logical unit as one nexus sees it. Lives as long as the nexus has the unit in its LUN map.
#[derive(Debug)]
pub struct Itl {
    lu: Arc<Lu>,
    nexus: NexusId,
    gate: Gate,
    /// PREVENT of PREVENT ALLOW MEDIUM REMOVAL (SPC-4 6.15): this nexus wants the medium to stay.
    prevent: AtomicBool,
    /// A command with the ACA attribute is under way: there may be one (SAM-5 5.9.3).
    aca_task: AtomicBool,
    /// What WRITE BUFFER left to be echoed.
    echo: Mutex<Option<Vec<u8>>>,
}

impl Itl {
    /// Gives a nexus a unit, with the unit attention it starts with: [`Attention::PowerOn`] for a nexus that is new.
    pub fn new(lu: Arc<Lu>, nexus: NexusId, attention: Option<Attention>) -> Arc<Itl> {
        let itl = Arc::new(Itl {
            lu,
            nexus,
            gate: Gate::new(),
            prevent: AtomicBool::new(false),
            aca_task: AtomicBool::new(false),
            echo: Mutex::default(),
        });
        if let Some(attention) = attention {
            itl.gate.establish(attention);
        }
        itl.lu.attach(&itl);
        itl
    }

    /// The unit.
    pub fn lu(&self) -> &Arc<Lu> {
        &self.lu
    }

    /// Whose it is.
    pub fn nexus(&self) -> NexusId {
        self.nexus
    }

    /// The target ports of the unit, and this nexus's.
    pub fn ports(&self) -> Ports<'_> {
        Ports { all: self.lu.ports(), own: self.nexus.port }
    }

    /// What may stop a command of this nexus.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// The nexus was lost, or its initiator reset it (SAM-5 6.3.4): what it alone held is given up and it will be told. Its
    /// tasks are the target's to end.
    pub fn lose_nexus(&self) {
        self.allow_removal();
        self.end_aca();
        *self.echo_buffer() = None;
        // What rebooted must find its disk running; see `Lu::stop`.
        self.lu.start();
        self.gate.establish(Attention::NexusLoss);
    }

    /// Establishes an ACA condition (SAM-5 5.9.2): a command of this nexus ended with CHECK CONDITION, and its CDB said NACA.
    pub fn begin_aca(&self) {
        self.gate.raise(GateBits::ACA);
    }

    /// Clears it. Commands that waited meanwhile are to be asked for again.
    pub fn end_aca(&self) {
        self.gate.lower(GateBits::ACA);
    }

    /// Whether there is one.
    pub fn has_aca(&self) -> bool {
        self.gate.bits().intersects(GateBits::ACA)
    }

    /// Takes the place of the one command with the ACA attribute; false if it is taken.
    pub fn begin_aca_task(&self) -> bool {
        !self.aca_task.swap(true, Ordering::AcqRel)
    }

    /// Gives the place back.
    pub fn end_aca_task(&self) {
        self.aca_task.store(false, Ordering::Release);
    }

    /// PREVENT ALLOW MEDIUM REMOVAL with PREVENT one.
    pub fn prevent_removal(&self) {
        self.prevent.store(true, Ordering::Release);
    }

    /// PREVENT ALLOW MEDIUM REMOVAL with PREVENT zero.
    pub fn allow_removal(&self) {
        self.prevent.store(false, Ordering::Release);
    }

    /// Whether this nexus prevents removal.
    pub fn prevents_removal(&self) -> bool {
        self.prevent.load(Ordering::Acquire)
    }

    /// Fills the nexus's echo buffer (SPC-4 6.49).
    pub fn set_echo(&self, data: Vec<u8>) {
        *self.echo_buffer() = Some(data);
    }

    /// What is in the nexus's echo buffer; `None` before it was filled.
    pub fn echo(&self) -> Option<Vec<u8>> {
        self.echo_buffer().clone()
    }

    fn echo_buffer(&self) -> MutexGuard<'_, Option<Vec<u8>>> {
        // It is replaced whole, so a panic elsewhere leaves nothing half done.
        self.echo.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

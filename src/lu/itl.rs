//! One I_T_L nexus.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::keeping::Arrival;
use super::{Attention, Copies, CopyOperations, Gate, GateBits, KeptNexus, Lu, NexusId, Ports};

/// Hears of unit attention conditions as they are established for one I_T_L nexus.
///
/// It may be called under the unit's lock, from any thread: it must not wait and must not call the unit.
pub trait Listener: Send + Sync + std::fmt::Debug {
    /// A condition was established, or established again before it was reported.
    fn established(&self, attention: Attention);
}

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
    /// Its EXTENDED COPY commands.
    copies: Mutex<Copies>,
    /// Its copies by token.
    operations: CopyOperations,
    listener: OnceLock<Arc<dyn Listener>>,
    /// Where the nexus finds the unit: target number and LUN.
    address: OnceLock<(u8, u16)>,
}

impl Itl {
    /// Gives a nexus a unit, with the unit attention it starts with: [`Attention::PowerOn`] for a nexus that is new.
    ///
    /// That is for the unit to say, if it remembers the nexus: one that was there when the process before this one ended goes on
    /// as if nothing had been; one that was lost since finds what waits for it.
    pub fn new(lu: Arc<Lu>, nexus: NexusId, attention: Option<Attention>) -> Arc<Itl> {
        let pending = match lu.arrive(nexus) {
            Arrival::GoesOn(itl) => return itl,
            Arrival::Returns(waiting) if waiting.iter().any(|a| a.is_reset()) => waiting,
            Arrival::Returns(waiting) => attention.into_iter().chain(waiting).collect(),
        };
        Itl::attached(lu, KeptNexus { nexus, present: true, attentions: pending, prevent: false })
    }

    /// The unit as a nexus saw it when its state was kept.
    pub(super) fn attached(lu: Arc<Lu>, kept: KeptNexus) -> Arc<Itl> {
        let gate = Gate::kept(&kept.attentions, lu.keeper().cloned());
        let prevent = AtomicBool::new(kept.prevent);
        let aca_task = AtomicBool::new(false);
        let (echo, copies) = (Mutex::default(), Mutex::default());
        let operations = CopyOperations::default();
        let (listener, address) = (OnceLock::new(), OnceLock::new());
        let nexus = kept.nexus;
        let itl = Arc::new(Itl { lu, nexus, gate, prevent, aca_task, echo, copies, operations, listener, address });
        itl.lu.attach(&itl);
        itl.lu.note();
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

    /// Where the nexus finds the unit: target number and LUN; `None` if nobody said so.
    pub fn address(&self) -> Option<(u8, u16)> {
        self.address.get().copied()
    }

    /// Says where the nexus finds the unit. It does not move: the first address stays.
    pub fn found_at(&self, target: u8, lun: u16) {
        let address = self.address.get_or_init(|| (target, lun));
        debug_assert_eq!(*address, (target, lun), "a second address");
    }

    /// What may stop a command of this nexus.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Establishes a unit attention condition, and tells the listener. Not for conditions that are to go unheard until a command
    /// comes: those go to the [gate](Itl::gate) alone.
    pub fn establish(&self, attention: Attention) {
        self.gate.establish(attention);
        if let Some(listener) = self.listener.get() {
            listener.established(attention);
        }
    }

    /// Who hears of unit attentions from now on. There is one; a second is not taken.
    pub fn listen(&self, listener: Arc<dyn Listener>) {
        if self.listener.set(listener).is_err() {
            debug_assert!(false, "a second listener");
        }
    }

    /// The nexus was lost, or its initiator reset it (SAM-5 6.3.4): what it alone held is given up and it will be told. Its
    /// tasks are the target's to end.
    pub fn lose_nexus(&self) {
        self.allow_removal();
        self.end_aca();
        *self.echo_buffer() = None;
        self.copies(|copies| *copies = Copies::default());
        self.operations.forget();
        self.lu.lose_reserve(self.nexus);
        // What rebooted must find its disk running; see `Lu::stop`.
        self.lu.start();
        self.establish(Attention::NexusLoss);
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

    /// The nexus is over: it is lost, and nothing can be begun through it. When it comes again it will be told.
    pub fn end(&self) {
        self.lose_nexus();
        self.gate.raise(GateBits::GONE);
        self.lu.ended(self.nexus);
    }

    /// PREVENT ALLOW MEDIUM REMOVAL with PREVENT one.
    pub fn prevent_removal(&self) {
        // So that it comes either before an eject, which it stops, or after it.
        let _cold = self.lu.cold();
        if !self.prevent.swap(true, Ordering::AcqRel) {
            self.lu.note();
        }
    }

    /// PREVENT ALLOW MEDIUM REMOVAL with PREVENT zero. May be called under the unit's lock.
    pub fn allow_removal(&self) {
        if self.prevent.swap(false, Ordering::AcqRel) {
            self.lu.note();
        }
    }

    /// Whether this nexus prevents removal.
    pub fn prevents_removal(&self) -> bool {
        self.prevent.load(Ordering::Acquire)
    }

    /// Its copies by token.
    pub fn copy_operations(&self) -> &CopyOperations {
        &self.operations
    }

    /// Fills the nexus's echo buffer (SPC-4 6.49).
    pub fn set_echo(&self, data: Vec<u8>) {
        *self.echo_buffer() = Some(data);
    }

    /// What is in the nexus's echo buffer; `None` before it was filled.
    pub fn echo(&self) -> Option<Vec<u8>> {
        self.echo_buffer().clone()
    }

    /// Looks at what is known of the nexus's copies, or changes it.
    pub fn copies<R>(&self, with: impl FnOnce(&mut Copies) -> R) -> R {
        // Every change under this lock is complete in itself, so a panic elsewhere leaves nothing half done.
        with(&mut self.copies.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn echo_buffer(&self) -> MutexGuard<'_, Option<Vec<u8>>> {
        // It is replaced whole, so a panic elsewhere leaves nothing half done.
        self.echo.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

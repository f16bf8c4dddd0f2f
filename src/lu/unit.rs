//! The logical unit itself. (Its tests are with the device server's, where there is an image to test with.)

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::aborts::Aborts;
use super::access::Access;
use super::changes::Changes;
use super::holds::Holds;
use super::keeping::Continuity;
use super::medium::{self, Medium};
use super::mode_word::ModeWord;
use super::occupation::{Occupations, Progress};
use super::reserve::{Reservations, reset_reserve};
use super::watch::Watches;
use super::{
    AccessState, Attention, Background, ErrorCounters, GateBits, Geometry, HoldId, Holding, IdentifyingInformation,
    Identity, IdentityError, Intents, Itl, Keeper, KeptState, ModeChange, NexusId, NoBackground, Records, Rods,
    SelfTestOutcome, SoftThreshold, Statistics, TargetPort, Touches, thresholds,
};
use crate::backing::Image;
use crate::scsi::spc::{IdentifyingInformationType, LogCounters, ModeState, ModeThreshold};
use crate::scsi::{Sense, SenseFormat};

/// Whether a unit's blocks can be deallocated (SBC-3 4.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Provisioning {
    /// Thin if the image can deallocate, else fully provisioned.
    #[default]
    AsImage,
    /// Thin provisioned; an image that cannot deallocate is refused, unless it is read-only: then nobody deallocates anything, but what
    /// is a hole in it is a deallocated block.
    Thin,
    /// Fully provisioned, even if the image can deallocate.
    Full,
}

/// What a logical unit is made from.
#[derive(Clone, Debug)]
pub struct LuSetup {
    /// Where its blocks are.
    pub image: Arc<dyn Image>,
    /// Logical block length in bytes: 512 or 4096.
    pub block_size: u32,
    /// LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT: 0–7.
    pub physical_exponent: u8,
    /// LOWEST ALIGNED LOGICAL BLOCK ADDRESS: the first block that begins a physical one; less than the blocks of a physical one.
    pub lowest_aligned: u16,
    /// VENDOR IDENTIFICATION, up to 8 characters.
    pub vendor: String,
    /// PRODUCT IDENTIFICATION, up to 16.
    pub product: String,
    /// PRODUCT REVISION LEVEL, up to 4.
    pub revision: String,
    /// PRODUCT SERIAL NUMBER.
    pub serial: String,
    /// NAA designator.
    pub naa: u64,
    /// EUI-64 based designator: 8, 12 or 16 bytes.
    pub eui: Option<Vec<u8>>,
    /// UUID designator.
    pub uuid: Option<[u8; 16]>,
    /// Refuse everything that writes. An image that was opened read-only makes its unit read-only too.
    pub read_only: bool,
    /// RMB: initiators can eject and load the medium.
    pub removable: bool,
    /// The default of WCE: written data may be lost in a power failure until it is synchronized.
    pub write_cache: bool,
    /// The default of D_SENSE: sense data in descriptor format.
    pub descriptor_sense: bool,
    /// Whether blocks can be deallocated.
    pub provisioning: Provisioning,
    /// When initiators are to hear that space runs low.
    pub threshold: SoftThreshold,
    /// MEDIUM ROTATION RATE (SBC-3 6.6.2): 0 not reported, 1 non-rotating, else in revolutions a minute.
    pub rotation_rate: u16,
    /// The target ports by which it can be reached, at least one.
    pub ports: Vec<TargetPort>,
    /// The access states that groups of those ports start in; a group that is not named is active/optimized.
    pub access: Vec<(u16, AccessState)>,
    /// Keeps what is to outlive the process.
    pub keeper: Option<Arc<dyn Keeper>>,
    /// What was kept: the unit goes on from there.
    pub kept: Option<KeptState>,
    /// Where writes are put down before they are made.
    pub intents: Option<Arc<dyn Intents>>,
    /// Runs what outlasts its command.
    pub background: Arc<dyn Background>,
    /// Where tokens for its data are known; the same for all units of the process.
    pub rods: Arc<Rods>,
}

impl LuSetup {
    /// The defaults: 512-byte blocks, IBM's virtual disk, writable unless the image is not, volatile write cache, sense data
    /// in fixed format, thin if the image can be, non-rotating, reached by one target port, nothing kept, no background, tokens for this unit
    /// only.
    pub fn new(image: Arc<dyn Image>, naa: u64, serial: String) -> LuSetup {
        LuSetup {
            image,
            block_size: 512,
            physical_exponent: 0,
            lowest_aligned: 0,
            vendor: super::DEFAULT_VENDOR.to_owned(),
            product: super::DEFAULT_PRODUCT.to_owned(),
            revision: super::DEFAULT_REVISION.to_owned(),
            serial,
            naa,
            eui: None,
            uuid: None,
            read_only: false,
            removable: false,
            write_cache: true,
            descriptor_sense: false,
            provisioning: Provisioning::AsImage,
            threshold: SoftThreshold::AsImage,
            rotation_rate: 1,
            ports: vec![TargetPort::SOLE],
            access: Vec::new(),
            keeper: None,
            intents: None,
            kept: None,
            background: Arc::new(NoBackground),
            rods: Arc::default(),
        }
    }
}

/// Why a logical unit cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// Only two block sizes are known to all guests.
    #[error("block size {0} is neither 512 nor 4096")]
    BlockSize(u32),
    /// The image holds no block.
    #[error("the image is empty")]
    Empty,
    /// The image ends inside a block.
    #[error("the image's size, {size} bytes, is not a multiple of the block size, {block_size}")]
    PartialBlock {
        /// Bytes.
        size: u64,
        /// Bytes.
        block_size: u32,
    },
    /// Beyond what physical disks have.
    #[error("physical block exponent {0} is more than 7")]
    PhysicalExponent(u8),
    /// It lies beyond the first physical block.
    #[error("lowest aligned LBA {0} is not within the first physical block")]
    LowestAligned(u16),
    /// Thin provisioning of an image that cannot deallocate.
    #[error("it cannot be thin provisioned: no blocks of it can be deallocated")]
    NotThin,
    /// A threshold for a unit that has none.
    #[error("it cannot have a threshold: it is not thin provisioned, or read-only, or its space cannot be told")]
    NoThreshold,
    /// Ports are told apart by their relative identifiers.
    #[error("a unit needs target ports, each with a relative identifier of its own that is not 0")]
    Ports,
    /// An identifying text is not fit.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Limits on commands, as the Block Limits VPD page (SBC-3 6.6.3) reports and the device server enforces them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// MAXIMUM TRANSFER LENGTH in blocks.
    pub transfer_blocks: u32,
    /// MAXIMUM COMPARE AND WRITE LENGTH in blocks.
    pub compare_and_write_blocks: u8,
    /// MAXIMUM UNMAP LBA COUNT; FFFF_FFFFh: no limit, 0: no UNMAP.
    pub unmap_blocks: u32,
    /// MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT; 0: no UNMAP.
    pub unmap_descriptors: u32,
    /// OPTIMAL UNMAP GRANULARITY in blocks; 0: not reported.
    pub unmap_granularity: u32,
}

/// The most bytes that one command moves. Linux guests ask for at most 32 MiB less a block and take what the page says;
/// a command of this size keeps an engine busy for some milliseconds, not more.
const MAX_TRANSFER: u32 = 16 << 20;

/// The most bytes that one COMPARE AND WRITE compares, and writes. While it runs nobody else gets at its blocks, so they are few: locks, as
/// VMFS has them, are one block, and many targets take no more than that.
const MAX_COMPARE_AND_WRITE: u32 = 64 << 10;

/// Bytes that a self-test reads in a second, as far as can be said beforehand.
const SELF_TEST_RATE: u64 = 200_000_000;

/// The most ranges in one UNMAP: bounds the steps of its job.
const MAX_UNMAP_DESCRIPTORS: u32 = 256;

/// A logical unit.
#[derive(Debug)]
pub struct Lu {
    image: Arc<dyn Image>,
    identity: Identity,
    block_size: u32,
    physical_exponent: u8,
    lowest_aligned: u16,
    rotation_rate: u16,
    read_only: bool,
    removable: bool,
    thin: bool,
    /// 0: there are no thresholds.
    pub(super) threshold_exponent: u8,
    unmap_granularity: u32,
    /// Ascending by relative identifier.
    ports: Vec<TargetPort>,
    /// Capacity in blocks: the only part of the geometry that may change while the unit runs.
    pub(super) blocks: AtomicU64,
    /// The current mode parameters, packed. Shared by all nexuses; changed under the lock of `cold`.
    mode: ModeWord,
    pub(super) default_mode: ModeState,
    errors: ErrorCounters,
    /// That its image lost writes is, or will be, written down.
    told_lost_writes: AtomicBool,
    statistics: Statistics,
    rods: Arc<Rods>,
    /// There may be watches: changes of blocks are looked at. Written under the lock of `cold`.
    pub(super) watched: AtomicBool,
    pub(super) keeper: Option<Arc<dyn Keeper>>,
    intents: Option<Arc<dyn Intents>>,
    /// Held over a snapshot and its keeping, so that an older one never comes after a newer one. True: no more is kept.
    pub(super) writing: Mutex<bool>,
    background: Arc<dyn Background>,
    /// Of what is done to the whole medium.
    pub(super) progress: Progress,
    cold: Mutex<Cold>,
}

/// What changes seldom and concerns several nexuses at once.
#[derive(Debug, Default)]
pub(super) struct Cold {
    nexuses: Vec<Weak<Itl>>,
    /// Nexuses that are not here, or not yet again.
    pub(super) continuity: Continuity,
    /// Mode parameters that a change on its way will set, and on whose behalf.
    pub(super) coming_mode: Option<(NexusId, ModeChange)>,
    /// What MODE SELECT with SP saved.
    pub(super) saved_mode: Option<ModeState>,
    pub(super) records: Records,
    /// Identifying information that a change on its way will set, and on whose behalf.
    pub(super) coming_identifying: Option<(NexusId, IdentifyingInformation)>,
    holds: Holds,
    pub(super) watches: Watches,
    /// Whether the medium is there, and the power condition.
    pub(super) medium: Medium,
    /// What is reserved, and how that is changing.
    pub(super) reservations: Reservations,
    /// Access states, and how they are changing.
    pub(super) access: Access,
    /// What is done to the whole medium.
    pub(super) occupations: Occupations,
    /// Which changes were made.
    pub(super) changes: Changes,
    /// Whose commands were aborted.
    pub(super) aborts: Aborts,
}

impl Lu {
    /// Makes a unit.
    ///
    /// # Errors
    ///
    /// [`SetupError`] names the first thing that does not fit.
    pub fn new(setup: LuSetup) -> Result<Arc<Lu>, SetupError> {
        let identity = Identity::new(&setup.vendor, &setup.product, &setup.revision, &setup.serial, setup.naa)?
            .with_designators(setup.eui, setup.uuid)?;
        if setup.block_size != 512 && setup.block_size != 4096 {
            return Err(SetupError::BlockSize(setup.block_size));
        }
        if setup.physical_exponent > 7 {
            return Err(SetupError::PhysicalExponent(setup.physical_exponent));
        }
        if setup.lowest_aligned >> setup.physical_exponent != 0 {
            return Err(SetupError::LowestAligned(setup.lowest_aligned));
        }
        let size = setup.image.size();
        if size == 0 {
            return Err(SetupError::Empty);
        }
        if !size.is_multiple_of(u64::from(setup.block_size)) {
            return Err(SetupError::PartialBlock { size, block_size: setup.block_size });
        }
        let mut ports = setup.ports;
        ports.sort_by_key(|port| port.relative);
        let distinct = ports.iter().zip(ports.iter().skip(1)).all(|(a, b)| a.relative != b.relative);
        if !distinct || ports.first().is_none_or(|first| first.relative == 0) {
            return Err(SetupError::Ports);
        }
        let capabilities = setup.image.capabilities();
        let read_only = setup.read_only || capabilities.read_only;
        let thin = match setup.provisioning {
            Provisioning::AsImage => capabilities.unmap,
            Provisioning::Thin if capabilities.unmap || read_only => true,
            Provisioning::Thin => return Err(SetupError::NotThin),
            Provisioning::Full => false,
        };
        // What is never written runs out of nothing.
        let counted = thin && !read_only && setup.image.space().is_some();
        if !counted && matches!(setup.threshold, SoftThreshold::Percent(_)) {
            return Err(SetupError::NoThreshold);
        }
        let threshold_exponent = if counted { thresholds::exponent(size, setup.block_size) } else { 0 };
        let threshold = match counted {
            true => thresholds::default(setup.threshold, size, threshold_exponent, setup.block_size),
            false => ModeThreshold::default(),
        };
        let default_mode = ModeState {
            wce: setup.write_cache,
            d_sense: setup.descriptor_sense,
            lbpere: threshold.enabled,
            threshold,
            ..ModeState::default()
        };
        let kept = setup.kept.unwrap_or_else(|| KeptState::new(default_mode));
        let mode = kept.mode.under(default_mode);
        if kept.records.lost_writes {
            setup.image.had_lost_writes();
        }
        let mut records = Records::going_on(kept.records.clone());
        // Another threshold is one that nobody has heard of.
        records.threshold_reached &=
            (mode.lbpere, mode.threshold) == (kept.mode.current.lbpere, kept.mode.current.threshold);
        let mut access = Access::new(&ports, &setup.access);
        access.go_on(&kept.access);
        let lu = Arc::new(Lu {
            identity,
            block_size: setup.block_size,
            physical_exponent: setup.physical_exponent,
            lowest_aligned: setup.lowest_aligned,
            rotation_rate: setup.rotation_rate,
            removable: setup.removable,
            read_only,
            thin,
            threshold_exponent,
            unmap_granularity: (capabilities.unmap_granularity / setup.block_size).max(1),
            ports,
            blocks: AtomicU64::new(size / u64::from(setup.block_size)),
            mode: ModeWord::new(mode),
            default_mode,
            errors: ErrorCounters::going_on(kept.records.errors),
            told_lost_writes: AtomicBool::new(kept.records.lost_writes),
            statistics: Statistics::default(),
            rods: setup.rods,
            watched: AtomicBool::new(false),
            keeper: setup.keeper,
            intents: setup.intents,
            writing: Mutex::default(),
            background: setup.background,
            progress: Progress::default(),
            cold: Mutex::new(Cold {
                reservations: kept.reservations.clone().into(),
                records,
                access,
                medium: Medium::new(kept.ejected && setup.removable),
                saved_mode: kept.mode.saved_under(default_mode),
                occupations: Occupations::new(kept.occupation.clone()),
                changes: Changes::after(&kept.changes),
                aborts: Aborts::after(&kept.aborts),
                ..Cold::default()
            }),
            image: setup.image,
        });
        lu.go_on(kept);
        lu.finish_intents();
        if lu.is_ejected() {
            lu.image.unlock();
        }
        Ok(lu)
    }

    /// Where writes are put down before they are made, if anywhere.
    pub fn intents(&self) -> Option<&Arc<dyn Intents>> {
        self.intents.as_ref()
    }

    /// Where its blocks are.
    pub fn image(&self) -> &Arc<dyn Image> {
        &self.image
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The target ports by which it can be reached, ascending by relative identifier.
    pub fn ports(&self) -> &[TargetPort] {
        &self.ports
    }

    /// How big it is now.
    pub fn geometry(&self) -> Geometry {
        Geometry {
            block_size: self.block_size,
            blocks: self.blocks.load(Ordering::Acquire),
            physical_exponent: self.physical_exponent,
        }
    }

    /// Takes the size that the image has now for the unit's capacity, on behalf of one nexus or of the host; every other one is told, if it
    /// changed (SBC-3 5.15: CAPACITY DATA HAS CHANGED). [`Image::refresh_size`] looks at the size, and may wait; this does not.
    pub fn update_capacity(&self, by: Option<&Itl>) {
        let cold = self.cold();
        // Under the lock, so that of several who found a new size one tells of it, and the last one found holds.
        let blocks = self.image.size() / u64::from(self.block_size);
        if blocks > 0 && self.blocks.swap(blocks, Ordering::AcqRel) != blocks {
            tell(&cold, Attention::CapacityChanged, by);
        }
    }

    /// LOWEST ALIGNED LOGICAL BLOCK ADDRESS.
    pub fn lowest_aligned(&self) -> u16 {
        self.lowest_aligned
    }

    /// MEDIUM ROTATION RATE.
    pub fn rotation_rate(&self) -> u16 {
        self.rotation_rate
    }

    /// Set up, or opened, so that nothing is ever written.
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// Whether its medium can be ejected and loaded.
    pub fn removable(&self) -> bool {
        self.removable
    }

    /// Thin provisioned: its blocks can be deallocated (unless it is read-only), and then read as zeros.
    pub fn thin(&self) -> bool {
        self.thin
    }

    /// Seconds that an extended self-test, which reads the whole medium, takes on an ordinary disk.
    pub fn extended_self_test_seconds(&self) -> u64 {
        let geometry = self.geometry();
        geometry.blocks.saturating_mul(u64::from(geometry.block_size)) / SELF_TEST_RATE
    }

    /// What one command may ask for.
    pub fn limits(&self) -> Limits {
        Limits {
            transfer_blocks: MAX_TRANSFER / self.block_size,
            compare_and_write_blocks: u8::try_from(MAX_COMPARE_AND_WRITE / self.block_size).unwrap_or(u8::MAX),
            unmap_blocks: if self.thin { u32::MAX } else { 0 },
            unmap_descriptors: if self.thin { MAX_UNMAP_DESCRIPTORS } else { 0 },
            unmap_granularity: if self.thin { self.unmap_granularity } else { 0 },
        }
    }

    /// The current mode parameters.
    pub fn mode(&self) -> ModeState {
        self.mode.load()
    }

    /// The mode parameters that it has unless somebody changes them.
    pub fn default_mode(&self) -> ModeState {
        self.default_mode
    }

    /// The mode parameters a reset, or a loss of power, goes back to: those that were saved, else the defaults. `None` if the unit
    /// saves none, for want of a keeper who could.
    pub fn saved_mode(&self) -> Option<ModeState> {
        self.survives_power_loss().then(|| self.cold().saved_mode.unwrap_or(self.default_mode))
    }

    /// In which format this unit's sense data goes out (D_SENSE).
    pub fn sense_format(&self) -> SenseFormat {
        SenseFormat::from_bit(self.mode().d_sense)
    }

    /// Whether it may be written now: neither set up read-only nor software write protected.
    pub fn writable(&self) -> bool {
        !self.read_only && !self.mode().swp
    }

    /// Sets the mode parameters on behalf of one nexus; every other one is told (SPC-4 6.9: MODE PARAMETERS CHANGED), if anything
    /// changed. Whoever makes new parameters out of old ones sees to it that nobody else does at the same time.
    pub fn set_mode(&self, by: &Itl, mode: ModeState) {
        self.change_mode(by, ModeChange { mode, save: false });
    }

    /// The same; they may be the saved ones from now on as well.
    pub fn change_mode(&self, by: &Itl, ModeChange { mode, save }: ModeChange) {
        let mut cold = self.cold();
        cold.coming_mode = None;
        if save && cold.saved_mode != Some(mode) {
            cold.saved_mode = Some(mode);
            self.note();
        }
        if self.mode() != mode {
            self.store_mode(&mut cold, mode);
            self.note();
            tell(&cold, Attention::ModeParametersChanged, Some(by));
        }
    }

    fn store_mode(&self, cold: &mut Cold, mode: ModeState) {
        let before = self.mode();
        if (before.lbpere, before.threshold) != (mode.lbpere, mode.threshold) {
            cold.records.threshold_reached = false;
        }
        self.mode.store(mode);
        live(cold).for_each(|itl| interlock(&itl, mode));
    }

    /// LOGICAL UNIT RESET, and what a hard reset does to a unit (SAM-5 6.3.3), apart from ending its tasks: mode parameters
    /// go back to those that were saved, removal prevention to its default, RESERVE is over, the unit starts, and every nexus gets a unit
    /// attention. An ejected medium stays ejected.
    pub fn reset(&self) {
        let mut cold = self.cold();
        reset_reserve(&mut cold);
        cold.records.self_tests.abort(SelfTestOutcome::Aborted);
        let mode = cold.saved_mode.unwrap_or(self.default_mode);
        self.store_mode(&mut cold, mode);
        self.note();
        medium::reset(&mut cold);
        for itl in live(&cold) {
            itl.allow_removal();
            itl.end_aca();
            itl.copy_operations().forget();
            itl.establish(Attention::LogicalUnitReset);
        }
    }

    /// Runs what outlasts its command.
    pub fn background(&self) -> &Arc<dyn Background> {
        &self.background
    }

    /// Establishes a unit attention for every nexus but, perhaps, one.
    pub fn establish(&self, attention: Attention, except: Option<&Itl>) {
        tell(&self.cold(), attention, except);
    }

    /// Where tokens are known.
    pub fn rods(&self) -> &Arc<Rods> {
        &self.rods
    }

    /// The errors of its medium.
    pub fn errors(&self) -> &ErrorCounters {
        &self.errors
    }

    /// Counts the error that ended a command, if the medium is to blame; see [`ErrorCounters`].
    pub fn count_error(&self, sense: &Sense, verifies: bool) {
        let told = self.image.has_lost_writes();
        if self.errors.count(sense, verifies) || told && !self.told_lost_writes.swap(true, Ordering::AcqRel) {
            self.note();
        }
    }

    /// What LOG SELECT can change.
    pub fn counters(&self) -> LogCounters {
        let Lu { errors, statistics, .. } = self;
        LogCounters { errors: errors.get(), processed: statistics.processed(), statistics: statistics.get() }
    }

    /// What its commands did.
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// Changes counters on behalf of one nexus; every other one is told (SPC-4 6.7: LOG PARAMETERS CHANGED), if
    /// anything changed. `change` gets the counts now and makes new ones.
    ///
    /// # Errors
    ///
    /// What `change` returns; nothing has changed then.
    pub fn change_counters<E>(
        &self,
        by: &Itl,
        change: impl FnOnce(LogCounters) -> Result<LogCounters, E>,
    ) -> Result<(), E> {
        let cold = self.cold();
        let before = self.counters();
        let after = change(before)?;
        if after != before {
            self.errors.set(before.errors, after.errors);
            self.statistics.set_processed(before.processed, after.processed);
            // They can be reset, and nothing else.
            if after.statistics != before.statistics {
                self.statistics.reset();
            }
            self.note();
            tell(&cold, Attention::LogParametersChanged, Some(by));
        }
        Ok(())
    }

    /// Looks at the unit's records, or changes them, under its lock. What is to be kept of a change will be, soon.
    pub fn records<R>(&self, with: impl FnOnce(&mut Records) -> R) -> R {
        let records = &mut self.cold().records;
        let before = records.kept();
        let result = with(records);
        if records.kept() != before {
            self.note();
        }
        result
    }

    /// Sets identifying information on behalf of one nexus; every other one is told (SPC-4 6.43: DEVICE IDENTIFIER CHANGED).
    pub fn set_identifying(&self, by: &Itl, kind: IdentifyingInformationType, information: Vec<u8>) {
        let mut cold = self.cold();
        cold.coming_identifying = None;
        cold.records.identifying.set(kind, information);
        self.note();
        tell(&cold, Attention::DeviceIdentifierChanged, Some(by));
    }

    /// Holds commands, from here on; `None` if a hold that there is, apart from those in `passes`, stops the command that would hold
    /// them. `touches` is what that command, of nexus `by`, uses.
    pub fn hold(
        &self,
        holding: Holding,
        by: &Itl,
        touches: Touches,
        head_of_queue: bool,
        passes: &[HoldId],
    ) -> Option<HoldId> {
        let mut cold = self.cold();
        if cold.holds.stop(by.nexus(), touches, head_of_queue, passes) {
            return None;
        }
        let id = cold.holds.add(holding);
        for itl in live(&cold).filter(|itl| holding.concerns(itl.nexus())) {
            itl.gate().raise(GateBits::HELD);
        }
        Some(id)
    }

    /// Ends a hold. The commands that it held are to be asked for again.
    pub fn end_hold(&self, id: HoldId) {
        let mut cold = self.cold();
        if cold.holds.remove(id).is_some() {
            for itl in live(&cold).filter(|itl| !cold.holds.concern(itl.nexus())) {
                itl.gate().lower(GateBits::HELD);
            }
        }
    }

    /// The oldest of these holds of task sets that is not over.
    pub fn oldest_hold(&self, of: &[HoldId]) -> Option<HoldId> {
        self.cold().holds.oldest(of)
    }

    /// The hold that was made last: a command that comes now is older than those that come later.
    pub fn newest_hold(&self) -> HoldId {
        self.cold().holds.newest()
    }

    /// Whether a hold, apart from those in `passes`, stops a command of a nexus that uses these blocks.
    pub fn is_held(&self, by: &Itl, touches: Touches, head_of_queue: bool, passes: &[HoldId]) -> bool {
        self.cold().holds.stop(by.nexus(), touches, head_of_queue, passes)
    }

    /// How many nexuses see the unit.
    pub fn nexuses(&self) -> usize {
        live(&self.cold()).count()
    }

    /// Takes a nexus in. A new initiator is not to find the unit as another one left it: it starts.
    pub(super) fn attach(&self, itl: &Arc<Itl>) {
        let mut cold = self.cold();
        medium::start(&cold);
        cold.medium.attach(itl);
        interlock(itl, self.mode());
        if cold.holds.concern(itl.nexus()) {
            itl.gate().raise(GateBits::HELD);
        }
        cold.reservations.attach(itl);
        cold.access.attach(itl);
        cold.occupations.attach(itl);
        cold.nexuses.retain(|n| n.strong_count() > 0);
        cold.nexuses.push(Arc::downgrade(itl));
    }

    pub(super) fn cold(&self) -> MutexGuard<'_, Cold> {
        // Every change under this lock is complete in itself, so a panic elsewhere leaves nothing half done.
        self.cold.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn live(cold: &Cold) -> impl Iterator<Item = Arc<Itl>> {
    cold.nexuses.iter().filter_map(Weak::upgrade)
}

/// Puts UA_INTLCK_CTRL into a nexus's gate.
fn interlock(itl: &Itl, mode: ModeState) {
    match mode.ua_intlck {
        0b00 => itl.gate().lower(GateBits::INTERLOCK),
        _ => itl.gate().raise(GateBits::INTERLOCK),
    }
}

pub(super) fn tell(cold: &Cold, attention: Attention, except: Option<&Itl>) {
    for itl in live(cold) {
        if !except.is_some_and(|not| std::ptr::eq(Arc::as_ptr(&itl), not)) {
            itl.establish(attention);
        }
    }
}

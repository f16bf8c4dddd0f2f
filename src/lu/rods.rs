//! RODs: data that tokens represent (SPC-4 5.17.6).
//!
//! # Contract
//!
//! * A ROD is change vulnerable: it is the blocks themselves, under a [`Watch`]. When one of them is about to change, the ROD is cancelled. There
//!   are no copies, so what it costs is remembering it.
//! * Tokens are good for whoever presents them, on any unit of the process; they are compared whole, in constant time. The
//!   process is one copy manager: when it ends, all its tokens are unknown.
//! * A token that is not used for its inactivity timeout, or has lived for [`ROD_TOKEN_LIFETIME`], expires; but not while it is in use.
//! * A unit has at most [`MAX_LIVE`] RODs, of which the oldest is cancelled for a new one. What became of the [`MAX_KNOWN`] newest
//!   tokens of a unit is remembered, so that it can be told who presents one.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::{Extent, Lu, Watch};
use crate::scsi::spc::RodToken;
use crate::sys::random;

/// How long a token can live at most, however often it is used.
pub const ROD_TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// How many RODs a unit has at most.
const MAX_LIVE: usize = 128;

/// How many tokens of a unit are remembered at most, living or not.
const MAX_KNOWN: usize = 512;

/// Why there is no ROD for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RodError {
    /// No token has its identifier.
    Unknown,
    /// The token of its identifier is another one.
    Corrupt,
    /// It was not used for too long.
    Expired,
    /// Its data are about to change, or have changed; or there were too many younger ones.
    Cancelled,
    /// Its user had no more need of it.
    Deleted,
}

/// The RODs of all units.
#[derive(Debug, Default)]
pub struct Rods(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// The identifier used last; none yet: 0.
    last: u64,
    tokens: HashMap<u64, Entry>,
    /// The tokens of each unit, oldest first, by its address. Where one is used again, two units share what one may have.
    units: HashMap<usize, VecDeque<u64>>,
}

#[derive(Debug)]
struct Entry {
    token: RodToken,
    state: State,
}

#[derive(Debug)]
enum State {
    Live(Live),
    Over(RodError),
}

#[derive(Debug)]
struct Live {
    rod: Arc<Rod>,
    born: Instant,
    used: Instant,
    inactivity: Duration,
    users: u32,
}

/// Data that a token represents.
#[derive(Debug)]
pub struct Rod {
    unit: Weak<Lu>,
    watch: Arc<Watch>,
    len: u64,
}

impl Rod {
    /// The unit that has the data; `None` if it is gone.
    pub fn unit(&self) -> Option<Arc<Lu>> {
        self.unit.upgrade()
    }

    /// Where they are, in their order.
    pub fn extents(&self) -> &[Extent] {
        self.watch.extents()
    }

    /// How many bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether they may no longer be what they were. Who has read some of them and then finds it not so has read what the token
    /// represents.
    pub fn is_cancelled(&self) -> bool {
        self.watch.is_disturbed()
    }
}

/// A ROD in use: it does not expire meanwhile.
#[derive(Debug)]
pub struct RodUse {
    rods: Arc<Rods>,
    identifier: u64,
    rod: Arc<Rod>,
}

impl std::ops::Deref for RodUse {
    type Target = Rod;

    fn deref(&self) -> &Rod {
        &self.rod
    }
}

impl RodUse {
    /// Deletes the token.
    pub fn delete(self) {
        self.rods.known().end(self.identifier, RodError::Deleted);
    }
}

impl Drop for RodUse {
    fn drop(&mut self) {
        if let Some(live) = self.rods.known().live(self.identifier) {
            live.users = live.users.saturating_sub(1);
            live.used = Instant::now();
        }
    }
}

impl Rods {
    /// Makes a ROD of blocks of a unit, and its token, out of an identifier and random bytes. The caller sees to it that no command is changing
    /// those blocks.
    ///
    /// # Errors
    ///
    /// There are no random bytes.
    pub fn make<const N: usize>(
        &self,
        unit: &Arc<Lu>,
        extents: Vec<Extent>,
        inactivity: Duration,
        token: impl FnOnce(u64, [u8; N]) -> RodToken,
    ) -> std::io::Result<RodToken> {
        let mut secret = [0; N];
        random::fill(&mut secret)?;
        let len = extents.iter().map(|extent| extent.len).sum();
        let rod = Arc::new(Rod { unit: Arc::downgrade(unit), watch: unit.watch(extents), len });
        let mut known = self.known();
        let identifier = known.next_identifier()?;
        let token = token(identifier, secret);
        let now = Instant::now();
        let live = Live { rod, born: now, used: now, inactivity, users: 0 };
        known.tokens.insert(identifier, Entry { token: token.clone(), state: State::Live(live) });
        known.units.entry(address(unit)).or_default().push_back(identifier);
        known.make_room(address(unit));
        Ok(token)
    }

    /// The ROD of a token.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub fn open(self: &Arc<Rods>, identifier: u64, token: &RodToken) -> Result<RodUse, RodError> {
        let mut known = self.known();
        let entry = known.tokens.get_mut(&identifier).ok_or(RodError::Unknown)?;
        if entry.token != *token {
            return Err(RodError::Corrupt);
        }
        entry.look(Instant::now());
        match &mut entry.state {
            State::Over(error) => Err(*error),
            State::Live(live) => {
                live.users += 1;
                Ok(RodUse { rods: Arc::clone(self), identifier, rod: Arc::clone(&live.rod) })
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Every change under this lock is complete in itself, but for a token that is not in its unit's list: it is only kept longer.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// An identifier that was not used before, by this process, nor, as far as chance goes, by one before it.
    fn next_identifier(&mut self) -> std::io::Result<u64> {
        if self.last == 0 {
            let mut first = [0; 8];
            random::fill(&mut first)?;
            self.last = u64::from_be_bytes(first);
        }
        self.last = self.last.wrapping_add(1).max(1);
        Ok(self.last)
    }

    fn live(&mut self, identifier: u64) -> Option<&mut Live> {
        match &mut self.tokens.get_mut(&identifier)?.state {
            State::Live(live) => Some(live),
            State::Over(_) => None,
        }
    }

    fn end(&mut self, identifier: u64, how: RodError) {
        if let Some(entry) = self.tokens.get_mut(&identifier) {
            entry.end(how);
        }
    }

    /// Sees to the bounds of a unit.
    fn make_room(&mut self, unit: usize) {
        let Some(list) = self.units.get_mut(&unit) else { return };
        let now = Instant::now();
        while list.len() > MAX_KNOWN {
            let Some(oldest) = list.pop_front() else { break };
            self.tokens.remove(&oldest);
        }
        let mut live = 0;
        for identifier in list.iter().rev() {
            let Some(entry) = self.tokens.get_mut(identifier) else { continue };
            entry.look(now);
            live += usize::from(matches!(entry.state, State::Live(_)));
            if live > MAX_LIVE {
                entry.end(RodError::Cancelled);
            }
        }
    }
}

impl Entry {
    /// Finds out whether it still lives.
    fn look(&mut self, now: Instant) {
        let State::Live(live) = &self.state else { return };
        let unused = live.users == 0;
        let idle = now.saturating_duration_since(live.used) >= live.inactivity;
        let old = now.saturating_duration_since(live.born) >= ROD_TOKEN_LIFETIME;
        if live.rod.is_cancelled() || live.rod.unit.strong_count() == 0 {
            self.end(RodError::Cancelled);
        } else if unused && (idle || old) {
            self.end(RodError::Expired);
        }
    }

    /// The first end is the one that is told.
    fn end(&mut self, how: RodError) {
        if matches!(self.state, State::Live(_)) {
            self.state = State::Over(how);
        }
    }
}

fn address(unit: &Arc<Lu>) -> usize {
    Arc::as_ptr(unit).addr()
}

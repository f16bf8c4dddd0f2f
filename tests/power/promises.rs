//! What a target promised when, and whether a medium keeps it.
//!
//! # The rule
//!
//! A block has versions: what each command that was issued would have made of it. A durable answer promises a version: GOOD to a write with FUA, or
//! to any write while WCE is zero, its own; GOOD to SYNCHRONIZE CACHE (and what else flushes) each whose GOOD came before it was issued; GOOD
//! to a READ with FUA what it read. From then on the block must never again hold what is older: a version whose command had ended before the
//! promised one's was issued. Commands that were under way at the same time may have happened in either order.
//!
//! A command that ended in another way than GOOD promises nothing, and may have happened in part.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::ops::Range;

use crate::write_log::Record;
use crate::write_log::medium::{Medium, Source, bytes_of};

/// Bytes of a block, which is a sector of the medium.
pub const BLOCK: usize = 512;

/// Block addresses.
pub type Blocks = Range<u64>;

/// A content, by its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Content(u64);

impl Content {
    pub fn of(bytes: &[u8]) -> Content {
        assert_eq!(bytes.len(), BLOCK);
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        Content(hasher.finish())
    }
}

/// What a command does to the medium, and to what is promised.
#[derive(Clone, Debug)]
pub enum Effect {
    /// New contents for some blocks; durable with GOOD if `durable`; never torn if `atomic`.
    Write { contents: Vec<(u64, Content)>, durable: bool, atomic: bool },
    /// Makes durable what was written to these blocks.
    Sync(Blocks),
    /// A read of what is durable; what it read is filled in when it ends.
    DurableRead(Blocks),
    /// MODE SELECT with this WCE.
    WriteCache(bool),
    /// Nothing.
    Nothing,
}

/// A command, with the places in the log where it was issued, and where its end was seen.
#[derive(Clone, Debug)]
struct Command {
    effect: Effect,
    name: &'static str,
    issued: usize,
    ended: Option<(usize, bool)>,
    read: Vec<Content>,
}

/// All that was asked of a unit, and how it ended.
#[derive(Debug, Default)]
pub struct History {
    commands: Vec<Command>,
}

/// A promise that a medium would have broken.
#[derive(Clone, Debug)]
pub struct Broken {
    /// The cut: so many records happened.
    pub cut: usize,
    pub block: u64,
    /// What was promised, or why the content is impossible.
    pub what: String,
}

impl History {
    /// A command is about to be sent; `issued` is the log's place. Returns its number.
    pub fn issue(&mut self, name: &'static str, effect: Effect, issued: usize) -> usize {
        self.commands.push(Command { effect, name, issued, ended: None, read: Vec::new() });
        self.commands.len() - 1
    }

    /// Its end was seen.
    pub fn end(&mut self, command: usize, ended: usize, good: bool) {
        self.commands[command].ended = Some((ended, good));
    }

    /// What a read with FUA read, before [`end`](Self::end).
    pub fn read(&mut self, command: usize, data: &[u8]) {
        self.commands[command].read = data.chunks(BLOCK).map(Content::of).collect();
    }

    pub fn len(&self) -> usize {
        self.commands.len()
    }

    /// How many of each kind ended with GOOD.
    pub fn good(&self) -> std::collections::BTreeMap<&'static str, usize> {
        let mut counts = std::collections::BTreeMap::new();
        for command in &self.commands {
            *counts.entry(command.name).or_default() += usize::from(command.ended.is_some_and(|(_, good)| good));
        }
        counts
    }

    /// Whether WCE was zero from the command's beginning to its end.
    fn written_through(&self, command: usize, wce: bool) -> bool {
        let Command { issued, ended: Some((ended, _)), .. } = self.commands[command] else { return false };
        let mut through = !wce;
        for other in &self.commands {
            let Effect::WriteCache(on) = other.effect else { continue };
            let other_ended = other.ended.map_or(usize::MAX, |(at, _)| at);
            if other_ended < issued {
                if other.ended.is_some_and(|(_, good)| good) {
                    through = !on;
                }
            } else if other.issued < ended && on {
                // Under way at the same time.
                return false;
            }
        }
        through
    }
}

/// Judges a medium as it changes.
pub struct Judge<'a> {
    history: &'a History,
    records: &'a [Record],
    medium: Medium,
    /// The commands that give a block a content.
    versions: HashMap<(u64, Content), Vec<usize>>,
    /// Of each block, as commands that write it end with GOOD: where that was seen, and the latest place where any of them so far was issued.
    written: HashMap<u64, Vec<(usize, usize)>>,
    /// Of each block: nothing older than what was issued here may be on the medium, and the command that says so.
    bounds: HashMap<u64, (usize, usize)>,
    /// Commands by the place where their end was seen.
    ends: HashMap<usize, usize>,
    contents: HashMap<Source, Content>,
    zeros: Content,
    /// WCE at the beginning.
    wce: bool,
    /// How many contents were looked at.
    pub judged: u64,
    /// How many promises were made, counted in blocks.
    pub promised: u64,
}

impl<'a> Judge<'a> {
    /// Of a file that held zeros before the log began.
    pub fn new(history: &'a History, records: &'a [Record], file: u64, wce: bool) -> Judge<'a> {
        let mut versions: HashMap<(u64, Content), Vec<usize>> = HashMap::new();
        for (command, what) in history.commands.iter().enumerate() {
            if let Effect::Write { contents, .. } = &what.effect {
                for version in contents {
                    versions.entry(*version).or_default().push(command);
                }
            }
        }
        let ends = history.commands.iter().enumerate();
        let ends = ends.filter_map(|(number, command)| command.ended.map(|(at, _)| (at, number))).collect();
        Judge {
            history,
            records,
            medium: Medium::new(file, BLOCK as u64),
            versions,
            written: HashMap::new(),
            bounds: HashMap::new(),
            ends,
            contents: HashMap::new(),
            zeros: Content::of(&[0; BLOCK]),
            wce,
            judged: 0,
            promised: 0,
        }
    }

    pub fn medium(&self) -> &Medium {
        &self.medium
    }

    /// Takes in the next record and looks at all that the medium may hold if the power goes then. `None` at the end of the log.
    pub fn step(&mut self) -> Option<Vec<Broken>> {
        let at = self.medium.cut();
        let record = self.records.get(at)?;
        let mut touched: Vec<u64> = self.medium.step(record).collect();
        if let Some(&command) = self.ends.get(&at) {
            touched.extend(self.promises_of(command));
        }
        let mut broken = Vec::new();
        for block in touched {
            for source in self.medium.contents(block).collect::<Vec<_>>() {
                let content = self.content(source);
                if let Err(what) = self.acceptable(block, content) {
                    broken.push(Broken { cut: self.medium.cut(), block, what });
                }
            }
        }
        Some(broken)
    }

    fn content(&mut self, source: Source) -> Content {
        let (records, zeros) = (self.records, self.zeros);
        *self
            .contents
            .entry(source)
            .or_insert_with(|| bytes_of(records, source, BLOCK as u64).map_or(zeros, Content::of))
    }

    /// Whether a block may hold this at the present cut.
    pub fn acceptable(&mut self, block: u64, content: Content) -> Result<(), String> {
        self.judged += 1;
        let cut = self.medium.cut();
        let bound = self.bounds.get(&block).copied();
        let (oldest, promiser) = bound.unwrap_or((0, usize::MAX));
        if content == self.zeros && bound.is_none() {
            return Ok(());
        }
        let mut known = false;
        for command in self.versions.get(&(block, content)).into_iter().flatten() {
            let command = &self.history.commands[*command];
            if command.issued >= cut {
                continue;
            }
            known = true;
            if command.ended.is_none_or(|(at, _)| at > oldest) {
                return Ok(());
            }
        }
        if known || content == self.zeros {
            let by = &self.history.commands[promiser];
            return Err(format!("holds what is older than the promise of {promiser} ({})", by.name));
        }
        Err("holds what nobody wrote there".to_owned())
    }

    /// What GOOD to a command promises from now on; the blocks it is about.
    fn promises_of(&mut self, number: usize) -> Vec<u64> {
        let history = self.history;
        let command = &history.commands[number];
        let Some((ended, true)) = command.ended else { return Vec::new() };
        let mut promised = Vec::new();
        match &command.effect {
            Effect::Write { contents, durable, .. } => {
                for (block, _) in contents {
                    let written = self.written.entry(*block).or_default();
                    let latest = written.last().map_or(0, |(_, latest)| *latest);
                    written.push((ended, latest.max(command.issued)));
                }
                if *durable || history.written_through(number, self.wce) {
                    promised.extend(contents.iter().map(|(block, _)| (*block, command.issued)));
                }
            }
            Effect::Sync(blocks) => promised = self.synced(blocks, command.issued),
            Effect::WriteCache(false) => promised = self.synced(&(0..u64::MAX), command.issued),
            Effect::DurableRead(blocks) => {
                for (block, content) in blocks.clone().zip(&command.read) {
                    let versions = self.versions.get(&(block, *content)).into_iter().flatten();
                    let issued = versions.map(|at| history.commands[*at].issued).filter(|issued| *issued < ended);
                    // Of several with the same content: the one that promises least. Zeros may be those of the beginning.
                    if let Some(issued) = issued.min().filter(|_| *content != self.zeros) {
                        promised.push((block, issued));
                    }
                }
            }
            Effect::WriteCache(true) | Effect::Nothing => {}
        }
        self.promised += promised.len() as u64;
        for &(block, issued) in &promised {
            let bound = self.bounds.entry(block).or_insert((issued, number));
            if bound.0 <= issued {
                *bound = (issued, number);
            }
        }
        promised.into_iter().map(|(block, _)| block).collect()
    }

    /// The newest version of each of these blocks that had ended well before `issued`.
    fn synced(&self, blocks: &Blocks, issued: usize) -> Vec<(u64, usize)> {
        let newest = |written: &Vec<(usize, usize)>| {
            let before = written.partition_point(|(ended, _)| *ended < issued);
            before.checked_sub(1).map(|last| written[last].1)
        };
        let within = self.written.iter().filter(|(block, _)| blocks.contains(block));
        within.filter_map(|(block, written)| newest(written).map(|issued| (*block, issued))).collect()
    }

    /// Looks at a whole image, given as the contents of the blocks that were ever written, as if nothing were known of how it came about.
    pub fn image(&mut self, image: impl IntoIterator<Item = (u64, Content)>) -> Vec<Broken> {
        let mut broken = Vec::new();
        for (block, content) in image {
            if let Err(what) = self.acceptable(block, content) {
                broken.push(Broken { cut: self.medium.cut(), block, what });
            }
        }
        broken
    }
}

/// Every write of a command that must not be torn is one record, which is not torn.
pub fn torn(history: &History, records: &[Record]) -> Vec<Broken> {
    let mut whole: HashMap<(u64, Content), (usize, usize)> = HashMap::new();
    for (number, command) in history.commands.iter().enumerate() {
        if let Effect::Write { contents, atomic: true, .. } = &command.effect {
            whole.extend(contents.iter().map(|version| (*version, (number, contents.len()))));
        }
    }
    let mut broken = Vec::new();
    if whole.is_empty() {
        return broken;
    }
    for (cut, record) in records.iter().enumerate() {
        let Record::Write { offset, data, atomic, .. } = record else { continue };
        let first = offset / BLOCK as u64;
        let mut found: HashMap<usize, (usize, usize)> = HashMap::new();
        for (block, bytes) in (first..).zip(data.chunks(BLOCK)) {
            if let Some((command, all)) = whole.get(&(block, Content::of(bytes))) {
                found.entry(*command).or_insert((0, *all)).0 += 1;
            }
        }
        for (command, (count, all)) in found {
            if !atomic || count < all {
                let what = format!("{count} of {all} blocks of {} are one record", history.commands[command].name);
                broken.push(Broken { cut, block: first, what });
            }
        }
    }
    broken
}

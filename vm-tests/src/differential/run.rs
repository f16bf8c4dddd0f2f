//! The loop: each command to both disks, their outcomes compared, each difference looked up.
//!
//! Two disks that differ once would differ ever after. So whatever a command did differently is undone: the medium is written anew when it
//! differs, mode pages are set back after every MODE SELECT, and a stopped unit is started again after a few commands that met it.

use super::compare::{Aspect, Difference, compare};
use super::explained::Explained;
use super::outcome::{End, Outcome};
use super::sg::Disk;
use super::shapes::Effect;
use super::stream::{Command, MOST, Medium, Stream, Transfer, fill_block, get, hex};
use crate::{Context, Error, Result};
use std::collections::BTreeMap;

/// How many commands a unit that was stopped stays so for.
const STOPPED: u32 = 4;

/// How often the whole medium is compared.
const WHOLE: u64 = 1024;

/// How many examples of one sort of unexplained difference are told.
const EXAMPLES: u32 = 5;

/// How many unit attentions one disk may have in a row.
const ATTENTIONS: u32 = 8;

/// What is to be compared.
#[derive(Debug)]
pub struct Run {
    /// The disk under test.
    pub ours: Disk,
    /// Its peer.
    pub peer: Disk,
    /// The commands.
    pub stream: Stream,
    /// The list of explanations.
    pub explained: Explained,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Commands sent.
    pub commands: u64,
    /// Those which both ended with GOOD.
    pub good: u64,
    /// Those with a difference.
    pub differing: u64,
    /// How often each explanation fitted.
    pub explained: Vec<u64>,
    /// Differences without explanation, by their sort: how many, and examples.
    pub unexplained: BTreeMap<String, (u32, String)>,
}

impl Report {
    /// The report as lines: `unexplained …` and their examples, then `explained <count> <name>`, then `commands <n> good <n> differing <n>
    /// unexplained <n>`.
    pub fn text(&self, explained: &Explained) -> String {
        let mut text = String::new();
        let mut all = 0;
        for (sort, (count, examples)) in &self.unexplained {
            text.push_str(&format!("unexplained {count} times: {sort}\n{examples}\n"));
            all += count;
        }
        for (entry, count) in explained.entries().iter().zip(&self.explained) {
            text.push_str(&format!("explained {count} {}\n", entry.name));
        }
        let Report { commands, good, differing, .. } = self;
        text.push_str(&format!("commands {commands} good {good} differing {differing} unexplained {all}\n"));
        text
    }
}

impl Run {
    /// The size a disk has.
    ///
    /// # Errors
    /// When READ CAPACITY(16) fails.
    pub fn medium(disk: &Disk) -> Result<Medium> {
        drain(disk)?;
        let cdb = [0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0];
        let outcome = disk.perform(&cdb, &Transfer::In(32))?;
        match (outcome.end(), outcome.data.len()) {
            (End::Good, 12..) => {
                Ok(Medium { blocks: get(&outcome.data, 0, 8) + 1, block: get(&outcome.data, 8, 4) as u32 })
            }
            _ => Err(Error::new(format!("READ CAPACITY(16): {outcome}"))),
        }
    }

    /// Sends so many commands of the stream, from an index on.
    ///
    /// # Errors
    /// When a disk cannot be brought back to a known state, or the kernel refuses to send a command.
    pub fn go(&self, from: u64, count: u64) -> Result<Report> {
        let mut report = Report { explained: vec![0; self.explained.entries().len()], ..Report::default() };
        let pages = [mode_pages(&self.ours)?, mode_pages(&self.peer)?];
        self.write_anew((0, self.stream.medium.blocks))?;
        let mut stopped = 0;
        for index in from..from + count {
            let command = self.stream.command(index);
            let step = self.step(index, &command, &pages, &mut stopped, &mut report);
            step.context(|| format!("seed {} index {index}: {command}", self.stream.seed))?;
        }
        Ok(report)
    }

    fn step(
        &self,
        index: u64,
        command: &Command,
        pages: &[Vec<Vec<u8>>; 2],
        stopped: &mut u32,
        report: &mut Report,
    ) -> Result<()> {
        report.commands += 1;
        let halt = Difference::of(Aspect::Halt, End::Good, End::Good);
        if let Some(found) = self.explained.find(command, self.stream.medium, &halt) {
            report.explained[found] += 1;
            return Ok(());
        }
        let mut told = Vec::new();
        let ours = attended(&self.ours, command)?;
        let peer = attended(&self.peer, command)?;
        self.attentions(&ours, &peer, &mut told);
        let (ours, peer) = (&ours[ours.len() - 1], &peer[peer.len() - 1]);
        told.extend(compare(ours, peer));
        report.good += u64::from(ours.end() == End::Good && peer.end() == End::Good);
        let apart = ours.end() != peer.end();
        match command.effect {
            Effect::None => {}
            Effect::Medium => self.medium_after(command, ours, peer, &mut told)?,
            Effect::Settings => self.set_back(pages)?,
            Effect::Power => *stopped = STOPPED,
        }
        report.differing += u64::from(!told.is_empty());
        for difference in &told {
            self.look_up(index, command, difference, ours, peer, report);
        }
        if *stopped > 0 {
            *stopped -= 1;
            if *stopped == 0 || apart {
                *stopped = 0;
                self.start()?;
            }
        }
        if (index + 1).is_multiple_of(WHOLE) && *stopped == 0 && !self.same((0, self.stream.medium.blocks))? {
            let sort = "the media differ, and no command was seen to make them".to_owned();
            report.unexplained.entry(sort).or_insert((0, format!("  before {index}\n"))).0 += 1;
            self.write_anew((0, self.stream.medium.blocks))?;
        }
        Ok(())
    }

    /// Differences in the unit attentions that came before the outcomes.
    fn attentions(&self, ours: &[Outcome], peer: &[Outcome], told: &mut Vec<Difference>) {
        for n in 0..ours.len().max(peer.len()) - 1 {
            let end = |list: &[Outcome]| if n + 1 < list.len() { list[n].end() } else { list[list.len() - 1].end() };
            let (ours, peer) = (end(ours), end(peer));
            if ours != peer {
                told.push(Difference::of(Aspect::Attention, ours, peer));
            }
        }
    }

    fn look_up(
        &self,
        index: u64,
        command: &Command,
        difference: &Difference,
        ours: &Outcome,
        peer: &Outcome,
        report: &mut Report,
    ) {
        if let Some(found) = self.explained.find(command, self.stream.medium, difference) {
            report.explained[found] += 1;
            return;
        }
        let Difference { aspect, ours: our_end, peer: peer_end, bytes, .. } = difference;
        let sort = format!("{} {aspect}: vstgt {our_end}, peer {peer_end}", command.name);
        let (count, examples) = report.unexplained.entry(sort).or_default();
        *count += 1;
        if *count > EXAMPLES {
            return;
        }
        let seed = self.stream.seed;
        let bytes = if bytes.is_empty() { String::new() } else { format!(" (bytes {})", ranges(bytes)) };
        let both = difference.pointers.map(|both| format!(" (pointers {})", hex(&both.concat()))).unwrap_or_default();
        examples.push_str(&format!("  seed {seed} index {index}:{bytes}{both} {command}\n"));
        examples.push_str(&format!("    vstgt: {ours}\n    peer:  {peer}\n"));
    }

    /// Compares what a command may have changed, and writes the medium anew where it differs.
    fn medium_after(
        &self,
        command: &Command,
        ours: &Outcome,
        peer: &Outcome,
        told: &mut Vec<Difference>,
    ) -> Result<()> {
        let mut same = true;
        for range in &command.touched {
            if !self.same(*range)? {
                same = false;
                self.write_anew(*range)?;
            }
        }
        // A disk that performed what it should have refused may have done so anywhere.
        if ours.end() != peer.end() && command.lba >= self.stream.medium.blocks {
            self.write_anew((0, self.stream.medium.blocks))?;
        }
        // What only one of them performed differs for that reason.
        if !same && ours.end() == peer.end() {
            told.push(Difference::of(Aspect::Medium, ours.end(), peer.end()));
        }
        Ok(())
    }

    /// Whether a range of blocks, and those beside it, are the same on both.
    fn same(&self, range: (u64, u64)) -> Result<bool> {
        let block = self.stream.medium.block;
        for (at, count) in self.chunks(range) {
            let cdb = ten(0x28, at, count);
            let room = Transfer::In((count * u64::from(block)) as usize);
            let (ours, peer) = (self.ours.perform(&cdb, &room)?, self.peer.perform(&cdb, &room)?);
            if ours.end() != End::Good && ours.end() == peer.end() {
                return Ok(true); // Both are stopped.
            }
            if ours.end() != End::Good || peer.end() != End::Good || ours.data != peer.data {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A range of blocks and those beside it, in parts that one command can move.
    fn chunks(&self, (lba, blocks): (u64, u64)) -> impl Iterator<Item = (u64, u64)> + use<> {
        let Medium { blocks: end, block } = self.stream.medium;
        let chunk = MOST / u64::from(block);
        let (first, last) = (lba.saturating_sub(8), end.min(lba + blocks + 8));
        (first..last).step_by(chunk as usize).map(move |at| (at, chunk.min(last - at)))
    }

    /// Writes the same contents to a range on both.
    fn write_anew(&self, range: (u64, u64)) -> Result<()> {
        let block = self.stream.medium.block;
        for (at, count) in self.chunks(range) {
            let mut data = Vec::new();
            (at..at + count).for_each(|lba| fill_block(&mut data, block as usize, 5, lba));
            let data = Transfer::Out(data);
            for disk in [&self.ours, &self.peer] {
                let cdb = ten(0x2A, at, count);
                let mut outcome = disk.perform(&cdb, &data)?;
                if outcome.end() != End::Good {
                    self.start()?;
                    outcome = disk.perform(&cdb, &data)?;
                }
                if outcome.end() != End::Good {
                    return Err(Error::new(format!("cannot write {count} blocks from {at} on: {outcome}")));
                }
            }
        }
        Ok(())
    }

    /// Starts both.
    fn start(&self) -> Result<()> {
        for disk in [&self.ours, &self.peer] {
            disk.perform(&[0x1B, 0, 0, 0, 1, 0], &Transfer::None)?;
            drain(disk)?;
        }
        Ok(())
    }

    /// Sets the mode pages of both to what they were. What a disk refuses to have set, it has not had changed either.
    fn set_back(&self, pages: &[Vec<Vec<u8>>; 2]) -> Result<()> {
        for (disk, pages) in [&self.ours, &self.peer].into_iter().zip(pages) {
            drain(disk)?;
            for page in pages {
                let mut list = vec![0; 8];
                list.extend(page);
                // With what is saved, or without where nothing is.
                for byte1 in [0x11, 0x10] {
                    let cdb = [0x55, byte1, 0, 0, 0, 0, 0, 0, list.len() as u8, 0];
                    let outcome = disk.perform(&cdb, &Transfer::Out(list.clone()))?;
                    if outcome.end() == End::Good {
                        break;
                    }
                }
            }
            drain(disk)?;
        }
        Ok(())
    }
}

/// Looks up again what an earlier report says is unexplained: which explanation of a changed list fits each example, without a guest.
///
/// # Errors
/// When a line of the report is not understood.
pub fn replay(report: &str, medium: Medium, explained: &Explained) -> Result<String> {
    let mut text = String::new();
    let (mut sort, mut ends) = (String::new(), (Aspect::End, End::Good, End::Good));
    for line in report.lines() {
        if let Some((_, header)) = line.split_once("unexplained ").filter(|_| line.contains(" times: ")) {
            sort = header.split_once(": ").map_or(header, |(_, sort)| sort).to_owned();
            ends = parse_sort(&sort).context(|| format!("the sort {sort}"))?;
        } else if let Some(example) = line.strip_prefix("  seed ") {
            let what = || format!("the example {line}");
            let (place, rest) = example.split_once(':').context(what)?;
            let (seed, index) = place.split_once(" index ").context(what)?;
            let stream = Stream { seed: seed.parse().context(what)?, medium };
            let command = stream.command(index.parse().context(what)?);
            let mut difference = Difference::of(ends.0, ends.1, ends.2);
            if let Some(bytes) = between(rest, "(bytes ", ")") {
                difference.bytes = bytes.split(' ').flat_map(parse_range).flatten().collect();
            }
            if let Some(both) = between(rest, "(pointers ", ")") {
                let bytes: Vec<u8> = both.split(' ').flat_map(|byte| u8::from_str_radix(byte, 16)).collect();
                difference.pointers = bytes.try_into().ok().map(|[a, b, c, d, e, f]: [u8; 6]| [[a, b, c], [d, e, f]]);
            }
            match explained.find(&command, medium, &difference) {
                Some(found) => text.push_str(&format!("explained {} {sort}\n", explained.entries()[found].name)),
                None => text.push_str(&format!("unexplained {sort}\n{line}\n")),
            }
        }
    }
    Ok(text)
}

/// Reads `NAME ASPECT: vstgt END, peer END`.
fn parse_sort(sort: &str) -> Option<(Aspect, End, End)> {
    let (head, ends) = sort.split_once(": vstgt ")?;
    let (ours, peer) = ends.split_once(", peer ")?;
    let aspect = Aspect::ALL.into_iter().find(|aspect| head.ends_with(&format!(" {aspect}")))?;
    Some((aspect, ours.parse().ok()?, peer.parse().ok()?))
}

fn parse_range(text: &str) -> Option<std::ops::RangeInclusive<usize>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(first.parse().ok()?..=last.parse().ok()?)
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split_once(after).map(|(found, _)| found)
}

/// A 10-byte CDB of a command for blocks.
fn ten(opcode: u8, lba: u64, blocks: u64) -> [u8; 10] {
    let [a, b, c, d] = (lba as u32).to_be_bytes();
    let [e, f] = (blocks as u16).to_be_bytes();
    [opcode, 0, a, b, c, d, 0, e, f, 0]
}

/// Performs a command until it ends without a unit attention; all outcomes, the last one being without.
fn attended(disk: &Disk, command: &Command) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for _ in 0..ATTENTIONS {
        outcomes.push(disk.perform(&command.cdb, &command.transfer)?);
        if !outcomes[outcomes.len() - 1].is_attention() {
            break;
        }
    }
    Ok(outcomes)
}

/// Takes away what unit attentions a disk has.
fn drain(disk: &Disk) -> Result<()> {
    for _ in 0..ATTENTIONS {
        if !disk.perform(&[0; 6], &Transfer::None)?.is_attention() {
            return Ok(());
        }
    }
    Err(Error::new("a disk has unit attentions without end"))
}

/// The mode pages a disk has, with their current values, as MODE SELECT takes them.
fn mode_pages(disk: &Disk) -> Result<Vec<Vec<u8>>> {
    let outcome = disk.perform(&[0x5A, 0x08, 0x3F, 0, 0, 0, 0, 0x10, 0, 0], &Transfer::In(0x1000))?;
    if outcome.end() != End::Good || outcome.data.len() < 8 {
        return Err(Error::new(format!("MODE SENSE(10) of all pages: {outcome}")));
    }
    let (data, mut pages) = (&outcome.data, Vec::new());
    let mut rest = data.get(8 + get(data, 6, 2) as usize..).unwrap_or_default();
    while rest.len() >= 4 {
        let length = if rest[0] & 0x40 != 0 { 4 + get(rest, 2, 2) as usize } else { 2 + usize::from(rest[1]) };
        let Some(page) = rest.get(..length) else { break };
        pages.push(page.to_vec());
        if let Some(first) = pages.last_mut().and_then(|page| page.first_mut()) {
            *first &= 0x7F; // PS is reserved here.
        }
        rest = &rest[length..];
    }
    Ok(pages)
}

/// Positions as `0-3 7`.
fn ranges(positions: &[usize]) -> String {
    let mut found: Vec<(usize, usize)> = Vec::new();
    for at in positions {
        match found.last_mut() {
            Some((_, last)) if *last + 1 == *at => *last = *at,
            _ => found.push((*at, *at)),
        }
    }
    let shown = found.iter().take(64).map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") });
    shown.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_report_is_looked_up_again() {
        let list = "[a]\ndiffers: data\ncommand: *\nbytes: 0-3 7\npeer: GOOD\nright: both\nclause: x\nwhy: y\n";
        let report = "unexplained 2 times: INQUIRY data: vstgt GOOD, peer GOOD\n  seed 1 index 5: (bytes 1-2 7) 12\n    vstgt: GOOD\n\
                      unexplained 1 times: INQUIRY data: vstgt GOOD, peer 5/24/00\n  seed 1 index 5: (bytes 1) 12\n";
        let text = replay(report, Medium { blocks: 2048, block: 512 }, &Explained::parse(list).unwrap()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "explained a INQUIRY data: vstgt GOOD, peer GOOD");
        assert_eq!(lines[1], "unexplained INQUIRY data: vstgt GOOD, peer 5/24/00");
    }

    #[test]
    fn positions_are_told_as_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 3, 7, 9, 10]), "0-3 7 9-10");
    }

    #[test]
    fn a_cdb_for_blocks_has_them_in_its_place() {
        assert_eq!(ten(0x28, 0x0102_0304, 0x0506), [0x28, 0, 1, 2, 3, 4, 0, 5, 6, 0]);
    }
}

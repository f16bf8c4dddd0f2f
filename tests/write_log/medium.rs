//! One file's medium while its log is replayed: what is durable, and what may or may not have reached it when the power goes.
//!
//! A sector is whole or not there; of several sectors, written together or one after the other, any may be there and any missing. So a sector
//! holds what is durable of it, or one of the contents that it was given since: any of them, for each may have been the last to
//! leave the cache. This holds of each sector for itself, so the contents that each sector may have are all that there is to know; and
//! [`Loss`] chooses among them to make whole images.

use std::collections::{BTreeMap, HashMap};

use super::Record;

/// Where the content of a sector comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// It is as it was before the log began.
    Before,
    Zeros,
    /// From this byte on of a write.
    Written {
        record: usize,
        at: usize,
    },
}

/// A content that a sector may have, and the record that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volatile {
    pub record: usize,
    pub source: Source,
}

/// The medium of one file.
#[derive(Clone, Debug)]
pub struct Medium {
    file: u64,
    sector: u64,
    durable: HashMap<u64, Source>,
    volatile: BTreeMap<u64, Vec<Volatile>>,
    /// Records taken in.
    taken: usize,
}

impl Medium {
    /// Of a file, with sectors of so many bytes.
    pub fn new(file: u64, sector: u64) -> Medium {
        Medium { file, sector, durable: HashMap::new(), volatile: BTreeMap::new(), taken: 0 }
    }

    /// The cut: so many records happened.
    pub fn cut(&self) -> usize {
        self.taken
    }

    /// Takes in the next record. Returns the sectors that may have new contents.
    pub fn step(&mut self, record: &Record) -> std::ops::Range<u64> {
        let index = self.taken;
        self.taken += 1;
        match record {
            Record::Write { file, offset, data, synced, .. } if *file == self.file => {
                let sectors = self.sectors(*offset, data.len() as u64);
                for (n, sector) in sectors.clone().enumerate() {
                    let source = Source::Written { record: index, at: n * self.sector as usize };
                    self.put(sector, Volatile { record: index, source });
                    if *synced {
                        self.settle(sector, index + 1);
                    }
                }
                sectors
            }
            Record::Clear { file, offset, len } if *file == self.file => {
                let sectors = self.sectors(*offset, *len);
                sectors.clone().for_each(|sector| self.put(sector, Volatile { record: index, source: Source::Zeros }));
                sectors
            }
            Record::Sync { file, covers } if *file == self.file => {
                let dirty: Vec<u64> = self.volatile.keys().copied().collect();
                dirty.into_iter().for_each(|sector| self.settle(sector, *covers));
                0..0
            }
            _ => 0..0,
        }
    }

    fn sectors(&self, offset: u64, len: u64) -> std::ops::Range<u64> {
        assert!(offset.is_multiple_of(self.sector) && len.is_multiple_of(self.sector), "{len} bytes at {offset}");
        offset / self.sector..(offset + len) / self.sector
    }

    fn put(&mut self, sector: u64, volatile: Volatile) {
        self.volatile.entry(sector).or_default().push(volatile);
    }

    /// What was recorded before `covers` is durable, as far as nothing covered is newer.
    fn settle(&mut self, sector: u64, covers: usize) {
        let Some(contents) = self.volatile.get_mut(&sector) else { return };
        let covered = contents.iter().take_while(|content| content.record < covers).count();
        if let Some(last) = contents.drain(..covered).next_back() {
            self.durable.insert(sector, last.source);
        }
        if contents.is_empty() {
            self.volatile.remove(&sector);
        }
    }

    /// What is on the medium for certain, if nothing that came later is.
    pub fn durable(&self, sector: u64) -> Source {
        self.durable.get(&sector).copied().unwrap_or(Source::Before)
    }

    /// What may be there instead.
    pub fn volatile(&self, sector: u64) -> &[Volatile] {
        self.volatile.get(&sector).map_or(&[], Vec::as_slice)
    }

    /// All that a sector may hold.
    pub fn contents(&self, sector: u64) -> impl Iterator<Item = Source> + '_ {
        std::iter::once(self.durable(sector)).chain(self.volatile(sector).iter().map(|content| content.source))
    }

    /// What each sector that was ever written holds if so much is lost.
    pub fn after(&self, loss: Loss) -> BTreeMap<u64, Source> {
        let mut image: BTreeMap<u64, Source> = self.durable.iter().map(|(sector, source)| (*sector, *source)).collect();
        for (sector, contents) in &self.volatile {
            if let Some(at) = loss.keeps(*sector, contents) {
                image.insert(*sector, contents[at].source);
            }
        }
        image
    }

    /// The records that may be lost.
    pub fn volatile_records(&self) -> Vec<usize> {
        let mut records: Vec<usize> = self.volatile.values().flatten().map(|content| content.record).collect();
        records.sort_unstable();
        records.dedup();
        records
    }
}

/// What a cache loses of that which it may lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    Nothing,
    Everything,
    /// All from this record on: the cache was written out in order.
    From(usize),
    /// Some writes whole and others not, in no order.
    Writes(u64),
    /// Each sector for itself, in no order: writes are torn.
    Sectors(u64),
}

impl Loss {
    /// Which of the contents a sector ends with; `None`: with what is durable.
    fn keeps(self, sector: u64, contents: &[Volatile]) -> Option<usize> {
        match self {
            Loss::Nothing => contents.len().checked_sub(1),
            Loss::Everything => None,
            Loss::From(record) => contents.iter().rposition(|content| content.record < record),
            Loss::Writes(seed) => contents.iter().rposition(|content| mix(seed, content.record as u64) & 1 == 0),
            Loss::Sectors(seed) => {
                (mix(seed, sector) % (contents.len() as u64 + 1)).checked_sub(1).map(|at| at as usize)
            }
        }
    }
}

/// A number that looks random and comes again with its seed.
pub fn mix(seed: u64, number: u64) -> u64 {
    let mut z = seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The bytes of a content, of which a sector's worth is from the log.
pub fn bytes_of(records: &[Record], source: Source, sector: u64) -> Option<&[u8]> {
    match source {
        Source::Written { record, at } => match &records[record] {
            Record::Write { data, .. } => Some(&data[at..at + sector as usize]),
            other => panic!("record {record} is no write: {other:?}"),
        },
        Source::Before | Source::Zeros => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(sector: u64, sectors: usize, synced: bool) -> Record {
        Record::Write { file: 1, offset: sector * 512, data: vec![1; sectors * 512], synced, atomic: false }
    }

    fn replayed(records: &[Record]) -> Medium {
        let mut medium = Medium::new(1, 512);
        for record in records {
            medium.step(record);
        }
        medium
    }

    fn from(record: usize, at: usize) -> Source {
        Source::Written { record, at: at * 512 }
    }

    #[test]
    fn a_sync_covers_what_came_before_it_began() {
        let sync = Record::Sync { file: 1, covers: 1 };
        let medium = replayed(&[write(0, 2, false), write(1, 2, false), sync]);
        assert_eq!(medium.contents(0).collect::<Vec<_>>(), [from(0, 0)]);
        assert_eq!(medium.contents(1).collect::<Vec<_>>(), [from(0, 1), from(1, 0)]);
        assert_eq!(medium.contents(2).collect::<Vec<_>>(), [Source::Before, from(1, 1)]);
        assert_eq!(medium.volatile_records(), [1]);
    }

    #[test]
    fn a_write_synced_by_itself_covers_nothing_else() {
        let medium = replayed(&[write(0, 2, false), write(1, 1, true)]);
        assert_eq!(medium.contents(0).collect::<Vec<_>>(), [Source::Before, from(0, 0)]);
        assert_eq!(medium.contents(1).collect::<Vec<_>>(), [from(1, 0)]);
    }

    #[test]
    fn another_files_sync_covers_nothing() {
        let medium = replayed(&[write(0, 1, false), Record::Sync { file: 2, covers: 1 }]);
        assert_eq!(medium.contents(0).collect::<Vec<_>>(), [Source::Before, from(0, 0)]);
    }

    #[test]
    fn losses() {
        let clear = Record::Clear { file: 1, offset: 0, len: 512 };
        let medium = replayed(&[write(0, 1, true), write(0, 1, false), clear, write(0, 1, false), Record::Mark(7)]);
        let left = |loss| medium.after(loss)[&0];
        assert_eq!(medium.cut(), 5);
        assert_eq!(left(Loss::Nothing), from(3, 0));
        assert_eq!(left(Loss::Everything), from(0, 0));
        assert_eq!(left(Loss::From(3)), Source::Zeros);
        assert_eq!(left(Loss::From(1)), from(0, 0));
        for loss in [Loss::Writes, Loss::Sectors] {
            let seen: Vec<_> = (0..200).map(|seed| left(loss(seed))).collect();
            assert!(medium.contents(0).all(|content| seen.contains(&content)), "each content comes about");
        }
    }
}

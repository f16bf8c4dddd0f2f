//! Loss of power while a unit's state is kept: what was answered GOOD is in the state directory, and no file in it is torn.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use vstgt::lu::KeptState;
use vstgt::scsi::spc::IdentifyingInformationType;
use vstgt::state_dir::{Place, StateDir};

use super::{guests, mounted, soak};
use crate::frontend::process::IMAGE_SIZE;
use crate::frontend::{Buffer, Guest, Vstgt};
use crate::write_log::Record;
use crate::write_log::fuse::ROOT;
use crate::write_log::names::{Lost, files_after, names_after, volatile_names};

/// Where the state is: directories that are not there when the process starts.
const WAY: [&str; 3] = ["var", "lib", "state"];

/// What is asked for, over and over, with a number that grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// REGISTER AND IGNORE EXISTING KEY with APTPL: the number is the key.
    Register,
    /// SET IDENTIFYING INFORMATION: the number as text.
    Identify,
    /// MODE SELECT with SP: QERR by the number.
    Save,
}

const ALL: [What; 3] = [What::Register, What::Identify, What::Save];
const QERR: [u8; 3] = [0, 1, 3];

#[derive(Clone, Copy, Debug)]
struct Change {
    what: What,
    number: u64,
    issued: usize,
    good: usize,
}

impl What {
    /// CDB and parameter list.
    fn command(self, number: u64, page: [u8; 12]) -> (Vec<u8>, Vec<u8>) {
        match self {
            What::Register => {
                let mut list = vec![0; 24];
                list[8..16].copy_from_slice(&number.to_be_bytes());
                list[20] = 1;
                (vec![0x5f, 6, 0, 0, 0, 0, 0, 0, 24, 0], list)
            }
            What::Identify => {
                let list = format!("{number}").into_bytes();
                (vec![0xa4, 6, 0, 0, 0, 0, 0, 0, 0, list.len() as u8, 0, 0], list)
            }
            What::Save => {
                let mut list = [&[0; 4], &page[..]].concat();
                list[4] &= 0x3f;
                list[7] = list[7] & !6 | QERR[number as usize % 3] << 1;
                // PF and SP.
                (vec![0x15, 0x11, 0, 0, 16, 0], list)
            }
        }
    }

    /// Whether a state may be the one after this number.
    fn is(self, state: &KeptState, number: u64) -> bool {
        match self {
            What::Register => match &state.reservations.registrations[..] {
                [] => number == 0,
                [one] => one.key == number,
                _ => false,
            },
            What::Identify => {
                let text = state.records.identifying.get(IdentifyingInformationType::Peripheral);
                if number == 0 { text.is_empty() } else { text == format!("{number}").as_bytes() }
            }
            What::Save => match state.mode.saved {
                None => number == 0,
                Some(mode) => number > 0 && mode.qerr == QERR[number as usize % 3],
            },
        }
    }
}

/// The control mode page.
fn control_page(guest: &mut Guest) -> [u8; 12] {
    let at = guest.ram.alloc(64);
    let answer = guest.command(&[0x1a, 8, 0x0a, 0, 64, 0], &[], &[Buffer::input(at, 64)]);
    assert!(answer.good(), "{answer:?}");
    guest.ram.read(at + 4, 12).try_into().unwrap()
}

/// What was asked of a process whose state directory is in the log.
fn changes(rounds: u64) -> Option<(Vec<Change>, Vec<Record>)> {
    let mounted = mounted()?;
    let dir = tempfile::tempdir().unwrap();
    fs::File::create(dir.path().join("disk.img")).unwrap().set_len(IMAGE_SIZE).unwrap();
    let state = WAY.iter().fold(mounted.path().to_owned(), |path, name| path.join(name));
    let vstgt = Vstgt::start_keeping(dir, &state, 1, |_| {});
    let mut guest = guests(&[vstgt.socket(0).to_owned()]).remove(0);
    let page = control_page(&mut guest);
    let mut changes = Vec::new();
    for number in 1..=rounds {
        for what in ALL {
            let (cdb, list) = what.command(number, page);
            let mark = guest.ram.mark();
            let at = guest.ram.alloc(list.len() as u64);
            guest.ram.write(at, &list);
            let issued = mounted.log().mark(number);
            let answer = guest.command(&cdb, &[Buffer::out(at, list.len() as u32)], &[]);
            let good = mounted.log().mark(number);
            assert!(answer.good(), "{what:?}: {answer:?}");
            guest.ram.release(mark);
            changes.push(Change { what, number, issued, good });
        }
    }
    drop(guest);
    vstgt.stop();
    Some((changes, mounted.log().records()))
}

/// Reads a unit's file as a process would that starts after the power is back.
fn read(name: &str, bytes: &[u8]) -> Result<KeptState, String> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(name), bytes).unwrap();
    let naa = name.strip_prefix("lu-").and_then(|name| name.strip_suffix(".state")).unwrap();
    let naa = u64::from_str_radix(naa, 16).unwrap();
    let found = open(dir.path()).unit(naa).map_err(|e| e.to_string())?.expect("nobody has it locked");
    Ok(found.kept.expect("the file is there").after_power_loss())
}

fn open(path: &Path) -> StateDir {
    StateDir::open(&Place::At(path.to_owned())).unwrap().unwrap()
}

/// The state files that a loss of power leaves; `None`: the directory is not there.
fn left(records: &[Record], lost: Lost) -> Option<Vec<(String, Vec<u8>)>> {
    let mut directory = ROOT;
    for name in WAY {
        directory = *names_after(records, directory, lost.names).get(name)?;
    }
    let files = files_after(records, directory, lost).into_iter();
    Some(files.filter(|(name, _)| name.ends_with(".state")).collect())
}

/// Cuts the log everywhere; how many ways to lose something there were, and what is wrong with them.
fn judge(changes: &[Change], records: &[Record]) -> (usize, Vec<String>) {
    let mut known: HashMap<Vec<u8>, Result<KeptState, String>> = HashMap::new();
    let (mut judged, mut wrong) = (0, Vec::new());
    for cut in 1..=records.len() {
        let records = &records[..cut];
        let directories = records.iter().filter_map(|record| match record {
            Record::Name { directory, .. } => Some(*directory),
            _ => None,
        });
        let most = directories.map(|directory| volatile_names(records, directory).len()).max().unwrap_or(0);
        // More than a few are there only if something is wrong.
        for names in (0..=most.min(4)).chain((most > 4).then_some(most)) {
            for seed in [0, 1, 2 + cut as u64, 3 + cut as u64] {
                judged += 1;
                let files = left(records, Lost { names, seed });
                if let Err(e) = check(changes, cut, files, &mut known) {
                    wrong.push(format!("cut {cut}, {names} names lost, seed {seed}: {e}"));
                }
            }
        }
    }
    (judged, wrong)
}

fn check(
    changes: &[Change],
    cut: usize,
    files: Option<Vec<(String, Vec<u8>)>>,
    known: &mut HashMap<Vec<u8>, Result<KeptState, String>>,
) -> Result<(), String> {
    let promised = |what| changes.iter().rfind(|c| c.what == what && c.good < cut).map_or(0, |c| c.number);
    let asked = |what| changes.iter().rfind(|c| c.what == what && c.issued < cut).map_or(0, |c| c.number);
    let files = files.unwrap_or_default();
    let Some((name, bytes)) = files.first() else {
        return match ALL.iter().find(|what| promised(**what) > 0) {
            Some(what) => Err(format!("there is no state, and {what:?} {} was promised", promised(*what))),
            None => Ok(()),
        };
    };
    let state = known.entry(bytes.clone()).or_insert_with(|| read(name, bytes)).as_ref().map_err(Clone::clone)?;
    for what in ALL {
        if !(promised(what)..=asked(what)).any(|number| what.is(state, number)) {
            return Err(format!("{what:?} is not {}..={}: {state:?}", promised(what), asked(what)));
        }
    }
    Ok(())
}

#[test]
fn what_is_answered_is_kept() {
    let Some((changes, records)) = changes(if soak() { 200 } else { 25 }) else { return };
    let start = Instant::now();
    let (judged, wrong) = judge(&changes, &records);
    eprintln!("{} cuts, {judged} losses of state in {:.1?}", records.len(), start.elapsed());
    assert!(wrong.is_empty(), "{} are wrong, such as {:#?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    assert!(records.len() > 300, "{} records", records.len());

    // The judge is judged: without any of the syncs it finds something.
    type Kind = fn(&Record) -> bool;
    let kinds: [(&str, Kind); 2] = [
        ("syncs of files", |record| matches!(record, Record::Sync { .. })),
        ("syncs of directories", |record| matches!(record, Record::SyncNames { .. })),
    ];
    for (what, of_it) in kinds {
        let mut without = records.clone();
        without.iter_mut().filter(|record| of_it(record)).for_each(|record| *record = Record::Mark(0));
        let (_, wrong) = judge(&changes, &without);
        eprintln!("without {what}: {} losses are wrong", wrong.len());
        assert!(wrong.len() > 10, "{what}");
    }
}

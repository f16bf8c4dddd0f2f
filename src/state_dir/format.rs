//! The bytes of a unit's state file.
//!
//! A header of twenty bytes, which is the same in all versions, then the payload. Numbers in the header are little-endian.
//!
//! | bytes | content |
//! |---|---|
//! | 0–7 | magic: `vstgtLU` and a newline |
//! | 8–11 | version of the payload |
//! | 12–15 | length of the payload in bytes; the file ends with it |
//! | 16–19 | CRC-32 (IEEE 802.3) of bytes 0–15 and the payload |
//!
//! The payload of version 1 is text: lines of words, the first of which says what the line is about; each of those that are
//! marked with * may come several times.
//!
//! | line | content |
//! |---|---|
//! | `unit NAA` | the unit's NAA designator |
//! | `boot ID` | the boot of the host in which this was written |
//! | `handed-over` | for whoever takes it, in whichever boot of whichever host: guests were to migrate |
//! | `mode NAME CURRENT DEFAULT` * | a mode parameter, and what it is unless somebody changes it |
//! | `saved NAME VALUE` * | a saved mode parameter; those of which there is no line have their default |
//! | `blocks N` | capacity |
//! | `ejected` | the medium is out |
//! | `generation N` | PRGENERATION |
//! | `aptpl` | APTPL is set |
//! | `registration NEXUS KEY` * | a registration |
//! | `reservation TYPE [NEXUS]` | the persistent reservation and its holder; without one with the All Registrants types |
//! | `reserved NEXUS` | who holds the unit by RESERVE |
//! | `identifying TYPE BYTES` * | identifying information of a type |
//! | `timestamp MILLISECONDS SINCE-BOOT` | what the clock was set to, and when: milliseconds since 1970, and since the host was started |
//! | `cycles N` | how often the unit was stopped |
//! | `lost-writes` | a sync failed: no flush succeeds any more |
//! | `errors NAME N` * | an error counter |
//! | `hours N` | hours that the unit was served for |
//! | `reached` | the threshold of space is reached, and nexuses were told |
//! | `self-test CODE RESULT NUMBER HOURS LBA KEY CODE` * | the result of a self-test, newest first; the last three are 0 but of one that failed |
//! | `access GROUP CURRENT DEFAULT` * | the access state of a target port group, and what it is unless somebody changes it |
//! | `nexus NEXUS [CODE]...` * | a nexus that is there, and its pending unit attentions |
//! | `absent NEXUS [CODE]...` * | one that is not there, and what waits for it |
//! | `prevent NEXUS` * | a nexus that is there and prevents medium removal |
//! | `aborted NEXUS NANOSECONDS` * | commands of a nexus were aborted by another one at this time since the host was started; `everybody` in place of a nexus |
//! | `changes EPOCH COUNT` * | changes of a process that are in this state: all up to a count; the oldest process first |
//!
//! Version 2 adds one line, and is written only while there is something to say in it: a program that passed it over would give guests a
//! medium that is half erased.
//!
//! | line | content |
//! |---|---|
//! | `erasing COMMAND STAGE DONE LENGTH [PASSES INVERT PATTERN]` | see [`erasing`](super::erasing) |
//!
//! NEXUS is the initiator port identifier, a colon, and the relative target port identifier in decimal. NAA, KEY, TYPE, BYTES, access states, identifiers and
//! CODE (ADDITIONAL SENSE CODE and qualifier) are hexadecimal; other numbers are decimal. Codes are those of the standards, so that nothing
//! here depends on how the program numbers its own things. A kind of line, or a mode parameter, may be added within a version if a program
//! that does not know it may pass it over, and one that misses it may take its default; for anything else the version goes up.

use std::fmt::{Display, Write};
use std::str::FromStr;

use super::boot::BootId;
use super::erasing;
use super::records;
use crate::lu::reservation::{PersistentReservation, Registration, ReservationState, ReservationType};
use crate::lu::{AccessState, Attention, KeptAbort, KeptAccess, KeptChanges, KeptNexus, KeptState, NexusId};
use crate::scsi::spc::ModeState;

const MAGIC: &[u8; 8] = b"vstgtLU\n";
const HEADER: usize = 20;

/// The latest version.
pub(super) const VERSION: u32 = 2;

/// The version in which a state is written: the oldest that can say all of it.
fn version(state: &KeptState) -> u32 {
    if state.occupation.is_some() { VERSION } else { 1 }
}

/// Why bytes are no state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// They are not what was written.
    Damaged(String),
    /// They are in a later format.
    Newer(u32),
}

/// A file's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    /// The unit's NAA designator.
    pub(super) naa: u64,
    /// When it was written; `None`: in a boot that had no name.
    pub(super) boot: Option<BootId>,
    /// It is all for the process that comes next, in whichever boot of whichever host.
    pub(super) handed_over: bool,
    /// The unit's state.
    pub(super) state: KeptState,
}

/// In place of a nexus.
const EVERYBODY: &str = "everybody";

/// The file's bytes.
pub(super) fn encode(content: &Content) -> Result<Vec<u8>, String> {
    let mut payload = String::new();
    lines(content, &mut payload).map_err(|e| e.to_string())?;
    let length = u32::try_from(payload.len()).map_err(|_| "it is longer than 4 GiB".to_owned())?;
    Ok(frame(version(&content.state), length, payload.as_bytes()))
}

fn frame(version: u32, length: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend(MAGIC);
    bytes.extend(version.to_le_bytes());
    bytes.extend(length.to_le_bytes());
    let sum = checksum(&bytes, payload);
    bytes.extend(sum.to_le_bytes());
    bytes.extend(payload);
    bytes
}

fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(payload);
    hasher.finalize()
}

/// What a file's bytes say.
pub(super) fn decode(bytes: &[u8]) -> Result<Content, Flaw> {
    let damaged = |what: &str| Flaw::Damaged(what.to_owned());
    let Some((header, payload)) = bytes.split_at_checked(HEADER) else {
        return Err(damaged(if bytes.is_empty() { "it is empty" } else { "it ends within its header" }));
    };
    let number = |at: usize| header.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
    if !header.starts_with(MAGIC) {
        return Err(damaged("it does not begin as a state file does"));
    }
    if usize::try_from(number(12)) != Ok(payload.len()) {
        return Err(damaged("it is not as long as its header says"));
    }
    if checksum(header.get(..16).unwrap_or_default(), payload) != number(16) {
        return Err(damaged("its checksum does not match"));
    }
    // Only now: the header's layout is the same in all versions, and a flipped bit is not to be taken for a version.
    match number(8) {
        1 | VERSION => payload_of(payload).map_err(Flaw::Damaged),
        0 => Err(damaged("there is no format 0")),
        version => Err(Flaw::Newer(version)),
    }
}

fn lines(content: &Content, text: &mut String) -> std::fmt::Result {
    let Content { naa, boot, handed_over, state } = content;
    let KeptState { mode, blocks, ejected, reservations, access, records, occupation, changes, aborts, nexuses } =
        state;
    let ReservationState { generation, registrations, reservation, aptpl, legacy } = reservations;
    writeln!(text, "unit {naa:016x}")?;
    if let Some(boot) = boot {
        writeln!(text, "boot {}", boot.0)?;
    }
    if *handed_over {
        writeln!(text, "handed-over")?;
    }
    for ((name, current), (_, default)) in parameters(mode.current).into_iter().zip(parameters(mode.default)) {
        writeln!(text, "mode {name} {current} {default}")?;
    }
    for (name, value) in mode.saved.map(parameters).into_iter().flatten() {
        writeln!(text, "saved {name} {value}")?;
    }
    writeln!(text, "blocks {blocks}\ngeneration {generation}")?;
    if *ejected {
        writeln!(text, "ejected")?;
    }
    if *aptpl {
        writeln!(text, "aptpl")?;
    }
    for registration in registrations {
        writeln!(text, "registration {} {:016x}", Name(registration.nexus), registration.key)?;
    }
    match reservation {
        Some(PersistentReservation { kind, holder: Some(holder) }) => {
            writeln!(text, "reservation {:x} {}", kind.code(), Name(*holder))?;
        }
        Some(PersistentReservation { kind, holder: None }) => writeln!(text, "reservation {:x}", kind.code())?,
        None => {}
    }
    if let Some(legacy) = legacy {
        writeln!(text, "reserved {}", Name(*legacy))?;
    }
    records::write(records, text)?;
    for KeptAccess { group, current, default } in access {
        writeln!(text, "access {group} {:x} {:x}", *current as u8, *default as u8)?;
    }
    if let Some(occupation) = occupation {
        writeln!(text, "erasing {}", erasing::Words(occupation))?;
    }
    for KeptChanges { epoch, made } in changes {
        writeln!(text, "changes {epoch:08x} {made}")?;
    }
    for KeptAbort { nexus, at } in aborts {
        match nexus {
            Some(nexus) => writeln!(text, "aborted {} {at}", Name(*nexus))?,
            None => writeln!(text, "aborted {EVERYBODY} {at}")?,
        }
    }
    for KeptNexus { nexus, present, attentions, prevent } in nexuses {
        let nexus = Name(*nexus);
        write!(text, "{} {nexus}", if *present { "nexus" } else { "absent" })?;
        for attention in attentions {
            write!(text, " {:04x}", attention.code().0)?;
        }
        writeln!(text)?;
        if *prevent {
            writeln!(text, "prevent {nexus}")?;
        }
    }
    Ok(())
}

fn payload_of(payload: &[u8]) -> Result<Content, String> {
    let text = std::str::from_utf8(payload).map_err(|e| e.to_string())?;
    let mut naa = None;
    let mut boot = None;
    let mut handed_over = false;
    let mut state = KeptState::new(ModeState::default());
    for line in text.lines() {
        if line == "handed-over" {
            handed_over = true;
            continue;
        }
        read(line, &mut naa, &mut boot, &mut state).map_err(|what| format!("in '{line}': {what}"))?;
    }
    check(&state.reservations)?;
    Ok(Content { naa: naa.ok_or("it does not say which unit it is about")?, boot, handed_over, state })
}

/// Takes one line.
fn read(line: &str, naa: &mut Option<u64>, boot: &mut Option<BootId>, state: &mut KeptState) -> Result<(), String> {
    let reservations = &mut state.reservations;
    let mut words = line.split(' ');
    let about = words.next().unwrap_or_default();
    let mut word = || words.next().ok_or("a word is missing");
    match about {
        "unit" => *naa = Some(hex(word()?)?),
        "boot" => *boot = Some(BootId(word()?.to_owned())),
        "mode" => {
            let (name, current, default) = (word()?, word()?, word()?);
            set_parameter(&mut state.mode.current, name, number(current)?)?;
            set_parameter(&mut state.mode.default, name, number(default)?)?;
        }
        "saved" => {
            let (name, value) = (word()?, word()?);
            let saved = state.mode.saved.get_or_insert(state.mode.default);
            set_parameter(saved, name, number(value)?)?;
        }
        "blocks" => state.blocks = number(word()?)?,
        "ejected" => state.ejected = true,
        "generation" => reservations.generation = number(word()?)?,
        "aptpl" => reservations.aptpl = true,
        "registration" => {
            reservations.registrations.push(Registration { nexus: nexus(word()?)?, key: hex(word()?)? });
        }
        "reservation" => {
            let code = hex(word()?)?;
            let kind = u8::try_from(code).ok().and_then(ReservationType::from_code);
            let holder = words.next().map(nexus).transpose()?;
            reservations.reservation =
                Some(PersistentReservation { kind: kind.ok_or("there is no such type of reservation")?, holder });
        }
        "reserved" => reservations.legacy = Some(nexus(word()?)?),
        "access" => {
            let (group, current, default) = (number(word()?)?, access_state(word()?)?, access_state(word()?)?);
            state.access.push(KeptAccess { group, current, default });
        }
        "changes" => {
            let epoch = u32::try_from(hex(word()?)?).map_err(|_| "an epoch is too great")?;
            state.changes.push(KeptChanges { epoch, made: number(word()?)? });
        }
        "aborted" => {
            let nexus = Some(word()?).filter(|who| *who != EVERYBODY).map(nexus).transpose()?;
            state.aborts.push(KeptAbort { nexus, at: number(word()?)? });
        }
        "erasing" => state.occupation = Some(erasing::read(words)?),
        "nexus" | "absent" => {
            let (nexus, present) = (nexus(word()?)?, about == "nexus");
            let attentions = words.map(attention).collect::<Result<Vec<_>, _>>()?;
            state.nexuses.push(KeptNexus { nexus, present, attentions, prevent: false });
        }
        "prevent" => {
            let who = nexus(word()?)?;
            // Of the one just above: a nexus may be there several times, once for each address of the unit.
            match state.nexuses.last_mut() {
                Some(last) if last.nexus == who => last.prevent = true,
                _ => return Err("it is not about the nexus above".to_owned()),
            }
        }
        _ => records::read(about, words, &mut state.records)?,
    }
    Ok(())
}

/// A state that no sequence of commands leads to is refused: what it would deny or allow, nobody asked for.
fn check(state: &ReservationState) -> Result<(), String> {
    let registrations = &state.registrations;
    for (i, registration) in registrations.iter().enumerate() {
        let again = registrations.iter().take(i).any(|other| other.nexus == registration.nexus);
        if registration.key == 0 || again {
            return Err("a registration has no key, or there are two of one nexus".to_owned());
        }
    }
    let held = match state.reservation {
        None => true,
        Some(PersistentReservation { kind, holder: Some(holder) }) => {
            !kind.is_all_registrants() && registrations.iter().any(|registration| registration.nexus == holder)
        }
        Some(PersistentReservation { kind, holder: None }) => kind.is_all_registrants() && !registrations.is_empty(),
    };
    if held { Ok(()) } else { Err("nobody holds the reservation".to_owned()) }
}

/// Mode parameters by name.
fn parameters(mode: ModeState) -> [(&'static str, u32); 10] {
    // Field by field, so that one that is added has to be thought of.
    let ModeState { d_sense, swp, wce, tst, qerr, ua_intlck, tas, lbpere, threshold } = mode;
    [
        ("d_sense", d_sense.into()),
        ("swp", swp.into()),
        ("wce", wce.into()),
        ("tst", tst.into()),
        ("qerr", qerr.into()),
        ("ua_intlck", ua_intlck.into()),
        ("tas", tas.into()),
        ("lbpere", lbpere.into()),
        ("threshold", threshold.enabled.into()),
        ("threshold_count", threshold.count),
    ]
}

fn set_parameter(mode: &mut ModeState, name: &str, value: u32) -> Result<(), String> {
    let byte = || u8::try_from(value).map_err(|_| format!("{value} is too great"));
    match name {
        "d_sense" => mode.d_sense = value != 0,
        "swp" => mode.swp = value != 0,
        "wce" => mode.wce = value != 0,
        "tst" => mode.tst = byte()?,
        "qerr" => mode.qerr = byte()?,
        "ua_intlck" => mode.ua_intlck = byte()?,
        "tas" => mode.tas = value != 0,
        "lbpere" => mode.lbpere = value != 0,
        "threshold" => mode.threshold.enabled = value != 0,
        "threshold_count" => mode.threshold.count = value,
        _ => {}
    }
    Ok(())
}

/// A nexus as it is written.
struct Name(NexusId);

impl Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}:{}", u128::from_be_bytes(self.0.initiator), self.0.port)
    }
}

fn nexus(word: &str) -> Result<NexusId, String> {
    let parts = word.split_once(':');
    let read = parts.map(|(initiator, port)| (u128::from_str_radix(initiator, 16), port.parse()));
    match read {
        Some((Ok(initiator), Ok(port @ 1..))) => Ok(NexusId { initiator: initiator.to_be_bytes(), port }),
        _ => Err(format!("{word} is no nexus")),
    }
}

fn attention(word: &str) -> Result<Attention, String> {
    let known = |code| Attention::ALL.into_iter().find(|attention| attention.code().0 == code);
    let code = u16::from_str_radix(word, 16).ok();
    code.and_then(known).ok_or_else(|| format!("there is no unit attention {word}"))
}

/// Transitioning is no state to go on with.
fn access_state(word: &str) -> Result<AccessState, String> {
    let code = hex(word)?;
    let state = u8::try_from(code).ok().and_then(AccessState::from_code);
    let settled = state.filter(|state| *state != AccessState::Transitioning);
    settled.ok_or_else(|| format!("there is no access state {code:x}"))
}

pub(super) fn hex(word: &str) -> Result<u64, String> {
    u64::from_str_radix(word, 16).map_err(|_| format!("{word} is no number of 64 bits"))
}

pub(super) fn number<T: FromStr>(word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("{word} is no such number"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lu::KeptRecords;
    use crate::lu::{Erasure, KeptMode, Method, Occupation, Pattern, Purpose, Stage};
    use crate::scsi::spc::ModeThreshold;

    fn nexus(n: u8) -> NexusId {
        NexusId { initiator: [n; 16], port: u16::from(n) }
    }

    fn content() -> Content {
        let default = ModeState::default();
        Content {
            naa: 0x3712_8e1d_94fd_9caa,
            boot: Some(BootId("7bd4b13b-0a46-4cb7-a3fd-4f4d0f4d1c0e".to_owned())),
            handed_over: false,
            state: KeptState {
                mode: KeptMode {
                    current: ModeState { swp: true, qerr: 3, wce: false, ..default },
                    default,
                    saved: None,
                },
                blocks: 131_072,
                ejected: true,
                reservations: ReservationState {
                    generation: 0xffff_fffe,
                    registrations: vec![
                        Registration { nexus: nexus(1), key: u64::MAX },
                        Registration { nexus: nexus(2), key: 1 },
                    ],
                    reservation: Some(PersistentReservation {
                        kind: ReservationType::WriteExclusiveRegistrantsOnly,
                        holder: Some(nexus(2)),
                    }),
                    aptpl: true,
                    legacy: None,
                },
                records: KeptRecords::default(),
                access: vec![KeptAccess {
                    group: 65535,
                    current: AccessState::Offline,
                    default: AccessState::ActiveNonOptimized,
                }],
                occupation: None,
                changes: vec![KeptChanges { epoch: u32::MAX, made: 1 }, KeptChanges { epoch: 0x1f, made: u32::MAX }],
                aborts: vec![KeptAbort { nexus: Some(nexus(2)), at: u64::MAX }, KeptAbort { nexus: None, at: 7 }],
                nexuses: vec![
                    KeptNexus {
                        nexus: nexus(1),
                        present: true,
                        attentions: Attention::ALL[..17].into(),
                        prevent: true,
                    },
                    KeptNexus {
                        nexus: nexus(3),
                        present: false,
                        attentions: vec![Attention::NexusLoss],
                        prevent: false,
                    },
                ],
            },
        }
    }

    fn damaged(bytes: &[u8]) -> bool {
        matches!(decode(bytes), Err(Flaw::Damaged(_)))
    }

    #[test]
    fn what_is_written_is_read() {
        let content = content();
        assert_eq!(decode(&encode(&content).unwrap()), Ok(content.clone()));
        let groups = "access 65535 e 1\n";
        assert!(String::from_utf8_lossy(&encode(&content).unwrap()).contains(groups));
        let empty = Content { naa: 0, boot: None, handed_over: true, state: KeptState::new(ModeState::default()) };
        assert_eq!(decode(&encode(&empty).unwrap()), Ok(empty));
        let all = Some(PersistentReservation { kind: ReservationType::ExclusiveAccessAllRegistrants, holder: None });
        let mut held = content.clone();
        held.state.reservations.reservation = all;
        assert_eq!(decode(&encode(&held).unwrap()), Ok(held));
        let mut occupied = content.clone();
        let method = Method::Pattern(Pattern { bytes: vec![0xa5, 0x5a], passes: 3, invert: true });
        occupied.state.occupation = Some(Occupation {
            erasure: Erasure { purpose: Purpose::Sanitize { ause: true }, method },
            stage: Stage::Running { done: 1 << 20, len: 1 << 30 },
        });
        let bytes = encode(&occupied).unwrap();
        assert!(
            String::from_utf8_lossy(&bytes).contains("erasing sanitize-ause running 1048576 1073741824 3 1 a55a\n")
        );
        assert_eq!(bytes[8..12], [2, 0, 0, 0], "a program that would pass over it does not read it");
        assert_eq!(encode(&content).unwrap()[8..12], [1, 0, 0, 0]);
        assert_eq!(decode(&bytes), Ok(occupied));
        let mut reserved = content;
        reserved.state.reservations = ReservationState { legacy: Some(nexus(9)), ..ReservationState::default() };
        let threshold = ModeThreshold { enabled: true, count: u32::MAX };
        reserved.state.mode.saved = Some(ModeState { lbpere: true, threshold, ..reserved.state.mode.current });
        assert!(String::from_utf8_lossy(&encode(&reserved).unwrap()).contains("saved threshold_count 4294967295\n"));
        assert_eq!(decode(&encode(&reserved).unwrap()), Ok(reserved));
    }

    /// Each bit of each byte.
    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = encode(&content()).unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                assert!(damaged(&flipped), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn every_other_length_is_noticed() {
        let bytes = encode(&content()).unwrap();
        for length in 0..bytes.len() {
            assert!(damaged(&bytes[..length]), "{length}");
            // What a file system that lost the data leaves.
            let mut zeros = bytes.clone();
            zeros[length..].fill(0);
            assert!(damaged(&zeros), "{length}");
        }
        for more in [1, 4096] {
            assert!(damaged(&[bytes.clone(), vec![0; more]].concat()));
        }
        assert!(damaged(&[bytes.clone(), bytes].concat()));
    }

    /// Files of version 1 as they were written at first: they are read for ever.
    #[test]
    fn version_1_is_read() {
        let payload = "\
            unit 37128e1d94fd9caa\n\
            boot 7bd4b13b-0a46-4cb7-a3fd-4f4d0f4d1c0e\n\
            mode d_sense 0 0\n\
            mode swp 1 0\n\
            mode wce 0 1\n\
            mode tst 1 1\n\
            mode qerr 3 0\n\
            mode ua_intlck 0 0\n\
            mode tas 0 0\n\
            blocks 131072\n\
            generation 4294967294\n\
            aptpl\n\
            registration 01010101010101010101010101010101:1 ffffffffffffffff\n\
            registration 02020202020202020202020202020202:2 0000000000000001\n\
            reservation 5 02020202020202020202020202020202:2\n\
            nexus 01010101010101010101010101010101:1 2900 2903 2907 2a03 2a04 2a05 2f00 2800 2a09 2a01 2a06 3f0e 3f03 3f05 \
            2a02 2a10 3807\n\
            prevent 01010101010101010101010101010101:1\n\
            absent 03030303030303030303030303030303:3 2907\n";
        // The header: computed by other means.
        let mut bytes = b"vstgtLU\n\x01\0\0\0".to_vec();
        bytes.extend((payload.len() as u32).to_le_bytes());
        let mut sum = !0u32;
        for byte in bytes.iter().chain(payload.as_bytes()) {
            sum ^= u32::from(*byte);
            for _ in 0..8 {
                sum = sum >> 1 ^ if sum & 1 == 1 { 0xedb8_8320 } else { 0 };
            }
        }
        bytes.extend((!sum).to_le_bytes());
        bytes.extend(payload.as_bytes());
        let mut as_written = content();
        // Lines that came later.
        as_written.state.access.clear();
        as_written.state.ejected = false;
        as_written.state.changes.clear();
        as_written.state.aborts.clear();
        assert_eq!(decode(&bytes), Ok(as_written));
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        for version in [3, 4, u32::MAX] {
            assert_eq!(decode(&frame(version, 3, b"abc")), Err(Flaw::Newer(version)));
        }
        assert!(damaged(&frame(0, 3, b"abc")));
        assert!(damaged(&frame(1, 3, b"abc")));
        assert!(damaged(b"#!/bin/sh\necho this is another kind of file\n"));
    }

    /// A file whose checksum is right, but that nobody can have written.
    #[test]
    fn impossible_states_are_refused() {
        let mut whole = String::new();
        lines(&content(), &mut whole).unwrap();
        let read = |text: &str| decode(&frame(1, text.len() as u32, text.as_bytes()));
        assert_eq!(read(&whole), Ok(content()));
        let cases = [
            ("reservation 5", "reservation 2"),
            ("reservation 5", "reservation 7"),
            ("reservation 5 02020202020202020202020202020202:2", "reservation 5"),
            ("reservation 5 02", "reservation 5 03"),
            ("reservation 5 02", "reservation 105 02"),
            (" 0000000000000001", " 0000000000000000"),
            (" 0000000000000001", " 10000000000000001"),
            (" 0000000000000001", ""),
            ("registration 01010101010101010101010101010101:1", "registration 02020202020202020202020202020202:2"),
            (" 2a03", " ffff"),
            (" 2a03", "  2a03"),
            (":3", ":0"),
            (":3", ""),
            ("prevent 01", "prevent 02"),
            ("unit 37", "unit zz"),
            ("unit 37", "+unit 37"),
            ("generation 4294967294", "generation 4294967296"),
            ("mode qerr 3 0", "mode qerr 3"),
            ("mode qerr 3 0", "mode qerr 259 0"),
            ("mode qerr 3 0", "saved qerr"),
        ];
        for (from, to) in cases {
            let text = whole.replacen(from, to, 1);
            assert_ne!(text, whole, "{from}");
            assert!(matches!(read(&text), Err(Flaw::Damaged(_))), "{from} → {to}: {:?}", read(&text));
        }
        assert_eq!(read(&format!("{whole}colour blue\nmode hue 3 4\n")), Ok(content()), "what may be passed over");
    }
}

//! Loss of power at any moment: what GOOD promised to be durable is on the medium, whatever a volatile cache loses.
//!
//! Below the image lies a write log ([`write_log`]): what the process wrote and synced, in order, with marks where each command was sent and where its
//! end was seen. Each place in the log is a cut: the power goes there. For each, each block that may have changed is looked at with all
//! contents that it may hold then ([`write_log::medium`]), and none may break a promise ([`power::promises`]); so all
//! that a cache may lose is covered, be it reordered, torn or cut off. Now and then whole images are made, too.
//!
//! The log is kept by a file system in this program (FUSE) below the image of a real `vstgt` process, and by an image in memory below a
//! target in this program, where operations overlap and writes are atomic. `VSTGT_SOAK=1` asks for more; `VSTGT_SEED` for the same again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "test code")]

mod drive;
mod frontend;
mod held;
mod power;
mod write_log;

#[path = "power/state.rs"]
mod state;

use std::fs::File;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use vstgt::backing::Image;
use vstgt::hba::WaitKind;

use frontend::guest::{LINUX_FEATURES, connect};
use frontend::{BOUND, Guest, Ram, Vstgt, watchdog};
use held::{kinds, serve_units};
use power::image::{self, Lie, LoggedImage};
use power::promises::{BLOCK, Broken, Content, History, Judge, torn};
use power::writer::{BLOCKS, Extras, Writer};
use write_log::fuse::{Mounted, ROOT};
use write_log::medium::{Loss, bytes_of, mix};
use write_log::names::names_after;
use write_log::{Record, WriteLog};

fn soak() -> bool {
    std::env::var_os("VSTGT_SOAK").is_some()
}

/// Commands of one run.
fn commands() -> usize {
    if soak() { 20_000 } else { 1_500 }
}

/// Enough to find a lie.
const FEW: usize = 600;

/// From the environment, or a new one; printed, for a run that failed.
fn seed() -> u64 {
    let given = std::env::var("VSTGT_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed =
        given.unwrap_or_else(|| SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64);
    eprintln!("VSTGT_SEED={seed}");
    seed
}

/// What judging a log came to.
#[derive(Debug, Default)]
struct Verdict {
    cuts: usize,
    judged: u64,
    promised: u64,
    images: usize,
    broken: Vec<Broken>,
}

/// Cuts a log everywhere.
fn judge(history: &History, records: &[Record], file: u64, seed: u64) -> Verdict {
    let mut judge = Judge::new(history, records, file, true);
    let mut verdict = Verdict { broken: torn(history, records), ..Verdict::default() };
    let every = (records.len() / if soak() { 400 } else { 20 }).max(1);
    while let Some(broken) = judge.step() {
        verdict.cuts += 1;
        verdict.broken.extend(broken);
        if verdict.cuts.is_multiple_of(every) {
            let mut losses = vec![Loss::Nothing, Loss::Everything];
            let records_lost = judge.medium().volatile_records();
            let number = verdict.cuts as u64;
            losses.extend(records_lost.get(records_lost.len() / 2).map(|middle| Loss::From(*middle)));
            losses.extend([Loss::Writes(mix(seed, number)), Loss::Sectors(mix(seed, number + 1))]);
            for loss in losses {
                let image = image_after(&judge, records, loss);
                let blocks = image.chunks(BLOCK).map(Content::of).zip(0..).map(|(content, block)| (block, content));
                verdict.broken.extend(judge.image(blocks.collect::<Vec<_>>()));
                verdict.images += 1;
            }
        }
    }
    verdict.judged = judge.judged;
    verdict.promised = judge.promised;
    verdict
}

/// The bytes of the blocks in question, as a loss of power leaves them.
fn image_after(judge: &Judge<'_>, records: &[Record], loss: Loss) -> Vec<u8> {
    let mut bytes = vec![0; BLOCKS as usize * BLOCK];
    for (block, source) in judge.medium().after(loss) {
        if block < BLOCKS
            && let Some(content) = bytes_of(records, source, BLOCK as u64)
        {
            bytes[block as usize * BLOCK..][..BLOCK].copy_from_slice(content);
        }
    }
    bytes
}

fn assert_kept(history: &History, records: &[Record], file: u64, seed: u64) {
    let start = Instant::now();
    let verdict = judge(history, records, file, seed);
    eprintln!(
        "{} cuts, {} contents of blocks and {} images judged against {} promises in {:.1?}; {:?}",
        verdict.cuts,
        verdict.judged,
        verdict.images,
        verdict.promised,
        start.elapsed(),
        history.good(),
    );
    let some: Vec<_> = verdict.broken.iter().take(5).collect();
    assert!(verdict.broken.is_empty(), "{} promises broken, such as {some:#?}", verdict.broken.len());
    assert!(verdict.cuts >= 1000 && verdict.promised >= 1000, "{verdict:?}");
}

fn guest(socket: &std::path::Path) -> Guest {
    let mut guest = Guest::over(connect(socket), Ram::new(16 << 20));
    guest.negotiate();
    guest.start(LINUX_FEATURES, &[0, 1, 2], 128);
    guest.clear_attentions();
    guest
}

/// All guests first come, then take their unit attentions.
fn guests(sockets: &[std::path::PathBuf]) -> Vec<Guest> {
    let mut guests: Vec<Guest> = sockets.iter().map(|socket| guest(socket)).collect();
    guests.iter_mut().for_each(|guest| drop(guest.clear_attentions()));
    guests
}

/// A file system that logs; `None`, loudly, on a host that lets nobody mount one.
fn mounted() -> Option<Mounted> {
    match Mounted::new() {
        Ok(mounted) => Some(mounted),
        Err(e) => {
            eprintln!("NOT RUN: no FUSE here ({e}); what the target does is judged by the image in memory only");
            None
        }
    }
}

/// Runs the writer against a process whose image lies in the log; what happened, the log, and the file's number in it.
fn against_a_process(sockets: usize, seed: u64) -> Option<(History, Vec<Record>, u64)> {
    let mounted = mounted()?;
    // Its name is not durable yet.
    File::create(mounted.path().join("disk.img")).unwrap().set_len(8 << 20).unwrap();
    let file = mounted.number_of(ROOT, "disk.img").unwrap();
    assert_eq!(mounted.log().with(|records| names_after(records, ROOT, usize::MAX)).get("disk.img"), None);
    let dir = tempfile::tempdir().unwrap();
    symlink(mounted.path().join("disk.img"), dir.path().join("disk.img")).unwrap();
    let vstgt = Vstgt::start_in(dir, sockets, |_| {});
    // Whatever is promised from now on, the file is there.
    assert_eq!(mounted.log().with(|records| names_after(records, ROOT, usize::MAX)).get("disk.img"), Some(&file));
    let sockets: Vec<_> = (0..sockets).map(|at| vstgt.socket(at).to_owned()).collect();
    let extras = Extras { atomic: false, mode_select: true };
    let mut writer = Writer::new(guests(&sockets), mounted.log().clone(), seed, extras);
    writer.run(commands() / 2);
    // What a process wrote is made durable by the next one, if the next one promises it.
    writer.begin(50);
    let vstgt = Vstgt::start_in(vstgt.kill(), sockets.len(), |_| {});
    writer.go_on(guests(&sockets));
    writer.run(commands() / 2);
    writer.sanitize();
    writer.run(commands() / 10);
    let history = std::mem::take(&mut writer.history);
    drop(writer);
    vstgt.stop();
    Some((history, mounted.log().records(), file))
}

/// Runs the writer against a target in this program whose image lies as it is told.
fn against_an_image(wait: WaitKind, lie: Lie, commands: usize, seed: u64) -> (History, Vec<Record>) {
    let log = WriteLog::new();
    let image: Arc<dyn Image> = Arc::new(LoggedImage::new(8 << 20, log.clone(), lie));
    let names = ["a", "b"].map(str::to_owned);
    let (hba, server, dir) = serve_units(wait, 2, &names, vec![(image, 0, None)]);
    let sockets: Vec<_> = names.iter().map(|name| dir.path().join(name)).collect();
    let extras = Extras { atomic: true, mode_select: true };
    let mut writer = Writer::new(guests(&sockets), log.clone(), seed, extras);
    writer.run(commands);
    let history = std::mem::take(&mut writer.history);
    drop(writer);
    server.stop(BOUND).unwrap();
    hba.stop();
    (history, log.records())
}

#[test]
fn a_process_keeps_its_promises() {
    watchdog(Duration::from_secs(1200));
    // Two share the image: blocks must stay whole. One has it for itself: io_uring, where it is there.
    for sockets in [2, 1] {
        let seed = seed();
        let Some((history, records, file)) = against_a_process(sockets, seed) else { return };
        eprintln!("{sockets} initiators:");
        assert_kept(&history, &records, file, seed);
    }
}

#[test]
fn a_target_keeps_its_promises_when_operations_overlap() {
    for wait in kinds() {
        let seed = seed();
        let (history, records) = against_an_image(wait, Lie::None, commands(), seed);
        eprintln!("{wait:?}:");
        assert_kept(&history, &records, image::FILE, seed);
    }
}

/// The judge is judged: whatever an image lies about is found.
#[test]
fn lies_are_found() {
    let wait = kinds()[0];
    for lie in [Lie::Flush, Lie::Fua, Lie::StaleFlush] {
        let seed = seed();
        let (history, records) = against_an_image(wait, lie, FEW, seed);
        let verdict = judge(&history, &records, image::FILE, seed);
        eprintln!("{lie:?}: {} promises broken", verdict.broken.len());
        assert!(verdict.broken.len() > 10, "{lie:?} was not found");
    }
}

/// So is a log from which something is missing, or in which something came too late.
#[test]
fn a_changed_log_is_found_out() {
    let seed = seed();
    let (history, honest) = against_an_image(kinds()[0], Lie::None, FEW, seed);
    // What becomes of a record that it is about.
    type Change = fn(&Record) -> Option<Record>;
    const NOTHING: Record = Record::Mark(u64::MAX);
    let changes: [(&str, Change); 4] = [
        ("syncs", |record| matches!(record, Record::Sync { .. }).then_some(NOTHING)),
        ("what is written through", |record| match record.clone() {
            Record::Write { file, offset, data, synced: true, atomic } => {
                Some(Record::Write { file, offset, data, synced: false, atomic })
            }
            _ => None,
        }),
        ("zeros", |record| matches!(record, Record::Clear { .. }).then_some(NOTHING)),
        ("what is never torn", |record| match record.clone() {
            Record::Write { file, offset, data, synced, atomic: true } => {
                Some(Record::Write { file, offset, data, synced, atomic: false })
            }
            _ => None,
        }),
    ];
    for (what, change) in changes {
        let mut records = honest.clone();
        // A third of them.
        let them = records.iter_mut().filter_map(|record| change(record).map(|changed| (record, changed)));
        them.step_by(3).for_each(|(record, changed)| *record = changed);
        assert_ne!(records, honest, "{what}: nothing was changed");
        let verdict = judge(&history, &records, image::FILE, seed);
        eprintln!("without {what}: {} promises broken", verdict.broken.len());
        assert!(!verdict.broken.is_empty(), "{what}: was not found out");
    }
}

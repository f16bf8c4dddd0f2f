//! Loss of power under a guest with a journalling file system.
//!
//! A Linux guest works on an ext4 of a disk below which all is logged (FUSE, `tests/write_log`), and tells what it has made durable: files
//! replaced by renaming, lines appended, blocks written directly and through, files deleted. The power then goes at many places of the
//! log, and each time a cache loses something else. On what is left the journal is replayed, the file system must be consistent
//! (`e2fsck`), and everything that the guest had told of before must be there.
//!
//! The disk has blocks of 4096 bytes, and those are never torn: ext4 writes blocks of that size and relies on it for the block that commits a
//! transaction, whose checksum is over all of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

#[path = "../../tests/write_log/mod.rs"]
mod write_log;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use vm_tests::guest::Guest;
use vm_tests::kernel::Line;
use vm_tests::qemu::Machine;
use vm_tests::vstgt::Config;
use vm_tests::workdir::WorkDir;
use vm_tests::{Result, VSTGT_SOAK, provision, tools};

use write_log::Record;
use write_log::fuse::Mounted;
use write_log::medium::{Loss, Medium, bytes_of, mix};

const MIB: u64 = 1 << 20;
const SIZE: u64 = 64 * MIB;
const BLOCK: usize = 4096;

/// How long a tool may take on one image.
const TOOL: Duration = Duration::from_secs(120);

/// How many guests' processes work at the same time, each on files of its own.
const WORKERS: u64 = 3;

/// Bytes of a line that is appended.
const LINE: usize = 32;

fn soak() -> bool {
    std::env::var_os(VSTGT_SOAK).is_some()
}

/// How many rounds each of the guest's workers works; and at how many places the power goes.
fn effort() -> (u64, usize) {
    if soak() { (150, 1200) } else { (20, 80) }
}

/// How long they may take.
const WORK: Duration = Duration::from_secs(1200);

/// What a worker told of: its kept promise with this number, and where in the log that was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Promise {
    what: What,
    worker: u64,
    number: u64,
    heard: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum What {
    /// The file `rW` has the content of this number: written beside, synced, renamed, the directory synced.
    Replaced,
    /// The file `lW` has so many lines.
    Appended,
    /// The block of `bW` has the content of this number: written directly and through.
    Overwritten,
    /// The file `tW.N` is there.
    Made,
    /// The file `tW.N` is gone.
    Removed,
}

/// What the guest does. A line is printed when, and not before, something is durable.
fn script(disk: &str, rounds: u64) -> String {
    format!(
        r#"
set -e
mkdir -p /tmp/mnt
mount -t ext4 -o commit=1,discard {disk} /tmp/mnt
cd /tmp/mnt/d
content() {{ yes "$1" 2> /dev/null | head -c $2; }}
worker() {{
    local w=$1 n
    content "b$w 0" 4096 > b$w
    sync b$w .
    for n in $(seq {rounds}); do
        content "r$w $n" $(((n * 7919 % 9 + 1) * 1000)) > r$w.new
        sync r$w.new
        mv -f r$w.new r$w
        sync .
        echo "kept r $w $n"
        printf '%-31s\n' "l$w $n" >> l$w
        sync -d l$w
        echo "kept l $w $n"
        content "b$w $n" 4096 | dd of=b$w bs=4096 iflag=fullblock oflag=direct,dsync conv=notrunc 2> /dev/null
        echo "kept b $w $n"
        content "t$w $n" $(((n * 104729 % 40 + 1) * 1000)) > t$w.$n
        sync t$w.$n .
        echo "kept t $w $n"
        if [ $n -gt 3 ]; then
            rm t$w.$((n - 3))
            sync .
            echo "kept x $w $((n - 3))"
        fi
    done
}}
for w in $(seq {WORKERS}); do worker $w & done
wait
"#
    )
}

fn promise(line: &str, heard: usize) -> Option<Promise> {
    let words: Vec<&str> = line.split(' ').collect();
    let ["kept", what, worker, number] = words[..] else { return None };
    let what = match what {
        "r" => What::Replaced,
        "l" => What::Appended,
        "b" => What::Overwritten,
        "t" => What::Made,
        "x" => What::Removed,
        _ => return None,
    };
    Some(Promise { what, worker: worker.parse().unwrap(), number: number.parse().unwrap(), heard })
}

/// A file's content by its number, as the guest's `content` makes it.
fn content(text: &str, len: usize) -> Vec<u8> {
    format!("{text}\n").bytes().cycle().take(len).collect()
}

fn replaced(worker: u64, number: u64) -> Vec<u8> {
    content(&format!("r{worker} {number}"), (number as usize * 7919 % 9 + 1) * 1000)
}

fn made(worker: u64, number: u64) -> Vec<u8> {
    content(&format!("t{worker} {number}"), (number as usize * 104_729 % 40 + 1) * 1000)
}

/// Everything that a run left behind.
struct Run {
    before: Vec<u8>,
    records: Vec<Record>,
    file: u64,
    promises: Vec<Promise>,
    /// Where the file system was mounted, or a little before.
    start: usize,
}

/// Lets a guest work; `None`, loudly, where no FUSE is to be had.
fn run(dir: &WorkDir, rounds: u64) -> Result<Option<Run>> {
    let mounted = match Mounted::new() {
        Ok(mounted) => mounted,
        Err(e) => {
            eprintln!("NOT RUN: no FUSE here ({e}), so nothing can be logged below an image");
            return Ok(None);
        }
    };
    let empty = dir.path("empty");
    fs::create_dir_all(empty.join("d")).unwrap();
    let image = dir.sparse("made.img", SIZE)?;
    let features = "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0";
    let words = ["-q", "-F", "-t", "ext4", "-b", "4096", "-E", features, "-d"];
    let mut words: Vec<&Path> = words.iter().map(Path::new).collect();
    words.extend([empty.as_path(), image.as_path()]);
    tools::run("mke2fs", &words, TOOL)?;
    let before = fs::read(&image).unwrap();
    let file = mounted.add_file("disk.img", before.clone());

    let socket = dir.path("a.sock");
    let vstgt = Config::new()
        .socket(&socket)
        .lun(&mounted.path().join("disk.img"), ",serial=POWER01,block-size=4096")
        .arg("-v")
        .start(&dir.path("vstgt.log"))?;
    let machine = Machine::new("power")?.memory_mib(384).vhost_user_scsi(&socket, 2);
    let mut guest = Guest::start_boot(machine, Line::V6_12, dir.root())?.ready()?;
    let disk = guest.disk("POWER01")?;
    // Linux writes with FUA, and flushes, and discards.
    let said = guest.sh(&format!(
        "cat /sys/block/{0}/queue/fua /sys/block/{0}/queue/write_cache; dmesg | grep -i 'dpo and fua'",
        &disk[5..]
    ))?;
    eprintln!("{said}");
    let start = mounted.log().len();
    let mut promises = Vec::new();
    let running = guest.start(&script(&disk, rounds))?;
    let outcome = running.watch(WORK, |line| {
        promises.extend(promise(line, mounted.log().mark(promises.len() as u64)));
    })?;
    assert_eq!(outcome.status, 0, "{}", outcome.text());
    guest.vm().kill();
    drop(guest);
    drop(vstgt);
    Ok(Some(Run { before, records: mounted.log().records(), file, promises, start }))
}

/// How a cut went wrong.
type Wrong = String;

impl Run {
    /// Replays so much of the log and looks at what is left.
    fn judge(&self, dir: &WorkDir, medium: &Medium, records: &[Record], loss: Loss) -> Result<Vec<Wrong>> {
        let (image, out) = (dir.path("cut.img"), dir.path("out"));
        self.write_image(&image, medium, records, loss);
        drop(fs::remove_dir_all(&out));
        fs::create_dir(&out).unwrap();
        // The journal is replayed and orphans are cleared; then nothing may be left to mend.
        let script = "e2fsck -p \"$1\" > \"$3\" 2>&1; [ $? -le 1 ] && e2fsck -fn \"$1\" >> \"$3\" 2>&1 && \
                      debugfs -R \"rdump /d $2\" \"$1\" > /dev/null 2>&1 || echo bad";
        let said = dir.path("e2fsck.log");
        let words = [Path::new("-c"), Path::new(script), Path::new("sh"), &image, &out, &said];
        if tools::run("sh", &words, TOOL)?.contains("bad") {
            return Ok(vec![format!("the file system is not consistent: {}", fs::read_to_string(&said).unwrap())]);
        }
        let heard = self.promises.iter().filter(|promise| promise.heard < medium.cut());
        let mut last: HashMap<(What, u64, u64), u64> = HashMap::new();
        for promise in heard {
            let of_many = matches!(promise.what, What::Made | What::Removed);
            let key = (promise.what, promise.worker, if of_many { promise.number } else { 0 });
            last.insert(key, promise.number);
        }
        let kept = |((what, worker, _), number)| self.kept(&out.join("d"), what, worker, number, &last);
        let each = last.iter().map(|(key, number)| (*key, *number));
        Ok(each.filter_map(|promise| kept(promise).err()).collect())
    }

    /// Whether a promise is kept in this directory; what was done later may be there, too.
    fn kept(
        &self,
        d: &Path,
        what: What,
        worker: u64,
        number: u64,
        last: &HashMap<(What, u64, u64), u64>,
    ) -> std::result::Result<(), Wrong> {
        let read =
            |name: String| fs::read(d.join(&name)).map_err(|e| format!("{what:?} {worker} {number}: {name}: {e}"));
        // No number is skipped, and the last of all is followed by what was under way at most.
        let most = self.promises.iter().filter(|p| p.worker == worker).map(|p| p.number).max().unwrap_or(0) + 1;
        let wrong = |got: &[u8]| {
            Err(format!("{what:?} {worker} {number}: {:?}", String::from_utf8_lossy(&got[..got.len().min(40)])))
        };
        match what {
            What::Replaced => {
                let got = read(format!("r{worker}"))?;
                let ok = (number..=most).any(|n| replaced(worker, n) == got);
                if ok { Ok(()) } else { wrong(&got) }
            }
            What::Appended => {
                let got = read(format!("l{worker}"))?;
                let line = |n| format!("{:<31}\n", format!("l{worker} {n}")).into_bytes();
                let lines: Vec<u8> = (1..=most).flat_map(line).collect();
                let promised = number as usize * LINE;
                // What was not promised may be zeros: of a block that is there already ext4 may write the length before the bytes.
                let same = |(at, byte): (usize, &u8)| lines.get(at) == Some(byte) || at >= promised && *byte == 0;
                match got.iter().enumerate().position(|byte| !same(byte)) {
                    None if got.len() >= promised => Ok(()),
                    differs => Err(format!("{what:?} {worker} {number}: {} bytes, wrong at {differs:?}", got.len())),
                }
            }
            What::Overwritten => {
                let got = read(format!("b{worker}"))?;
                let ok = (number..=most).any(|n| content(&format!("b{worker} {n}"), BLOCK) == got);
                if ok { Ok(()) } else { wrong(&got) }
            }
            What::Made => {
                // It may be about to be removed.
                let removing = last.get(&(What::Made, worker, number + 3)).is_some();
                match read(format!("t{worker}.{number}")) {
                    Ok(got) if got == made(worker, number) => Ok(()),
                    Ok(got) => wrong(&got),
                    Err(_) if removing => Ok(()),
                    Err(e) => Err(e),
                }
            }
            What::Removed => match read(format!("t{worker}.{number}")) {
                Ok(_) => Err(format!("{what:?} {worker} {number}: it is there again")),
                Err(_) => Ok(()),
            },
        }
    }

    fn write_image(&self, path: &Path, medium: &Medium, records: &[Record], loss: Loss) {
        let after = medium.after(loss);
        // On a file system in memory; holes where there are zeros.
        drop(fs::remove_file(path));
        let mut file = File::create_new(path).unwrap();
        file.set_len(SIZE).unwrap();
        const ZEROS: [u8; BLOCK] = [0; BLOCK];
        for (number, before) in self.before.chunks(BLOCK).enumerate() {
            let block = match after.get(&(number as u64)) {
                None | Some(write_log::medium::Source::Before) => before,
                Some(source) => bytes_of(records, *source, BLOCK as u64).unwrap_or(&ZEROS),
            };
            if block != ZEROS {
                file.seek(SeekFrom::Start((number * BLOCK) as u64)).unwrap();
                file.write_all(block).unwrap();
            }
        }
    }

    /// Lets the power go at so many places; each cut that went wrong. With `all` everything is lost that can be, or else something.
    fn cut(&self, dir: &WorkDir, records: &[Record], cuts: usize, all: bool, seed: u64) -> Result<Vec<Wrong>> {
        let mut places: Vec<usize> = (0..cuts as u64)
            .map(|n| self.start + (mix(seed, n) % (records.len() - self.start + 1) as u64) as usize)
            .collect();
        places.sort_unstable();
        let mut medium = Medium::new(self.file, BLOCK as u64);
        let mut wrong = Vec::new();
        for (n, place) in (0..).zip(places) {
            while medium.cut() < place {
                medium.step(&records[medium.cut()]);
            }
            let volatile = medium.volatile_records();
            let loss = match n % 5 {
                _ if all => Loss::Everything,
                0 => Loss::Everything,
                1 => Loss::Nothing,
                2 => Loss::Writes(mix(seed, 1000 + n)),
                3 => Loss::Sectors(mix(seed, 2000 + n)),
                _ => match volatile.len() {
                    0 => Loss::Everything,
                    len => Loss::From(volatile[(mix(seed, 3000 + n) % len as u64) as usize]),
                },
            };
            for what in self.judge(dir, &medium, records, loss)? {
                wrong.push(format!("seed {seed}, cut {place} of {}, {loss:?}: {what}", records.len()));
            }
        }
        Ok(wrong)
    }
}

#[test]
fn ext4_keeps_what_it_promised() -> Result<()> {
    provision::check()?;
    let (rounds, cuts) = effort();
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let dir = WorkDir::in_memory("power")?;
    let Some(run) = run(&dir, rounds)? else { return Ok(()) };
    let count = |of: fn(&Record) -> bool| run.records.iter().filter(|record| of(record)).count();
    eprintln!(
        "{} records: {} writes, {} of them synced by themselves, {} of zeros, {} syncs; {} promises",
        run.records.len(),
        count(|record| matches!(record, Record::Write { .. })),
        count(|record| matches!(record, Record::Write { synced: true, .. })),
        count(|record| matches!(record, Record::Clear { .. })),
        count(|record| matches!(record, Record::Sync { .. })),
        run.promises.len(),
    );
    assert!(run.promises.len() as u64 > 4 * rounds * WORKERS, "{} promises", run.promises.len());
    let start = Instant::now();
    let wrong = run.cut(&dir, &run.records, cuts, false, seed)?;
    eprintln!("{cuts} cuts in {:.1?}", start.elapsed());
    assert!(wrong.is_empty(), "{} wrong, such as {:#?}", wrong.len(), &wrong[..wrong.len().min(5)]);

    // The judge is judged: had vstgt only said that it flushes, or heeds FUA, some of these would have been wrong.
    type Lie = fn(&mut Record);
    let lies: [(&str, Lie); 2] = [
        ("flushes", |record| {
            if matches!(record, Record::Sync { .. }) {
                *record = Record::Mark(0);
            }
        }),
        ("FUA", |record| {
            if let Record::Write { synced, .. } = record {
                *synced = false;
            }
        }),
    ];
    for (what, lie) in lies {
        let mut records = run.records.clone();
        records.iter_mut().for_each(lie);
        if records == run.records {
            eprintln!("no {what} in the log");
            continue;
        }
        let wrong = run.cut(&dir, &records, 25, true, seed)?;
        eprintln!("without {what}: {} wrong", wrong.len());
        assert!(!wrong.is_empty(), "nothing shows without {what}");
    }
    dir.finish();
    Ok(())
}

//! Runs inside a guest: sends one random stream of commands to two disks and reports how they differ (see
//! `vm_tests::differential`).
//!
//! ```text
//! differential LIST OURS PEER SEED COUNT [FIRST]
//! differential LIST --replay REPORT BLOCKS BLOCK
//! differential --show SEED FIRST COUNT BLOCKS BLOCK
//! ```
//!
//! The other forms need no guest: they look up the unexplained examples of an earlier report in a changed list, and show commands.
//!
//! `LIST` is a file of explanations, `OURS` and `PEER` are generic devices. Ends with status 0 whenever it could compare; what it
//! found is in its report.

use std::path::Path;
use std::process::ExitCode;
use vm_tests::differential::explained::Explained;
use vm_tests::differential::run::{Run, replay};
use vm_tests::differential::sg::Disk;
use vm_tests::differential::stream::{Medium, Stream};
use vm_tests::{Context, Error, Result};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match compare(&words) {
        Ok(report) => {
            print!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("differential: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(words: &[String]) -> Result<String> {
    let number = |word: &str| word.parse::<u64>().context(|| format!("the number {word}"));
    let read = |path: &str| std::fs::read_to_string(path).context(|| format!("read {path}"));
    if let [list, option, report, blocks, block] = words
        && option == "--replay"
    {
        let medium = Medium { blocks: number(blocks)?, block: number(block)? as u32 };
        return replay(&read(report)?, medium, &Explained::parse(&read(list)?)?);
    }
    if let [option, seed, first, count, blocks, block] = words
        && option == "--show"
    {
        let medium = Medium { blocks: number(blocks)?, block: number(block)? as u32 };
        let (stream, first) = (Stream { seed: number(seed)?, medium }, number(first)?);
        let lines = (first..first + number(count)?).map(|index| format!("{index}: {}\n", stream.command(index)));
        return Ok(lines.collect());
    }
    let (list, ours, peer, seed, count, first) = match words {
        [list, ours, peer, seed, count] => (list, ours, peer, seed, count, "0"),
        [list, ours, peer, seed, count, first] => (list, ours, peer, seed, count, first.as_str()),
        _ => return Err(Error::new("usage: differential LIST OURS PEER SEED COUNT [FIRST]")),
    };
    let list = read(list)?;
    let (ours, peer) = (Disk::open(Path::new(ours))?, Disk::open(Path::new(peer))?);
    let medium = Run::medium(&ours)?;
    let other = Run::medium(&peer)?;
    if medium != other {
        return Err(Error::new(format!("disks of different sizes: {medium:?} and {other:?}")));
    }
    let stream = Stream { seed: number(seed)?, medium };
    let run = Run { ours, peer, stream, explained: Explained::parse(&list)? };
    let report = run.go(number(first)?, number(count)?)?;
    Ok(report.text(&run.explained))
}

//! Every input that is kept, through the target that it was kept for: plain tests, without libFuzzer.

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long one input may take, with room for a debug build on a busy machine: inputs that take long are findings.
const SLOW: Duration = Duration::from_secs(20);

/// One test, one input after the other: a target may look at the whole process, at its descriptors and threads.
#[test]
fn fuzz_corpus() {
    let mut failed = Vec::new();
    for (name, run) in vstgt_fuzz::TARGETS {
        let files = inputs(name);
        assert!(!files.is_empty(), "no inputs are kept for {name}");
        let start = Instant::now();
        for file in &files {
            let bytes = std::fs::read(file).unwrap();
            let start = Instant::now();
            let ended = catch_unwind(|| run(&bytes));
            if ended.is_err() || start.elapsed() > SLOW {
                failed.push(format!("{} ({:?})", file.display(), start.elapsed()));
            }
        }
        println!("{name}: {} inputs in {:?}", files.len(), start.elapsed());
    }
    assert!(failed.is_empty(), "{} inputs fail: {failed:#?}", failed.len());
}

/// The kept inputs of a target.
fn inputs(name: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

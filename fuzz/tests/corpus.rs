//! Every input that is kept, through the target that it was kept for: plain tests, without libFuzzer.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long one input may take, with room for a debug build on a busy machine: inputs that take long are findings.
const SLOW: Duration = Duration::from_secs(10);

#[test]
fn fuzz_corpus() {
    let (mut count, mut missing) = (0, Vec::new());
    for (name, run) in vstgt_fuzz::TARGETS {
        let files = inputs(name);
        if files.is_empty() {
            missing.push(name);
        }
        for file in files {
            let bytes = std::fs::read(&file).unwrap();
            // Named before it runs: a panic's message does not tell which input it was.
            let name = Named(&file);
            let start = Instant::now();
            run(&bytes);
            assert!(start.elapsed() < SLOW, "{}: {:?}", file.display(), start.elapsed());
            std::mem::forget(name);
            count += 1;
        }
    }
    assert!(missing.is_empty(), "no inputs are kept for {missing:?}");
    println!("{count} inputs");
}

/// The kept inputs of a target.
fn inputs(name: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Says which input it was when a target panics.
struct Named<'a>(&'a Path);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        eprintln!("in {}", self.0.display());
    }
}

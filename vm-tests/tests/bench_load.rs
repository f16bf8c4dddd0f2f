//! The bench's load generator against vstgt: every kind of request for a moment, each read checked for its block. Nothing
//! here is about speed.

use std::time::Duration;
use vm_tests::bench::images::Images;
use vm_tests::bench::measure;
use vm_tests::bench::target::{Kind, Target, VSTGT};
use vm_tests::bench::workload::{Medium, all};
use vm_tests::workdir::WorkDir;
use vm_tests::{Result, paths};

#[test]
fn vstgt_bears_every_load() -> Result<()> {
    let dir = WorkDir::new("load")?;
    let images = Images::new(dir.root(), 16 << 20)?;
    let vstgt = Target { name: VSTGT.to_owned(), kind: Kind::Vstgt(paths::vstgt_binary()?, Vec::new()) };
    for workload in all(false).iter().filter(|workload| workload.medium == Medium::Tmpfs) {
        for interrupts in [false, true] {
            let sample = measure(&vstgt, workload, &images, Duration::from_millis(20), interrupts)?;
            assert!(sample.iops > 0.0 && sample.cpu > 0.0, "{workload}: {sample:?}");
        }
    }
    drop(images);
    dir.finish();
    Ok(())
}

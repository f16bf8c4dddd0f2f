//! fio on the image itself: what the machine does without virtio and SCSI.
//!
//! Its processor time is that of the whole process, the kernel's io_uring workers included, less what fio needs to start.
//! Its own bookkeeping (random numbers, clocks) counts, as the back-ends' own does.

use super::Sample;
use super::cpu;
use super::workload::{Medium, Workload};
use crate::json::Value;
use crate::{Context, Error, Result, tools};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// How much longer than its work fio may take.
const SLACK: Duration = Duration::from_secs(60);

/// Runs `workload` with `engine` for `time`.
///
/// # Errors
/// When fio fails or says what nobody understands.
pub fn measure(engine: &str, workload: &Workload, image: &Path, time: Duration) -> Result<Sample> {
    let started = run(engine, workload, image, &["--number_ios=1".to_owned()], SLACK)?.1;
    let bound = ["--time_based".to_owned(), format!("--runtime={}ms", time.as_millis())];
    let (text, spent) = run(engine, workload, image, &bound, time + SLACK)?;
    parse(&text, workload.write, spent.saturating_sub(started))
}

fn run(
    engine: &str,
    workload: &Workload,
    image: &Path,
    more: &[String],
    bound: Duration,
) -> Result<(String, Duration)> {
    let mut command = Command::new("fio");
    command.args(["--name=floor", "--thread", "--group_reporting", "--norandommap", "--randrepeat=0"]);
    command.args(["--invalidate=0", "--allow_file_create=0", "--output-format=json"]);
    // Where a guest's buffers lie: the kernel copies much slower to elsewhere.
    command.arg("--iomem_align=4096");
    command.arg(format!("--filename={}", image.display().to_string().replace(':', "\\:")));
    command.arg(format!("--rw={}", workload.pattern())).arg(format!("--bs={}", workload.bytes));
    command.arg(format!("--ioengine={engine}")).arg(format!("--numjobs={}", workload.queues));
    command.arg(format!("--direct={}", u8::from(workload.medium == Medium::Direct)));
    if engine != "psync" {
        // In batches: one system call for half of the queue.
        let batch = (workload.depth / 2).max(1);
        command.arg(format!("--iodepth={}", workload.depth)).arg(format!("--iodepth_batch_submit={batch}"));
        command.arg("--iodepth_batch_complete_min=1").arg(format!("--iodepth_batch_complete_max={}", workload.depth));
    }
    command.args(more);
    let before = cpu::of_ended_children()?;
    let text = tools::run_command(command, bound)?;
    Ok((text, cpu::of_ended_children()?.saturating_sub(before)))
}

fn parse(text: &str, write: bool, spent: Duration) -> Result<Sample> {
    // Warnings come first, on the same output.
    let json = text.find('{').and_then(|start| Value::parse(text[start..].trim()));
    let json = json.context(|| format!("not JSON, what fio says:\n{text}"))?;
    let job = json.get("jobs").and_then(|jobs| jobs.list().first());
    let side = job.and_then(|job| job.get(if write { "write" } else { "read" }));
    let side = side.context(|| "fio reports no job")?;
    let number = |value: Option<&Value>| match value {
        Some(Value::Number(number)) => Some(*number),
        _ => None,
    };
    let count = number(side.get("total_ios")).unwrap_or_default();
    if count < 1.0 {
        return Err(Error::new("fio did no I/O"));
    }
    let percentiles = side.get("clat_ns").and_then(|clat| clat.get("percentile"));
    let percentile = |key: &str| {
        number(percentiles.and_then(|all| all.get(key))).map(|ns| ns / 1e3).context(|| format!("no percentile {key}"))
    };
    Ok(Sample {
        iops: number(side.get("iops")).context(|| "no iops in what fio says")?,
        p50: percentile("50.000000")?,
        p99: percentile("99.000000")?,
        p999: percentile("99.900000")?,
        cpu: spent.as_secs_f64() * 1e6 / count,
        calls: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fio_says_is_understood() {
        let text = r#"fio: a warning
{"jobs":[{"read":{"iops":2000.5,"total_ios":1000,"clat_ns":{"percentile":
{"50.000000":1500,"99.000000":2500,"99.900000":9000}}},"write":{"total_ios":0}}]}"#;
        let sample = parse(text, false, Duration::from_millis(2)).unwrap();
        assert_eq!((sample.iops, sample.p50, sample.p99, sample.p999, sample.cpu), (2000.5, 1.5, 2.5, 9.0, 2.0));
        assert!(parse(text, true, Duration::ZERO).unwrap_err().to_string().contains("no I/O"));
        assert!(parse("fio: broken", false, Duration::ZERO).is_err());
    }
}

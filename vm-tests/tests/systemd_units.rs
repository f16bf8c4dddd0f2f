//! systemd finds nothing wrong with the example units of `docs/systemd`. That they fit vstgt is shown in its own tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

use std::fs;
use std::time::Duration;
use vm_tests::workdir::WorkDir;
use vm_tests::{Context, Result, paths, provision, tools};

const ASK: Duration = Duration::from_secs(60);

#[test]
fn systemd_takes_the_example_units() -> Result<()> {
    provision::check()?;
    let dir = WorkDir::new("units")?;
    let units = paths::repository().join("docs/systemd");
    let mut arguments = vec!["verify".to_owned(), "--man=no".into(), "--recursive-errors=no".into()];
    for name in ["vstgt.service", "vstgt.socket"] {
        let file = units.join(name);
        let text = fs::read_to_string(&file).context(|| format!("read {}", file.display()))?;
        // Nothing is installed here, and systemd looks for the program.
        assert!(name != "vstgt.service" || text.contains("ExecStart=/usr/bin/vstgt "));
        let copy = dir.path(name);
        fs::write(&copy, text.replace("/usr/bin/vstgt ", "/bin/true ")).unwrap();
        arguments.push(copy.display().to_string());
    }
    tools::run("systemd-analyze", &arguments, ASK)?;
    // It would have said so.
    let service = dir.path("vstgt.service");
    let text = fs::read_to_string(&service).unwrap();
    fs::write(&service, text.replace("Type=notify", "Type=notified")).unwrap();
    assert!(tools::run("systemd-analyze", &arguments, ASK).is_err(), "a mistake is not found");
    dir.finish();
    Ok(())
}

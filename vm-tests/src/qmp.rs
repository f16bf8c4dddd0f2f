//! A client of the QEMU machine protocol: one JSON object a line, one answer a command, events in between.

use crate::json::{Value, quote};
use crate::port::Port;
use crate::{Context, Error, Result};
use std::time::Duration;

/// How long QEMU may take to answer a command.
const ANSWER: Duration = Duration::from_secs(30);

/// A connection to a running QEMU's monitor.
#[derive(Debug)]
pub struct Qmp {
    port: Port,
}

impl Qmp {
    /// Takes the greeting from a fresh monitor and enters command mode.
    ///
    /// # Errors
    /// When what answers is not a QMP monitor.
    pub fn new(mut port: Port) -> Result<Qmp> {
        let greeting = port.line(ANSWER)?;
        if Value::parse(&greeting).is_none_or(|value| value.get("QMP").is_none()) {
            return Err(Error::new(format!("not a QMP greeting: {greeting}")));
        }
        let mut qmp = Qmp { port };
        qmp.execute("qmp_capabilities", &[])?;
        Ok(qmp)
    }

    /// Runs a command with text arguments and returns what it returned. Events that come before the answer are skipped.
    ///
    /// # Errors
    /// When QEMU answers with an error, or not at all.
    pub fn execute(&mut self, command: &str, arguments: &[(&str, &str)]) -> Result<Value> {
        let arguments: Vec<String> = arguments.iter().map(|(k, v)| format!("{}: {}", quote(k), quote(v))).collect();
        self.execute_json(command, &format!("{{{}}}", arguments.join(", ")))
    }

    /// [`execute`](Qmp::execute) with its arguments as a JSON object, for those that are no texts.
    ///
    /// # Errors
    /// As [`execute`](Qmp::execute).
    pub fn execute_json(&mut self, command: &str, arguments: &str) -> Result<Value> {
        let request = format!("{{\"execute\": {}, \"arguments\": {arguments}}}\n", quote(command));
        self.port.send(&request)?;
        loop {
            let line = self.port.line(ANSWER).context(|| format!("QMP {command}"))?;
            let answer = Value::parse(&line).context(|| format!("QMP {command}: not JSON: {line}"))?;
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
            if let Some(error) = answer.get("error") {
                let why = error.get("desc").and_then(Value::text).unwrap_or("no reason given");
                return Err(Error::new(format!("QMP {command}: {why}")));
            }
        }
    }

    /// The machine's state: `running`, `paused`, `shutdown`, `prelaunch` ...
    ///
    /// # Errors
    /// As [`execute`](Qmp::execute).
    pub fn status(&mut self) -> Result<String> {
        let answer = self.execute("query-status", &[])?;
        answer.get("status").and_then(Value::text).map(str::to_owned).context(|| "QMP query-status: no status")
    }

    /// Stops the vCPUs and, with them, every device's rings.
    ///
    /// # Errors
    /// As [`execute`](Qmp::execute).
    pub fn stop(&mut self) -> Result<()> {
        self.execute("stop", &[]).map(drop)
    }

    /// Starts a stopped machine again.
    ///
    /// # Errors
    /// As [`execute`](Qmp::execute).
    pub fn cont(&mut self) -> Result<()> {
        self.execute("cont", &[]).map(drop)
    }

    /// Presses the power button.
    ///
    /// # Errors
    /// As [`execute`](Qmp::execute).
    pub fn system_powerdown(&mut self) -> Result<()> {
        self.execute("system_powerdown", &[]).map(drop)
    }

    /// Presses the reset button.
    ///
    /// # Errors
    /// As [`execute`](Qmp::execute).
    pub fn system_reset(&mut self) -> Result<()> {
        self.execute("system_reset", &[]).map(drop)
    }

    /// Ends QEMU at once, as pulling the plug would.
    ///
    /// # Errors
    /// As [`execute`](Qmp::execute).
    pub fn quit(&mut self) -> Result<()> {
        self.execute("quit", &[]).map(drop)
    }

    /// A property of a device, named by its QOM path (`/machine/peripheral/<id>`), as QEMU prints it.
    ///
    /// # Errors
    /// As [`execute`](Qmp::execute).
    pub fn device_property(&mut self, path: &str, property: &str) -> Result<Value> {
        self.execute("qom-get", &[("path", path), ("property", property)])
    }
}

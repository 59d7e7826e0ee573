//! What the kernel says of a process: its core, its time, its memory, what it wrote.

use std::fs;
use std::str::FromStr;

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::Fault;

/// Keeps this process, and the threads that it starts from now on, on one core.
pub(crate) fn stay_on_core(core: usize) -> Result<(), Fault> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).map_err(|error| format!("core {core} is not to be had: {error}"))?;
    Ok(())
}

/// A process that is measured.
pub(crate) struct Process(pub(crate) u32);

/// What it had used at a moment.
#[derive(Clone, Copy)]
pub(crate) struct Used {
    pub(crate) cpu_us: f64,
    pub(crate) written: f64,
}

impl Process {
    pub(crate) fn used(&self) -> Result<Used, Fault> {
        Ok(Used { cpu_us: self.cpu_us()?, written: self.written()? })
    }

    /// The time of all its threads, the kernel's part included, to the nanosecond.
    fn cpu_us(&self) -> Result<f64, Fault> {
        let mut nanos = 0.0;
        for task in fs::read_dir(format!("/proc/{}/task", self.0))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            nanos += text.split(' ').next().unwrap_or("0").parse::<f64>()?;
        }
        Ok(nanos / 1000.0)
    }

    fn written(&self) -> Result<f64, Fault> {
        self.field("io", "write_bytes:")
    }

    /// Resident memory.
    pub(crate) fn memory_kib(&self) -> Result<u64, Fault> {
        self.field("status", "VmRSS:")
    }

    /// What of it no file backs.
    pub(crate) fn anonymous_kib(&self) -> Result<u64, Fault> {
        self.field("status", "RssAnon:")
    }

    fn field<T: FromStr<Err: Into<Fault>>>(&self, file: &str, name: &str) -> Result<T, Fault> {
        let text = fs::read_to_string(format!("/proc/{}/{file}", self.0))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or("the kernel does not say")?;
        line.trim().trim_end_matches(" kB").parse().map_err(Into::into)
    }
}

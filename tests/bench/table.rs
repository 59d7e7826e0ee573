//! A row of what was measured, as a table or as JSON.

use serde::Serialize;

/// One case with so many in flight.
#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) case: &'static str,
    pub(crate) in_flight: usize,
    pub(crate) per_s: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) cpu_us: f64,
    pub(crate) syncs: f64,
    pub(crate) bytes: f64,
    pub(crate) ceiling_per_s: f64,
    pub(crate) share: f64,
}

pub(crate) fn head() {
    println!(
        "case       in flight     per s    p50 ms    p99 ms    CPU us     syncs     bytes   ceiling    share"
    );
}

impl Row {
    pub(crate) fn print(&self) {
        println!(
            "{:<10} {:>9} {:>9.0} {:>9.2} {:>9.2} {:>9.1} {:>9.3} {:>9.0} {:>9.0} {:>7.0} %",
            self.case,
            self.in_flight,
            self.per_s,
            self.p50_ms,
            self.p99_ms,
            self.cpu_us,
            self.syncs,
            self.bytes,
            self.ceiling_per_s,
            self.share * 100.0,
        );
    }
}

//! What was measured of a log, as lines or as JSON.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Milliseconds.
#[derive(Serialize)]
pub(crate) struct Spread {
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

impl Spread {
    pub(super) fn of(micros: &Histogram<u64>) -> Self {
        let ms = |micros: u64| micros as f64 / 1000.0;
        Self {
            p50_ms: ms(micros.value_at_quantile(0.5)),
            p99_ms: ms(micros.value_at_quantile(0.99)),
            max_ms: ms(micros.max()),
        }
    }
}

#[derive(Serialize)]
pub(super) struct Figures {
    pub(super) entries: u64,
    pub(super) append_per_s: f64,
    pub(super) entry_bytes: f64,
    pub(super) disk_bytes: f64,
    pub(super) memory_mib: f64,
    pub(super) restart_s: f64,
    pub(super) restart_memory_mib: f64,
    pub(super) bytes_per_s_core: f64,
    pub(super) meaning_per_s: f64,
    pub(super) meaning_per_s_core: f64,
    pub(super) by_id: Spread,
    pub(super) by_index: Spread,
    pub(super) proof: Spread,
}

impl Figures {
    pub(super) fn print(&self) {
        println!("entries             {}", self.entries);
        println!("append              {:.0} a second", self.append_per_s);
        println!("bytes each          {:.0} of the entry, {:.0} on disk", self.entry_bytes, self.disk_bytes);
        println!("memory              {:.0} MiB after appending", self.memory_mib);
        println!("restart             {:.2} s, {:.0} MiB", self.restart_s, self.restart_memory_mib);
        println!("bytes and tree      {:.0} a second on one core", self.bytes_per_s_core);
        println!(
            "and their meaning   {:.0} a second on all cores, {:.0} for each core's second",
            self.meaning_per_s, self.meaning_per_s_core
        );
        for (what, spread) in [("by id", &self.by_id), ("by index", &self.by_index), ("proof", &self.proof)] {
            println!(
                "{what:<10}          p50 {:.2} ms, p99 {:.2} ms, at most {:.2} ms",
                spread.p50_ms, spread.p99_ms, spread.max_ms
            );
        }
    }
}

//! Every write and sync that a broker made to its files, as `strace` saw them, and the files as a loss of power would
//! have left them at any moment.

use std::collections::HashMap;
use std::path::PathBuf;

/// One call that changed a file, in seconds of the wall clock.
struct Call {
    began: f64,
    ended: f64,
    file: usize,
    what: What,
}

enum What {
    Write { at: usize, bytes: Vec<u8> },
    Cut(usize),
    Sync,
}

/// The calls of one run, and the files before it.
pub(super) struct Recording {
    before: Vec<Vec<u8>>,
    calls: Vec<Call>,
}

/// The command before the broker's own, which records it into `trace`.
pub(super) fn command(trace: &str) -> Vec<String> {
    let calls = "trace=pwrite64,write,pwritev,writev,fsync,fdatasync,ftruncate";
    ["strace", "-D", "-f", "-q", "-y", "-T", "-ttt", "-xx", "-s", "1000000", "-o", trace, "-e", calls]
        .map(String::from)
        .to_vec()
}

impl Recording {
    /// Reads what `strace` wrote about `files`, which held `before` when it began.
    pub(super) fn read(trace: &str, files: &[PathBuf], before: Vec<Vec<u8>>) -> Self {
        let names: Vec<String> = files.iter().map(|file| hex(file.to_str().unwrap())).collect();
        let mut unfinished: HashMap<&str, (f64, &str)> = HashMap::new();
        let mut calls = Vec::new();
        for line in trace.lines() {
            let (thread, rest) = line.split_once(' ').unwrap();
            let (time, call) = rest.trim_start().split_once(' ').unwrap();
            let time: f64 = time.parse().unwrap();
            if let Some(head) = call.strip_suffix(" <unfinished ...>") {
                unfinished.insert(thread, (time, head));
            } else if let Some((_, tail)) = call.split_once(" resumed>") {
                let Some((began, head)) = unfinished.remove(thread) else { continue };
                calls.extend(parse(&names, began, time, &format!("{head}{tail}")));
            } else {
                let took =
                    call.rsplit_once('<').and_then(|(_, took)| took.trim_end_matches('>').parse().ok());
                calls.extend(parse(&names, time, time + took.unwrap_or(0.0), call));
            }
        }
        Self { before, calls }
    }

    pub(super) fn syncs(&self) -> usize {
        self.calls.iter().filter(|call| matches!(call.what, What::Sync)).count()
    }

    /// The files at `moment`: all that was synced by then, and of what was not, what `survives` picks.
    pub(super) fn files(&self, moment: f64, mut survives: impl FnMut() -> bool) -> Vec<Vec<u8>> {
        let mut files = self.before.clone();
        for call in self.calls.iter().filter(|call| call.began <= moment) {
            let covers = |sync: &&Call| {
                matches!(sync.what, What::Sync)
                    && sync.file == call.file
                    && sync.began >= call.ended
                    && sync.ended <= moment
            };
            if self.calls.iter().any(|sync| covers(&sync)) || survives() {
                apply(&mut files[call.file], &call.what);
            }
        }
        files
    }
}

fn apply(file: &mut Vec<u8>, what: &What) {
    match what {
        What::Write { at, bytes } => {
            let end = at + bytes.len();
            if file.len() < end {
                file.resize(end, 0);
            }
            file[*at..end].copy_from_slice(bytes);
        }
        What::Cut(length) => file.resize(*length, 0),
        What::Sync => {}
    }
}

/// A call that did what it was to do to one of the files; others are nothing to us.
fn parse(names: &[String], began: f64, ended: f64, call: &str) -> Option<Call> {
    let (name, arguments) = call.split_once('(')?;
    let (descriptor, rest) = arguments.split_once('>')?;
    let (_, path) = descriptor.split_once('<')?;
    let file = names.iter().position(|name| name == path)?;
    let (arguments, result) = rest.rsplit_once(") = ")?;
    let result: i64 = result.split_whitespace().next()?.parse().ok()?;
    let what = match name {
        _ if result < 0 => return None,
        "pwrite64" => {
            let (bytes, numbers) = arguments.strip_prefix(", \"")?.split_once('"')?;
            let (_, at) = numbers.rsplit_once(", ")?;
            let mut bytes = unhex(bytes);
            bytes.truncate(usize::try_from(result).unwrap());
            What::Write { at: at.parse().unwrap(), bytes }
        }
        "ftruncate" => What::Cut(arguments.strip_prefix(", ")?.parse().unwrap()),
        "fsync" | "fdatasync" => What::Sync,
        other => panic!("`{other}` on a file of the store: this recording does not know where it wrote"),
    };
    Some(Call { began, ended, file, what })
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("\\x{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |pair: &str| u8::from_str_radix(pair, 16).unwrap();
    text.split("\\x").skip(1).map(byte).collect()
}

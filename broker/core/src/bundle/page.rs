//! A text whose offsets are told as lines.

/// A file's path, and where its lines begin: made once, for a large file is asked often.
pub(crate) struct Page<'a> {
    pub(crate) path: &'a str,
    breaks: Vec<usize>,
}

impl<'a> Page<'a> {
    pub(crate) fn new(path: &'a str, text: &str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect();
        Self { path, breaks }
    }

    /// The line, from 1, of the byte at `offset`.
    pub(crate) fn line(&self, offset: usize) -> u32 {
        let before = self.breaks.partition_point(|at| *at < offset);
        u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1)
    }
}

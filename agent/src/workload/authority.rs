//! Makes the `:authority` of calls over a Unix socket one that HTTP/2 servers take.
//!
//! Some clients name the path of the socket there, percent-encoded (gRPC's C core, and with it Python), which is no
//! authority by RFC 3986, section 3.2, and is answered with a reset of the stream. Nobody needs what it says. So in each
//! block of header fields (RFC 9113, section 6.2; RFC 7541, section 6) the octets that do not belong there are replaced,
//! one by one: nothing changes its length, and both sides keep the same table of fields.

use bytes::{Buf as _, BytesMut};

/// What a client sends first (RFC 9113, section 3.4), in octets.
const PREFACE_LEN: usize = 24;
const FRAME_HEADER_LEN: usize = 9;
/// The longest frame that a client may send where the server allows no more, in octets.
const FRAME_LEN_MAX: usize = 16_384;
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// The index of `:authority` in the static table (RFC 7541, appendix A).
const AUTHORITY: usize = 1;

/// What a client sends, on its way to the server.
#[derive(Debug)]
pub(super) struct Inbound {
    /// Arrived, and not understood yet.
    arrived: BytesMut,
    /// To be read by the server.
    ready: BytesMut,
    /// How much passes before the next frame begins.
    passing: usize,
}

impl Default for Inbound {
    fn default() -> Self {
        Self { arrived: BytesMut::new(), ready: BytesMut::new(), passing: PREFACE_LEN }
    }
}

impl Inbound {
    /// Takes what has arrived.
    pub(super) fn arrive(&mut self, octets: &[u8]) {
        self.arrived.extend_from_slice(octets);
        while self.pass_on() {}
    }

    /// Nothing more will arrive.
    pub(super) fn end(&mut self) {
        self.ready.unsplit(self.arrived.split());
    }

    /// What the server may read now.
    pub(super) fn ready(&self) -> &[u8] {
        &self.ready
    }

    /// The server has read this much.
    pub(super) fn read(&mut self, len: usize) {
        self.ready.advance(len.min(self.ready.len()));
    }

    /// Passes on as much as is understood; whether there may be more.
    fn pass_on(&mut self) -> bool {
        if self.passing > 0 {
            let len = self.passing.min(self.arrived.len());
            self.ready.extend_from_slice(&self.arrived.split_to(len));
            self.passing -= len;
            return len > 0;
        }
        let Some(([high, middle, low, kind, flags], _)) = self.arrived.split_first_chunk::<5>() else {
            return false;
        };
        let len = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
        // A block in several frames is longer than any that has an authority of this kind.
        if *kind != HEADERS || flags & END_HEADERS == 0 || len > FRAME_LEN_MAX {
            self.passing = FRAME_HEADER_LEN + len;
            return true;
        }
        let (flags, whole) = (*flags, FRAME_HEADER_LEN + len);
        if self.arrived.len() < whole {
            return false;
        }
        let mut frame = self.arrived.split_to(whole);
        if let Some(payload) = frame.get_mut(FRAME_HEADER_LEN..) {
            mend(payload, flags);
        }
        self.ready.extend_from_slice(&frame);
        true
    }
}

/// Mends the authority in the payload of a HEADERS frame; leaves alone what is malformed, for the server to refuse.
fn mend(payload: &mut [u8], flags: u8) -> Option<()> {
    let padding = if flags & PADDED == 0 { 0 } else { usize::from(*payload.first()?) };
    let begin = usize::from(flags & PADDED != 0) + if flags & PRIORITY == 0 { 0 } else { 5 };
    let end = payload.len().checked_sub(padding)?;
    let block = payload.get_mut(begin..end)?;
    let mut at = 0;
    while at < block.len() {
        let first = *block.get(at)?;
        let prefix_bits = match first {
            0x80.. => 7,
            0x40..0x80 => 6,
            0x20..0x40 => 5,
            _ => 4,
        };
        let (index, next) = integer(block, at, prefix_bits)?;
        at = next;
        // A field of the table, or a new size for it.
        if matches!(first, 0x80.. | 0x20..0x40) {
            continue;
        }
        let mut is_authority = index == AUTHORITY;
        if index == 0 {
            let (name, plain) = string(block, at)?;
            is_authority = plain && block.get(name.clone())? == b":authority";
            at = name.end;
        }
        let (value, plain) = string(block, at)?;
        at = value.end;
        if is_authority && plain {
            block.get_mut(value)?.iter_mut().for_each(mend_octet);
        }
    }
    Some(())
}

fn mend_octet(octet: &mut u8) {
    if !octet.is_ascii_alphanumeric() && !matches!(octet, b'.' | b':' | b'[' | b']') {
        *octet = b'-';
    }
}

/// An integer with a prefix of some bits at `at`, and where it ends (RFC 7541, section 5.1).
fn integer(block: &[u8], at: usize, prefix_bits: u32) -> Option<(usize, usize)> {
    let most = (1_usize << prefix_bits) - 1;
    let mut value = usize::from(*block.get(at)?) & most;
    if value < most {
        return Some((value, at + 1));
    }
    // No length or index in a frame needs more than three octets.
    for (shift, next) in [0, 7, 14].into_iter().zip(at + 1..) {
        let octet = *block.get(next)?;
        value += usize::from(octet & 0x7f) << shift;
        if octet & 0x80 == 0 {
            return Some((value, next + 1));
        }
    }
    None
}

/// Where the string at `at` lies, and whether it is written as it is (RFC 7541, section 5.2).
fn string(block: &[u8], at: usize) -> Option<(std::ops::Range<usize>, bool)> {
    let plain = block.get(at)? & 0x80 == 0;
    let (len, begin) = integer(block, at, 7)?;
    let end = begin.checked_add(len).filter(|end| *end <= block.len())?;
    Some((begin..end, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let len = u8::try_from(payload.len()).unwrap();
        let mut frame = vec![0, 0, len, kind, flags, 0, 0, 0, 1];
        frame.extend_from_slice(payload);
        frame
    }

    /// `:method: POST`, `:authority` as literal with indexing, another field as literal without.
    fn block(authority: &[u8]) -> Vec<u8> {
        let mut block = vec![0x83, 0x41, u8::try_from(authority.len()).unwrap()];
        block.extend_from_slice(authority);
        block.extend_from_slice(b"\x00\x03a%b\x03c%d");
        block
    }

    fn through(sent: &[u8], chunk: usize) -> Vec<u8> {
        let (mut inbound, mut read) = (Inbound::default(), Vec::new());
        for octets in sent.chunks(chunk) {
            inbound.arrive(octets);
            read.extend_from_slice(inbound.ready());
            inbound.read(usize::MAX);
        }
        inbound.end();
        read.extend_from_slice(inbound.ready());
        read
    }

    #[test]
    fn a_path_in_place_of_an_authority_is_mended_and_nothing_else_is_touched() {
        let padded = |authority: &[u8]| {
            let mut payload = vec![2, 0, 0, 0, 0, 7];
            payload.extend(block(authority));
            payload.extend([0, 0]);
            payload
        };
        let sent = |authority: &[u8]| {
            let frames = [
                PREFACE.to_vec(),
                frame(4, 0, b"%%%%%%"),
                frame(HEADERS, END_HEADERS, &block(authority)),
                frame(0, 1, b"\x41\x03%2F"),
                frame(HEADERS, END_HEADERS | PADDED | PRIORITY, &padded(authority)),
            ];
            frames.concat()
        };
        for chunk in [1, 2, 7, 1000] {
            assert_eq!(through(&sent(b"tmp%2Fa.sock"), chunk), sent(b"tmp-2Fa.sock"));
            assert_eq!(through(&sent(b"/run/a.sock"), chunk), sent(b"-run-a.sock"));
            assert_eq!(through(&sent(b"localhost:1"), chunk), sent(b"localhost:1"));
        }
    }

    #[test]
    fn an_authority_by_its_name_is_mended_and_a_compressed_one_is_left() {
        let named = |value: &[u8]| [b"\x10\x0a:authority\x03".as_slice(), value].concat();
        let sent = |block: &[u8]| [PREFACE, &frame(HEADERS, END_HEADERS, block)].concat();
        assert_eq!(through(&sent(&named(b"a%b")), 9), sent(&named(b"a-b")));
        let compressed = sent(b"\x41\x83%%%");
        assert_eq!(through(&compressed, 9), compressed);
    }

    #[test]
    fn whatever_is_sent_arrives_whole_and_ends_nothing() {
        let begin = [PREFACE, &frame(HEADERS, END_HEADERS | PADDED, b"\xff\x41\x7f%")].concat();
        for spoiled in [&begin[..], &begin[..30], &begin[..5], &[0xff; 70]] {
            assert_eq!(through(spoiled, 3).len(), spoiled.len());
        }
        for first in 0..=255 {
            let sent = [PREFACE, &frame(HEADERS, END_HEADERS, &[first, 0xff, 0xff, 0xff, 0xff])].concat();
            assert_eq!(through(&sent, 11), sent);
        }
    }
}

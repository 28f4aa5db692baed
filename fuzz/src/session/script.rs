//! The steps of a session as bytes: any bytes are steps, so that a
//! coverage-guided fuzzer may change them as it likes.

/// Lines that a script has.
pub(super) const LINES: usize = 4;

/// What happens next, on one of [`LINES`] lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// A head is put on the wire, its checksum made right, numbers of handles
    /// replaced by the server's.
    Head(usize, &'a [u8]),
    /// Bytes are put on the wire as they are.
    Raw(usize, &'a [u8]),
    /// So many bytes of a pattern are.
    Fill(usize, u32),
    /// A sound hello of this session is.
    Hello(usize, u8),
    /// The proof that the server waits for is; wrong when the number is 0.
    Prove(usize, u8),
    /// So many bytes arrive, in one piece; 0 = all.
    Arrive(usize, u16),
    /// So many bytes of answers leave; 0 = all.
    Leave(usize, u16),
    /// Bytes move on all lines until none can.
    Run,
    /// So many milliseconds pass.
    Wait(u64),
    /// The wall clock is set so many seconds on or back.
    SetClock(i8),
    /// The line is cut, and another connection made.
    Cut(usize),
    /// The client sends no more on the line.
    End(usize),
    /// The honest client beside all this does something.
    Honest(u8),
}

const WAITS_MS: [u64; 8] = [1, 250, 2_000, 5_000, 10_000, 30_000, 600_000, 86_400_000];

/// Reads the next step.
pub(super) fn next<'a>(rest: &mut &'a [u8]) -> Option<Step<'a>> {
    let (first, tail) = rest.split_first()?;
    *rest = tail;
    let (line, kind) = (usize::from(first & 3), first >> 2);
    Some(match kind % 16 {
        0..3 => Step::Head(line, bytes(rest)),
        3 => Step::Raw(line, bytes(rest)),
        4 => Step::Fill(line, u32::from_le_bytes([byte(rest), byte(rest), byte(rest), 0])),
        5 => Step::Hello(line, byte(rest)),
        6 => Step::Prove(line, byte(rest)),
        7 | 8 => Step::Arrive(line, u16::from_le_bytes([byte(rest), byte(rest)])),
        9 => Step::Leave(line, u16::from_le_bytes([byte(rest), byte(rest)])),
        10 => Step::Run,
        11 => Step::Wait(WAITS_MS[usize::from(byte(rest)) % WAITS_MS.len()]),
        12 => Step::SetClock(byte(rest) as i8),
        13 => Step::Cut(line),
        14 => Step::End(line),
        _ => Step::Honest(byte(rest)),
    })
}

/// Writes a step.
pub(super) fn write(step: Step<'_>, out: &mut Vec<u8>) {
    let mut begin = |kind: u8, line: usize| out.push(kind << 2 | line as u8);
    match step {
        Step::Head(line, bytes) => {
            begin(0, line);
            write_bytes(bytes, out);
        }
        Step::Raw(line, bytes) => {
            begin(3, line);
            write_bytes(bytes, out);
        }
        Step::Fill(line, count) => {
            begin(4, line);
            out.extend(&count.min((1 << 24) - 1).to_le_bytes()[..3]);
        }
        Step::Hello(line, session) => {
            begin(5, line);
            out.push(session);
        }
        Step::Prove(line, right) => {
            begin(6, line);
            out.push(right);
        }
        Step::Arrive(line, count) => {
            begin(7, line);
            out.extend(count.to_le_bytes());
        }
        Step::Leave(line, count) => {
            begin(9, line);
            out.extend(count.to_le_bytes());
        }
        Step::Run => begin(10, 0),
        Step::Wait(ms) => {
            begin(11, 0);
            out.push(WAITS_MS.iter().position(|wait| *wait >= ms).unwrap_or(7) as u8);
        }
        Step::SetClock(seconds) => {
            begin(12, 0);
            out.push(seconds as u8);
        }
        Step::Cut(line) => begin(13, line),
        Step::End(line) => begin(14, line),
        Step::Honest(what) => {
            begin(15, 0);
            out.push(what);
        }
    }
}

fn byte(rest: &mut &[u8]) -> u8 {
    let Some((first, tail)) = rest.split_first() else { return 0 };
    *rest = tail;
    *first
}

fn bytes<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let length = usize::from(u16::from_le_bytes([byte(rest), byte(rest)]));
    let (bytes, tail) = rest.split_at(length.min(rest.len()));
    *rest = tail;
    bytes
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    let bytes = &bytes[..bytes.len().min(usize::from(u16::MAX))];
    out.extend((bytes.len() as u16).to_le_bytes());
    out.extend_from_slice(bytes);
}

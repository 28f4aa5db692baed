//! Scripts that are likely to get far: connections that shake hands and ask for
//! what there is, cut where it may hurt, with some of it wrong.

use rampuddle_protocol::Opcode;
use rampuddle_protocol::limits::HELLO_FRAME_BYTES;

use super::script::{LINES, Step, write};
use crate::corpus::recorded;
use crate::mutate::{damage, distort, repair};
use crate::random::Random;
use crate::requests::{OPCODES, Request, mappable, request};

/// The request that asks for the pool, before one for values; the others count from 1.
const SHARE_ID: u64 = 1 << 32;

/// A script for several connections under a clock that jumps.
pub(super) fn script(random: &mut Random, has_token: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut id = 1;
    for line in 0..LINES {
        if random.percent(85) {
            greet(random, line, has_token, &mut out);
        }
    }
    for _ in 0..5 + random.below(30) {
        let line = random.below(LINES);
        match random.below(100) {
            0..45 => {
                let opcode = random.pick(&OPCODES);
                put_request(random, line, opcode, id, &mut out);
                id += 1;
            }
            45..48 => put_recorded(random, line, &mut out),
            48..50 => {
                let mut bytes = random.bytes(20);
                damage(random, &mut bytes);
                write(Step::Raw(line, &bytes), &mut out);
            }
            50..65 => write(Step::Arrive(line, piece(random)), &mut out),
            65..72 => write(Step::Leave(line, piece(random)), &mut out),
            72..82 => write(Step::Run, &mut out),
            82..87 => {
                let wait =
                    random.pick(&[1, 250, 250, 2_000, 2_000, 5_000, 10_000, 30_000, 600_000]);
                write(Step::Wait(wait), &mut out);
            }
            87 => write(Step::SetClock(random.draw() as i8), &mut out),
            88 | 89 => {
                write(Step::Cut(line), &mut out);
                greet(random, line, has_token, &mut out);
            }
            90 => write(Step::End(line), &mut out),
            _ => write(Step::Honest(random.draw() as u8), &mut out),
        }
    }
    out
}

/// A script for one connection, cut at places that may hurt.
pub(super) fn split_script(random: &mut Random) -> Vec<u8> {
    let (mut out, mut borders, mut at) = (Vec::new(), Vec::new(), HELLO_FRAME_BYTES);
    for id in 1..3 + random.below(8) as u64 {
        let opcode = random.pick(&OPCODES);
        let request = put_request(random, 0, opcode, id, &mut out);
        at += request.head.len();
        borders.push(at);
        for share in request.shares {
            at += share as usize;
            borders.push(at);
        }
    }
    let mut last = 0;
    for border in borders {
        let cut = match random.below(10) {
            0..4 => border,
            4 => border + 1,
            5 => border - 1,
            6 => last + random.below(border.saturating_sub(last)),
            _ => continue,
        };
        let count = cut.saturating_sub(last);
        if (1..=usize::from(u16::MAX)).contains(&count) {
            write(Step::Arrive(0, count as u16), &mut out);
            last = cut;
            if random.percent(30) {
                write(Step::Leave(0, piece(random)), &mut out);
            }
        }
    }
    out
}

fn greet(random: &mut Random, line: usize, has_token: bool, out: &mut Vec<u8>) {
    write(Step::Hello(line, random.below(3) as u8), out);
    if has_token {
        write(Step::Run, out);
        let right = if random.percent(95) { 1 + random.below(3) as u8 } else { 0 };
        write(Step::Prove(line, right), out);
    }
    if random.percent(70) {
        // Without the pool, and values in it, nothing can be mapped.
        write(Step::Head(line, &request(random, Opcode::Share, SHARE_ID).head), out);
        let values = mappable(random, SHARE_ID + 1);
        write(Step::Head(line, &values.head), out);
        write(Step::Fill(line, values.payload_bytes() as u32), out);
        write(Step::Run, out);
    }
}

/// Puts a request on a line, changed at times, and its payload.
fn put_request(
    random: &mut Random,
    line: usize,
    opcode: Opcode,
    id: u64,
    out: &mut Vec<u8>,
) -> Request {
    let mut made = request(random, opcode, id);
    let payload = made.payload_bytes();
    match random.below(100) {
        0..12 => {
            distort(random, &mut made.head);
            repair(&mut made.head);
        }
        12..14 => damage(random, &mut made.head),
        _ => {}
    }
    write(Step::Head(line, &made.head), out);
    if payload > 0 {
        let payload = if random.percent(2) { payload / 2 } else { payload };
        write(Step::Fill(line, payload as u32), out);
    }
    made
}

fn put_recorded(random: &mut Random, line: usize, out: &mut Vec<u8>) {
    let frames = recorded();
    let frame = &frames[random.below(frames.len())];
    write(Step::Head(line, frame), out);
}

/// How many bytes move at once.
fn piece(random: &mut Random) -> u16 {
    match random.below(8) {
        0 => 0,
        1 => 1,
        2 => random.pick(&[63, 64, 65, 128, 256]),
        3 => random.draw() as u16,
        _ => 1 + random.below(500) as u16,
    }
}

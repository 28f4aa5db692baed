//! Results of many ranges, put together from blocks in any order.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::super::format::BLOCK_BYTES;
use super::super::head::Head;
use super::super::report::{GetOptions, GetReport, Value, cut};
use super::super::sections::Metadata;
use super::RangeOf;
use super::blocks::Wanted;
use crate::buffers::{Buffer, Buffers};
use crate::error::Error;

/// A longer range gains nothing from others, and is read by itself.
const LONG_BYTES: u64 = 64 << 20;

/// All ranges of a call.
#[derive(Debug)]
pub(super) struct Assembly<'a> {
    asked: &'a [RangeOf],
    options: &'a GetOptions,
    buffers: Arc<Buffers>,
    /// By the order in which they were asked for.
    states: Vec<State>,
    /// Blocks that are not in yet.
    pub(super) wanted: Vec<Wanted>,
}

/// How far a range is.
#[derive(Debug)]
enum State {
    /// Nothing of it is in, or something went wrong with it.
    Left,
    /// Some of its blocks are not in yet.
    Begun(Box<Building>),
    Done(Result<Option<Value>, Error>),
}

/// A range of which blocks are in.
#[derive(Debug)]
struct Building {
    /// Cut at the object's end.
    range: Range<u64>,
    bytes: Buffer,
    blocks_left: u64,
    report: GetReport,
    served: BTreeMap<Arc<str>, u64>,
}

impl<'a> Assembly<'a> {
    pub(super) fn new(
        asked: &'a [RangeOf],
        options: &'a GetOptions,
        buffers: &Arc<Buffers>,
    ) -> Self {
        let states = asked.iter().map(|_| State::Left).collect();
        Self { asked, options, buffers: Arc::clone(buffers), states, wanted: Vec::new() }
    }

    pub(super) fn options(&self) -> &'a GetOptions {
        self.options
    }

    /// Those of the ranges that are not done.
    pub(super) fn left_of<'s>(
        &'s self,
        ranges: &'s [usize],
    ) -> impl Iterator<Item = (usize, Range<u64>)> + use<'s, 'a> {
        let is_left = |index: &&usize| !matches!(self.states[**index], State::Done(_));
        ranges.iter().filter(is_left).map(|index| (*index, self.asked[*index].range.clone()))
    }

    /// Notes how a range ended.
    pub(super) fn end(&mut self, index: usize, result: Result<Option<Value>, Error>) {
        if let (Some(progress), Ok(Some(value))) = (&self.options.progress, &result) {
            progress.add(value.len() as u64);
        }
        self.states[index] = State::Done(result);
    }

    /// The results, when every range was ended.
    pub(super) fn finish(self) -> Vec<Result<Option<Value>, Error>> {
        if let Some(progress) = &self.options.progress {
            progress.set_total(progress.done_bytes());
        }
        let ended = |state| match state {
            State::Done(result) => result,
            _ => unreachable!("what was left of an object was read by itself"),
        };
        self.states.into_iter().map(ended).collect()
    }

    /// Begins the ranges of an object whose head is whole, but for long ones; returns
    /// the blocks that they need. Those of an inline object are done then.
    pub(super) fn begin(&mut self, ranges: &[usize], head: &Head) -> Vec<Wanted> {
        let mut wanted: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        let metadata = Arc::new(head.sections.metadata.clone());
        for index in ranges {
            let range = cut(Some(self.asked[*index].range.clone()), head.tag.object_bytes);
            if range.end - range.start > LONG_BYTES {
                continue;
            }
            match Building::new(&self.buffers, head, range, &metadata) {
                Err(error) => self.end(*index, Err(error)),
                Ok(building) if building.blocks_left == 0 => {
                    self.end(*index, Ok(Some(building.value())));
                }
                Ok(building) => {
                    for block in blocks_of(&building.range) {
                        wanted.entry(block).or_default().push(*index);
                    }
                    self.states[*index] = State::Begun(building.into());
                }
            }
        }
        let of_block = |(block, ranges)| Wanted::new(head, block, ranges);
        wanted.into_iter().map(of_block).collect()
    }

    /// Copies a block, which begins so far from the object's begin, to the ranges
    /// that want it.
    pub(super) fn put(&mut self, ranges: &[usize], server: &Arc<str>, begin: u64, block: &[u8]) {
        for index in ranges {
            let State::Begun(building) = &mut self.states[*index] else { continue };
            building.put(server, begin, block);
            if building.blocks_left == 0 {
                let State::Begun(building) =
                    std::mem::replace(&mut self.states[*index], State::Left)
                else {
                    continue;
                };
                self.end(*index, Ok(Some(building.value())));
            }
        }
    }

    /// Gives up the ranges that a block has not come for: what of them is in is
    /// forgotten.
    pub(super) fn give_up(&mut self, ranges: &[usize]) {
        for index in ranges {
            if matches!(self.states[*index], State::Begun(_)) {
                self.states[*index] = State::Left;
            }
        }
    }
}

/// The blocks that cover a range which is not empty.
fn blocks_of(range: &Range<u64>) -> Range<u64> {
    range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES)
}

impl Building {
    fn new(
        buffers: &Arc<Buffers>,
        head: &Head,
        range: Range<u64>,
        metadata: &Arc<Metadata>,
    ) -> Result<Self, Error> {
        let length = range.end - range.start;
        let name = || head.key[1..].escape_ascii();
        let failed = |source| {
            Error::local(format!("no memory for {length} bytes of \"{}\"", name()), source)
        };
        let report = GetReport {
            bytes: length,
            object_bytes: head.tag.object_bytes,
            version: head.tag.version,
            served: Vec::new(),
            mapped: 0,
            metadata: Arc::clone(metadata),
        };
        let mut building = Self {
            bytes: buffers.take(length).map_err(failed)?,
            blocks_left: 0,
            report,
            served: BTreeMap::new(),
            range,
        };
        if length > 0 {
            let blocks = blocks_of(&building.range);
            building.blocks_left = blocks.end - blocks.start;
        }
        if head.tag.is_inline() && length > 0 {
            building.put(&head.server, 0, &head.inline);
        }
        Ok(building)
    }

    fn put(&mut self, server: &Arc<str>, begin: u64, block: &[u8]) {
        let end = begin + block.len() as u64;
        let (from, to) = (self.range.start.max(begin), self.range.end.min(end));
        let place = (from - self.range.start) as usize..(to - self.range.start) as usize;
        let taken = (from - begin) as usize..(to - begin) as usize;
        self.bytes[place].copy_from_slice(&block[taken]);
        *self.served.entry(Arc::clone(server)).or_default() += to - from;
        self.blocks_left -= 1;
    }

    fn value(self) -> Value {
        let Self { bytes, mut report, served, .. } = self;
        report.served = served.iter().map(|(name, bytes)| (name.to_string(), *bytes)).collect();
        Value::new(bytes.into_bytes(), report)
    }
}

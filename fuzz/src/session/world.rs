//! A server and the lines of a script.

use rampuddle_protocol::Role;
use rampuddle_server::Token;
use rampuddle_server::simulation::{Settings, SimulatedServer};

use super::honest::Honest;
use super::line::{Line, TOKEN};
use super::script::{LINES, Step};
use crate::counts::Counts;
use crate::requests::UNIX_MS;

/// Rounds of a run in which bytes still move; more than any script can need.
const ROUNDS_MAX: usize = 20_000;

/// A server of so many pages, with a token or without, which lends its values to the
/// system or copies them, and shares its pool with its peers or does not.
pub(super) fn server(pages: u64, has_token: bool, lends: bool, shares: bool) -> SimulatedServer {
    let token = Token { key_id: TOKEN.0, secret: TOKEN.1.to_vec(), role: Role::Admin };
    let settings = Settings {
        pages,
        tokens: if has_token { vec![token] } else { Vec::new() },
        unix_ms: UNIX_MS,
        zero_copy_from: lends.then_some(1),
        shares_pool: shares,
        ..Settings::default()
    };
    SimulatedServer::new(settings).expect("memory for a small pool")
}

/// All that a script acts on.
#[derive(Debug)]
pub(super) struct World {
    server: SimulatedServer,
    lines: [Line; LINES],
    honest: Honest,
    pub(super) answers: u64,
    pub(super) framing_errors: u64,
    mapped: u64,
}

impl World {
    /// Connects all lines.
    pub(super) fn new(mut server: SimulatedServer) -> Self {
        let mut lines = <[Line; LINES]>::default();
        lines.iter_mut().for_each(|line| line.connect(&mut server));
        Self { server, lines, honest: Honest::default(), answers: 0, framing_errors: 0, mapped: 0 }
    }

    /// Does a step.
    pub(super) fn step(&mut self, step: Step<'_>, counts: &mut Counts) {
        let Self { server, lines, .. } = self;
        match step {
            Step::Head(line, bytes) => lines[line].put_head(bytes),
            Step::Raw(line, bytes) => lines[line].put(bytes),
            Step::Fill(line, count) => lines[line].fill(count as usize),
            Step::Hello(line, session) => lines[line].put_hello(session),
            Step::Prove(line, right) => lines[line].put_proof(right),
            Step::Arrive(line, count) => {
                lines[line].arrive(server, many(count));
            }
            Step::Leave(line, count) => {
                lines[line].leave(server, many(count));
            }
            Step::Run => self.run(),
            Step::Wait(ms) => server.advance(ms),
            Step::SetClock(minutes) => {
                server.set_clock(UNIX_MS.saturating_add_signed(i64::from(minutes) * 60_000));
            }
            Step::Cut(line) => {
                self.note(line);
                self.lines[line].connect(&mut self.server);
            }
            Step::End(line) => lines[line].end(server),
            Step::Honest(what) => self.honest.act(server, what, counts),
        }
        self.server.turn();
    }

    /// Moves bytes on all lines until none can be moved.
    fn run(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let mut moved = usize::from(self.server.wants_turn());
            self.server.turn();
            for line in &mut self.lines {
                moved += line.leave(&mut self.server, usize::MAX);
                moved += line.arrive(&mut self.server, usize::MAX);
            }
            if moved == 0 {
                return;
            }
        }
        panic!("bytes still move after {ROUNDS_MAX} rounds");
    }

    /// Everything that is still to move does; then all go, and nothing is left
    /// that anybody kept. Returns the server.
    pub(super) fn finish(mut self, counts: &mut Counts) -> SimulatedServer {
        self.run();
        self.server.check_invariants();
        self.honest.act(&mut self.server, 4, counts);
        self.honest.read_all(&mut self.server);
        (0..LINES).for_each(|line| self.note(line));
        let info = self.server.info();
        counts.add("answers", self.answers);
        counts.add("framing errors", info.framing_errors);
        counts.add("connections stalled", info.stalled_connections);
        counts.add("holds broken", info.holds_broken);
        counts.add("leases ended", info.leases_ended);
        counts.add("rows without room", info.no_space_rows);
        counts.add("sends lent", self.server.lent_sends().0);
        counts.add("runs mapped", self.mapped);
        self.server.assert_nothing_leaks();
        self.server
    }

    /// Counts what came on a line.
    fn note(&mut self, line: usize) {
        let answers = &self.lines[line].reader.answers;
        let is_error = |header: &rampuddle_protocol::Header| {
            header.flags.has(rampuddle_protocol::FrameFlags::FRAMING_ERROR)
        };
        let errors = answers.iter().filter(|answer| is_error(&answer.header)).count() as u64;
        self.framing_errors += errors;
        self.mapped += self.lines[line].reader.mapped;
        self.answers += answers.len() as u64 - errors;
    }
}

/// 0 stands for all.
pub(super) fn many(count: u16) -> usize {
    if count == 0 { usize::MAX } else { count.into() }
}

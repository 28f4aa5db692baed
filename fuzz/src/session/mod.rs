//! Connections of a server driven with arbitrary bytes, cut anywhere, under a
//! clock that jumps: several on one store, with an honest client beside them.
//!
//! An input is a byte of modes ([`SPLIT`], [`TOKEN`]) and a script (`script.rs`).
//! After each run the books balance, the honest client finds its bytes, and
//! nothing is kept for connections that are gone.

mod generate;
mod honest;
mod line;
mod reader;
mod script;
mod split;
mod world;

use rampuddle_server::simulation::SimulatedServer;

use self::script::Step;
use self::world::World;
use crate::corpus::recorded;
use crate::counts::Counts;
use crate::random::Random;
use crate::target::Target;

/// The script's stream is sent in one piece and in its pieces, and the answers
/// are compared.
pub const SPLIT: u8 = 1;
/// The server wants a token.
pub const TOKEN: u8 = 2;

/// Pages of a pool that scripts can fill, and of one that they seldom do.
const PAGES: [u64; 2] = [48, 1_024];
/// Steps of a script; more are left out.
const STEPS_MAX: usize = 400;

/// The target. Its servers are started again for every input, so that what lies
/// in their memory is that of others.
#[derive(Debug, Default)]
pub struct Session {
    plain: Option<SimulatedServer>,
    with_token: Option<SimulatedServer>,
    split: [Option<SimulatedServer>; 2],
}

impl Target for Session {
    fn run(&mut self, input: &[u8], counts: &mut Counts) -> bool {
        let Some((mode, script)) = input.split_first() else { return false };
        if mode & SPLIT != 0 {
            return self.compare(script, counts);
        }
        let has_token = mode & TOKEN != 0;
        let kept = if has_token { &mut self.with_token } else { &mut self.plain };
        let server = fresh(kept, || world::server(PAGES[0], has_token, !has_token, true));
        let mut world = World::new(server);
        let mut rest = script;
        for _ in 0..STEPS_MAX {
            let Some(step) = script::next(&mut rest) else { break };
            counts.one(name(&step));
            world.step(step, counts);
        }
        let before = counts.of("answers");
        *kept = Some(world.finish(counts));
        counts.of("answers") > before
    }

    fn generate(&self, random: &mut Random) -> Vec<u8> {
        let mode = random.pick(&[0, 0, 0, TOKEN, SPLIT, SPLIT]);
        let script = match mode {
            SPLIT => generate::split_script(random),
            _ => generate::script(random, mode == TOKEN),
        };
        [&[mode], &script[..]].concat()
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let mut all: Vec<_> =
            (0..24).map(|seed| self.generate(&mut Random::of_execution(1, seed))).collect();
        all.extend(recorded().iter().map(|frame| {
            let mut input = vec![0];
            script::write(Step::Hello(0, 1), &mut input);
            script::write(Step::Head(0, frame), &mut input);
            script::write(Step::Run, &mut input);
            input
        }));
        all
    }
}

impl Session {
    fn compare(&mut self, script: &[u8], counts: &mut Counts) -> bool {
        let [first, second] = &mut self.split;
        // One descriptor at a time is on its way: whether another may be asked for yet
        // depends on how bytes are cut.
        let server = |lends| move || world::server(PAGES[1], false, lends, false);
        let mut servers = [fresh(first, server(false)), fresh(second, server(true))];
        let [whole, split] = &mut servers;
        let answered = split::compare([whole, split], script, counts);
        self.split = servers.map(Some);
        answered
    }
}

/// The server of the input before, started again; or the first.
fn fresh(
    kept: &mut Option<SimulatedServer>,
    first: impl FnOnce() -> SimulatedServer,
) -> SimulatedServer {
    kept.take().map_or_else(first, SimulatedServer::restart)
}

fn name(step: &Step<'_>) -> &'static str {
    match step {
        Step::Head(..) => "heads",
        Step::Raw(..) | Step::Fill(..) => "other bytes",
        Step::Hello(..) | Step::Prove(..) => "hellos and proofs",
        Step::Arrive(..) | Step::Leave(..) | Step::Run => "cuts and runs",
        Step::Wait(_) | Step::SetClock(_) => "jumps of the clock",
        Step::Cut(_) | Step::End(_) => "connections cut or ended",
        Step::Honest(_) => "honest steps",
    }
}

//! `puddle ping`: whether one server answers. It needs no discovery, and so it tells
//! whoever watches over the server's process or container what only that one can mend.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use rampuddle_discovery::validate;
use serde::Serialize;

use crate::arguments::PingArguments;
use crate::exit::{BeforeAnythingExt as _, Exit, refusal};
use crate::output::{complain, escape_text};
use crate::probe::asking;
use crate::runtime::block_on;
use crate::serve_settings::LISTEN;
use crate::settings::Settings;

/// Shakes hands with a server, as its clients do.
pub(crate) fn run(settings: &Settings, given: &PingArguments) -> anyhow::Result<Exit> {
    let listen = given.address.as_deref().or(settings.serve.listen.as_deref()).unwrap_or(LISTEN);
    let address = reachable(listen)?;
    let began = Instant::now();
    let asked = asking(&settings.cluster)(address.clone());
    let incarnation = block_on(async { Ok(asked.await) })?.map(|id| id.to_string());
    let pong = Pong {
        address: &address,
        answers: incarnation.is_some(),
        incarnation: incarnation.as_deref(),
        seconds: began.elapsed().as_secs_f64(),
    };
    pong.print(settings)?;
    Ok(if pong.answers { Exit::Done } else { Exit::Failed })
}

/// What was asked, and what came back.
#[derive(Debug, Serialize)]
struct Pong<'a> {
    address: &'a str,
    answers: bool,
    incarnation: Option<&'a str>,
    seconds: f64,
}

impl Pong<'_> {
    fn print(&self, settings: &Settings) -> anyhow::Result<()> {
        let output = settings.output;
        let address = escape_text(self.address);
        if self.incarnation.is_none() {
            complain(&format!("no server of RamPuddle answers at {address}"));
        }
        match self.incarnation {
            _ if output.json => output.json_line(self),
            None => Ok(()),
            Some(incarnation) => output.text(&format!(
                "{address} answers after {:.1} ms, incarnation {incarnation}",
                self.seconds * 1e3
            )),
        }
    }
}

/// Where a server that listens at `text` can be asked from its own machine.
fn reachable(text: &str) -> anyhow::Result<String> {
    if text.starts_with("unix:/") {
        return Ok(text.to_owned());
    }
    if text.ends_with(":0") {
        return Err(refusal(format!(
            "a server that listens at {text} chose its port itself: give its ADDRESS"
        )));
    }
    match text.parse::<SocketAddr>() {
        Ok(listened) if listened.ip().is_unspecified() => {
            let own: IpAddr = match listened {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            };
            Ok(SocketAddr::new(own, listened.port()).to_string())
        }
        _ => validate::address(text).before_anything().map(|()| text.to_owned()),
    }
}

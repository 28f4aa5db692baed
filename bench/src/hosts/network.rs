//! Hosts on one machine: network namespaces on a bridge, the link of each shaped to
//! one rate both ways. Needs root, `ip` and `tc`.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

const BRIDGE: &str = "rpbench";
/// Of the links' addresses, but for the last number.
const SUBNET: &str = "10.77.0";
/// How TCP finds its rate on most machines: between the hosts too, where the system lets
/// a namespace choose.
const USUAL_CONGESTION_CONTROL: &str = "cubic";
/// What a link sends in one burst, and how long it makes bytes wait.
const BURST: &str = "128kb";
const LATENCY: &str = "20ms";

/// Hosts, by number from 1 on. Dropped, they are gone.
pub(crate) struct Network {
    hosts: usize,
}

impl Network {
    /// Makes hosts with links that nothing slows down yet.
    pub(crate) fn up(hosts: usize) -> Result<Self> {
        let network = Self { hosts };
        network.down();
        ip(&["link", "add", BRIDGE, "type", "bridge"])?;
        ip(&["link", "set", BRIDGE, "up"])?;
        // A container engine drops what is bridged, where one runs.
        let rule = ["-I", "FORWARD", "-i", BRIDGE, "-o", BRIDGE, "-j", "ACCEPT"];
        let _ = Command::new("iptables").args(rule).output();
        for host in 1..=hosts {
            let (space, near, far) = (space(host), near(host), "veth0");
            ip(&["netns", "add", &space])?;
            ip(&["link", "add", &near, "type", "veth", "peer", "name", far, "netns", &space])?;
            ip(&["link", "set", &near, "master", BRIDGE, "up"])?;
            let address = format!("{}/24", address(host));
            ip(&["-n", &space, "address", "add", &address, "dev", far])?;
            ip(&["-n", &space, "link", "set", "dev", far, "up"])?;
            ip(&["-n", &space, "link", "set", "dev", "lo", "up"])?;
            let control = format!("net.ipv4.tcp_congestion_control={USUAL_CONGESTION_CONTROL}");
            let _ = Command::new("ip")
                .args(["netns", "exec", &space, "sysctl", "-qw", &control])
                .output();
        }
        Ok(network)
    }

    /// Shapes all links to so many Mbit/s.
    pub(crate) fn shape_all(&self, mbit: u64) -> Result<()> {
        (1..=self.hosts).try_for_each(|host| shape(host, mbit))
    }

    /// What goes before a command that is to run on a host.
    pub(crate) fn on(&self, host: usize) -> Vec<String> {
        ["ip", "netns", "exec", &space(host)].map(str::to_owned).to_vec()
    }

    /// The numbers of all hosts.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = usize> + use<> {
        1..=self.hosts
    }

    fn down(&self) {
        for host in 1..=64 {
            // The pair of links goes with the namespace, but not at once.
            let _ = Command::new("ip").args(["netns", "delete", &space(host)]).output();
            let _ = Command::new("ip").args(["link", "delete", &near(host)]).output();
        }
        let _ = Command::new("ip").args(["link", "delete", BRIDGE]).output();
        let rule = ["-D", "FORWARD", "-i", BRIDGE, "-o", BRIDGE, "-j", "ACCEPT"];
        let _ = Command::new("iptables").args(rule).output();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.down();
    }
}

/// A host's address.
pub(crate) fn address(host: usize) -> String {
    format!("{SUBNET}.{host}")
}

/// Shapes a host's link to so many Mbit/s, both ways.
pub(crate) fn shape(host: usize, mbit: u64) -> Result<()> {
    let (space, near, rate) = (space(host), near(host), format!("{mbit}mbit"));
    let shaped = ["root", "tbf", "rate", &rate, "burst", BURST, "latency", LATENCY];
    run("tc", &[&["qdisc", "replace", "dev", &near][..], &shaped].concat())?;
    run("tc", &[&["-n", &space, "qdisc", "replace", "dev", "veth0"][..], &shaped].concat())
}

/// Shapes what a host sends to so many Mbit/s, and lets those it sends to share that
/// fairly: each has its part, and what another leaves.
pub(crate) fn share(host: usize, mbit: u64, to: &[usize]) -> Result<()> {
    let space = space(host);
    let tc = |what: &str, words: &str| {
        let words = format!("-n {space} {what} dev veth0 {words}");
        run("tc", &words.split_whitespace().collect::<Vec<_>>())
    };
    let part = mbit / to.len().max(1) as u64;
    tc("qdisc replace", "root handle 1: htb default 1")?;
    tc("class add", &format!("parent 1: classid 1:1 htb rate {mbit}mbit burst {BURST}"))?;
    for &other in to {
        let class = 10 + other;
        let rate = format!("htb rate {part}mbit ceil {mbit}mbit burst {BURST} quantum 60000");
        tc("class add", &format!("parent 1:1 classid 1:{class} {rate}"))?;
        let goes = format!("u32 match ip dst {}/32 flowid 1:{class}", address(other));
        tc("filter add", &format!("parent 1: protocol ip prio 1 {goes}"))?;
    }
    Ok(())
}

/// Pulls a host's plug.
pub(crate) fn cut(host: usize) -> Result<()> {
    ip(&["link", "set", &near(host), "down"])
}

/// How TCP between hosts finds its rate here.
pub(crate) fn congestion_control() -> String {
    let asked = || {
        let network = Network::up(1).ok()?;
        let mut words = network.on(1);
        words.extend(["sysctl", "-n", "net.ipv4.tcp_congestion_control"].map(str::to_owned));
        let Output { status, stdout, .. } =
            Command::new(&words[0]).args(&words[1..]).output().ok()?;
        status.success().then(|| String::from_utf8_lossy(&stdout).trim().to_owned())
    };
    asked().unwrap_or_else(|| "unknown".to_owned())
}

/// Why no hosts can be made here, if so.
pub(crate) fn missing() -> Option<String> {
    let is_root = rustix::process::geteuid().is_root();
    let lacks = |program: &str| crate::child::installed(program).is_none();
    let tools = ["ip", "tc"].into_iter().find(|program| lacks(program));
    if let Some(tool) = tools {
        return Some(format!("{tool} is not installed (package iproute2)"));
    }
    if !is_root {
        return Some("only root can make network namespaces".to_owned());
    }
    // Root in a container is not always allowed to.
    let probe = Network::up(1).and_then(|network| network.shape_all(1));
    probe.err().map(|error| format!("network namespaces cannot be made here: {error:#}"))
}

fn space(host: usize) -> String {
    format!("rpbench-{host}")
}

fn near(host: usize) -> String {
    format!("rpb{host}")
}

fn ip(arguments: &[&str]) -> Result<()> {
    run("ip", arguments)
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let Output { status, stderr, .. } =
        Command::new(program).args(arguments).output().with_context(|| program.to_owned())?;
    let said = String::from_utf8_lossy(&stderr);
    ensure!(status.success(), "{program} {}: {}", arguments.join(" "), said.trim());
    Ok(())
}

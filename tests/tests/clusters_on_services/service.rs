//! The three services, as one.

use std::time::Duration;

use rampuddle_harness::{
    Consul, ConsulOptions, Etcd, EtcdOptions, LocalService, ZooKeeper, ZooKeeperClient,
    ZooKeeperOptions, base64,
};
use serde_json::{Value, json};

/// Where all that the tests write lies.
const PREFIX: &str = "memory";

/// A running service of its own, killed when dropped.
#[derive(Debug)]
pub(crate) enum Service {
    Consul(Consul),
    Etcd(Etcd),
    ZooKeeper(ZooKeeper),
}

impl Service {
    pub(crate) fn consul() -> Option<Self> {
        Consul::start(&ConsulOptions::default()).map(Self::Consul)
    }

    pub(crate) fn etcd() -> Option<Self> {
        Etcd::start(&EtcdOptions::default()).map(Self::Etcd)
    }

    pub(crate) fn zookeeper() -> Option<Self> {
        // It keeps all in memory, also a hundred megabytes of rubbish.
        let heap_mib = Some(768);
        let options = ZooKeeperOptions { heap_mib, ..ZooKeeperOptions::default() };
        ZooKeeper::start(&options).map(Self::ZooKeeper)
    }

    fn local(&self) -> &LocalService {
        match self {
            Self::Consul(service) => service,
            Self::Etcd(service) => service,
            Self::ZooKeeper(service) => service,
        }
    }

    fn local_mut(&mut self) -> &mut LocalService {
        match self {
            Self::Consul(service) => service,
            Self::Etcd(service) => service,
            Self::ZooKeeper(service) => service,
        }
    }

    /// Its name and version.
    pub(crate) fn name(&self) -> String {
        let local = self.local();
        format!("{} {}", local.name(), local.version())
    }

    /// The URL of its back end.
    pub(crate) fn url(&self) -> String {
        let scheme = match self {
            Self::Consul(_) => "consul",
            Self::Etcd(_) => "etcd",
            Self::ZooKeeper(_) => "zk",
        };
        format!("{scheme}://{}/{PREFIX}", self.local().address())
    }

    /// How much longer than the lease a dead server may be seen alive, and why.
    pub(crate) fn granularity(&self) -> (Duration, &'static str) {
        match self {
            Self::Consul(_) => (Duration::from_secs(1), "its timers, and the way to its servers"),
            Self::Etcd(_) => (Duration::from_secs(1), "it looks for ended leases twice a second"),
            Self::ZooKeeper(_) => (
                Duration::from_millis(3_500),
                "sessions of 4 s at least, which end at the next tick of 2 s, a moment after it",
            ),
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.local_mut().kill();
    }

    /// Removes the data of one that was killed.
    pub(crate) fn wipe(&mut self) {
        self.local_mut().wipe();
    }

    /// Starts it again, and returns at its first answer.
    pub(crate) fn start_again(&mut self) {
        self.local_mut().start_again();
    }

    /// Writes a record of the cluster, for instance `members/a`. One that is held belongs
    /// to a session or a lease of its own; where somebody must live to hold it, that is
    /// returned.
    pub(crate) fn plant(&self, key: &str, bytes: &[u8], is_held: bool) -> Option<ZooKeeperClient> {
        let key = format!("{PREFIX}/{}/{key}", crate::rig::CLUSTER);
        match self {
            Self::Consul(consul) => {
                let mut target = format!("/v1/kv/{key}");
                if is_held {
                    register(consul, bytes);
                    target += &format!("?acquire={}", session(consul));
                }
                assert_eq!(consul.json_of("PUT", &target, bytes), true, "{key}");
            }
            Self::Etcd(etcd) => {
                let mut put = json!({ "key": base64(key.as_bytes()), "value": base64(bytes) });
                if is_held {
                    let lease = etcd.api("/v3/lease/grant", &json!({ "TTL": 600 }));
                    put["lease"] = lease["ID"].clone();
                }
                etcd.api("/v3/kv/put", &put);
            }
            Self::ZooKeeper(zookeeper) => {
                let mut client = ZooKeeperClient::connect(zookeeper.address());
                client.put(&format!("/{key}"), bytes, is_held);
                return is_held.then_some(client);
            }
        }
        None
    }

    /// About the largest record that it takes.
    pub(crate) fn largest_record(&self) -> usize {
        match self {
            Self::Consul(_) => 500 << 10,
            Self::Etcd(_) | Self::ZooKeeper(_) => 1 << 20,
        }
    }

    /// Removes a record that was planted.
    pub(crate) fn weed(&self, key: &str) {
        let key = format!("{PREFIX}/{}/{key}", crate::rig::CLUSTER);
        match self {
            Self::Consul(consul) => {
                consul.json("DELETE", &format!("/v1/kv/{key}"), &Value::Null);
            }
            Self::Etcd(etcd) => {
                etcd.api("/v3/kv/deleterange", &json!({ "key": base64(key.as_bytes()) }));
            }
            Self::ZooKeeper(zookeeper) => {
                ZooKeeperClient::connect(zookeeper.address()).delete(&format!("/{key}"));
            }
        }
    }
}

/// A session of Consul that nothing ends.
fn session(consul: &Consul) -> String {
    let session = consul.json("PUT", "/v1/session/create", &json!({ "Behavior": "delete" }));
    session["ID"].as_str().expect("a session has an id").to_owned()
}

/// A service of the agent for the server of a record, if it is one: without it Consul
/// says that the server is dead.
fn register(consul: &Consul, bytes: &[u8]) {
    let Ok(living) = serde_json::from_slice::<Value>(bytes) else { return };
    let Some(name) = living["name"].as_str() else { return };
    let incarnation = &living["incarnation"];
    let meta = json!({ "cluster": crate::rig::CLUSTER, "name": name, "incarnation": incarnation });
    let tags = [crate::rig::CLUSTER];
    let service = json!({ "ID": name, "Name": PREFIX, "Tags": tags, "Meta": meta });
    consul.json("PUT", "/v1/agent/service/register", &service);
}

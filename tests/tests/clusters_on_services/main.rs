//! Clusters of real servers on real Consul, etcd and ZooKeeper, with clients that read
//! and write all the time: servers are killed, stopped and started again, services go
//! away, forget everything and are full of rubbish. No operation may fail for it.

mod edges;
mod faults;
mod load;
mod rig;
mod rubbish;
mod service;
mod sightings;

use crate::service::Service;

/// One test for each service. Where it cannot be had the test says so, and is skipped.
macro_rules! on_each_service {
    ($module:ident :: $scenario:ident) => {
        mod $scenario {
            use super::*;

            #[test]
            fn on_consul() {
                if let Some(service) = Service::consul() {
                    $module::$scenario(service);
                }
            }

            #[test]
            fn on_etcd() {
                if let Some(service) = Service::etcd() {
                    $module::$scenario(service);
                }
            }

            #[test]
            fn on_zookeeper() {
                if let Some(service) = Service::zookeeper() {
                    $module::$scenario(service);
                }
            }
        }
    };
}

on_each_service!(faults::no_operation_fails_whatever_fails_around_them);
on_each_service!(edges::servers_and_clients_start_and_stop_whatever_the_service_does);
on_each_service!(rubbish::a_registry_full_of_rubbish_harms_nobody);

//! What a client's own view was at any time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rampuddle_client::{Client, View};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

type Views = Vec<(Instant, Arc<View>)>;

/// The views that a client had, one after the other.
#[derive(Debug)]
pub(crate) struct Sightings {
    views: Arc<Mutex<Views>>,
    task: JoinHandle<()>,
}

impl Sightings {
    pub(crate) fn of(client: &Client, runtime: &Handle) -> Self {
        let (client, mut view) = (client.clone(), client.view());
        let views = Arc::new(Mutex::new(vec![(Instant::now(), Arc::clone(&view))]));
        let task = runtime.spawn({
            let views = Arc::clone(&views);
            async move {
                loop {
                    view = client.next_view(&view).await;
                    let mut views = views.lock().unwrap_or_else(PoisonError::into_inner);
                    views.push((Instant::now(), Arc::clone(&view)));
                }
            }
        });
        Self { views, task }
    }

    /// When the first view since then was as wanted.
    pub(crate) fn first(&self, since: Instant, wanted: impl Fn(&View) -> bool) -> Option<Instant> {
        let views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        views.iter().find(|(at, view)| *at >= since && wanted(view)).map(|(at, _)| *at)
    }

    /// Fails when members, or settings, were missing from any view.
    #[track_caller]
    pub(crate) fn assert_never_less(&self, members: &[&str]) {
        let views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, view) in views.iter() {
            let found: Vec<&str> = view.members().iter().map(|member| &*member.name).collect();
            assert_eq!(found, members, "a view of the client");
            assert!(view.is_founded(), "a view of the client has no settings");
        }
        println!("  {} views of the client, all with all members and settings", views.len());
    }

    /// Whether some view since then lacked a server among the living.
    pub(crate) fn anybody_missing(&self, since: Instant, servers: usize) -> bool {
        self.first(since, |view| view.all_living().count() < servers).is_some()
    }
}

impl Drop for Sightings {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The incarnations of the living.
pub(crate) fn incarnations(view: &View) -> BTreeMap<String, String> {
    let of = |living: &rampuddle_discovery::Living| {
        living.incarnation.map(|incarnation| incarnation.to_string()).unwrap_or_default()
    };
    view.all_living().map(|(name, living)| (name.to_string(), of(living))).collect()
}

//! Announcers on a registry in memory, under a clock that jumps.

use std::pin::Pin;
use std::sync::{Mutex, MutexGuard};

use rampuddle_discovery::{Id, Member, Recorded, Revision, Withdraw};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;

use super::*;

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, DiscoveryError>> + Send + 'a>>;

/// How long announcers are watched.
const WATCHED: Duration = Duration::from_secs(300);

/// A registry that many open, each as a back end of its own.
#[derive(Clone, Debug, Default)]
struct Registry(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    found: Snapshot,
    /// Whether it shows nobody who lives.
    hides: bool,
    announcements: usize,
}

impl Registry {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The incarnations that live, as it knows them.
    fn living(&self) -> Vec<u8> {
        let state = self.state();
        state.found.living.iter().filter_map(|living| Some(living.incarnation?.0[0])).collect()
    }

    fn remove(&self, living: &Living) {
        self.state().found.living.retain(|found| found.incarnation != living.incarnation);
    }
}

impl Backend for Registry {
    fn url(&self) -> String {
        "memory:".to_owned()
    }

    fn snapshot(&self) -> Answer<'_, Snapshot> {
        let mut found = self.state().found.clone();
        if self.state().hides {
            found.living.clear();
            found.complaints.push("nobody is shown".to_owned());
        }
        Box::pin(async { Ok(found) })
    }

    fn changed(&self) -> Answer<'_, ()> {
        Box::pin(async {
            sleep(Duration::from_millis(100)).await;
            Ok(())
        })
    }

    fn create_settings<'a>(&'a self, settings: &'a Settings) -> Answer<'a, Settings> {
        let found = self.state().found.settings.get_or_insert(settings.clone()).clone();
        Box::pin(async { Ok(found) })
    }

    fn write_member<'a>(&'a self, member: &'a Member, _: Revision) -> Answer<'a, Revision> {
        let recorded = Recorded { value: member.clone(), revision: Revision(1) };
        self.state().found.members = vec![recorded];
        Box::pin(async { Ok(Revision(1)) })
    }

    fn announce<'a>(&'a self, living: &'a Living) -> Answer<'a, Announcement> {
        let mut state = self.state();
        let announced = match state.found.living.first().cloned() {
            Some(Living { name, incarnation, .. }) => {
                Err(DiscoveryError::NameTaken { name, address: String::new(), incarnation })
            }
            None => {
                state.announcements += 1;
                state.found.living.push(living.clone());
                let entry = Entry { registry: self.clone(), living: living.clone() };
                Ok(Announcement::new(entry))
            }
        };
        Box::pin(async { announced })
    }

    fn free_name<'a>(&'a self, silent: &'a Living) -> Answer<'a, ()> {
        self.remove(silent);
        Box::pin(async { Ok(()) })
    }
}

#[derive(Debug)]
struct Entry {
    registry: Registry,
    living: Living,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.registry.remove(&self.living);
    }
}

impl Withdraw for Entry {
    fn withdraw(self: Box<Self>) -> Answer<'static, ()> {
        Box::pin(async { Ok(()) })
    }

    fn is_kept_up(&self) -> bool {
        let state = self.registry.state();
        state.found.living.iter().any(|found| found.incarnation == self.living.incarnation)
    }
}

/// A server of the name `a` at an address where nobody answers.
struct Started {
    news: UnboundedReceiver<&'static str>,
    task: JoinHandle<DiscoveryError>,
}

impl Started {
    fn start(registry: &Registry, incarnation: u8) -> Self {
        let living = Living::at("a", "127.0.0.1:1", Id([incarnation; 16]));
        let request = JoinRequest::new(Settings::new("lab", 0), Member::ready("a", 1.0), living);
        let registry = registry.clone();
        let open = move || Ok(Arc::new(registry.clone()) as Arc<dyn Backend>);
        let mut announcer = Announcer::new(open, request, Told::default());
        let (sender, news) = unbounded_channel();
        let task = tokio::spawn(async move {
            announcer.keep(|news| sender.send(word(&news)).expect("somebody listens")).await
        });
        Self { news, task }
    }

    async fn next(&mut self) -> &'static str {
        self.news.recv().await.expect("the announcer goes on")
    }

    /// All that is told while it is watched.
    async fn all(&mut self) -> Vec<&'static str> {
        sleep(WATCHED).await;
        std::iter::from_fn(|| self.news.try_recv().ok()).collect()
    }
}

fn word(news: &News) -> &'static str {
    match news {
        News::Announced { is_again: false, .. } => "announced",
        News::Announced { is_again: true, .. } => "announced again",
        News::Failing(DiscoveryError::NameTaken { .. }) => "taken",
        News::Failing(_) => "failing",
        News::NotShown { .. } => "not shown",
        News::Answering => "answering",
        News::Recorded => "recorded",
    }
}

/// The first is advertised under an address where the second cannot ask it. Each freed
/// the name that the other had, as soon as it saw that.
#[tokio::test(start_paused = true)]
async fn a_server_leaves_its_name_to_who_took_it_though_nobody_answers_there() {
    let registry = Registry::default();
    let mut first = Started::start(&registry, 1);
    assert_eq!(first.next().await, "announced");
    let mut second = Started::start(&registry, 2);
    assert_eq!(second.next().await, "announced");
    assert_eq!((first.next().await, registry.living()), ("taken", vec![2]));
    assert_eq!((first.all().await, second.all().await), (Vec::new(), Vec::new()));
    assert_eq!((registry.living(), registry.state().announcements), (vec![2], 2));
    // When the name is free again, it is taken back.
    second.task.abort();
    assert_eq!((first.next().await, registry.living()), ("announced again", vec![1]));
}

#[tokio::test(start_paused = true)]
async fn an_announcement_that_is_not_shown_is_told_once_and_not_made_again() {
    let registry = Registry::default();
    registry.state().hides = true;
    let mut server = Started::start(&registry, 1);
    assert_eq!(server.next().await, "announced");
    assert_eq!(server.all().await, ["not shown"]);
    assert_eq!(registry.state().announcements, 1);
    registry.state().hides = false;
    assert_eq!(server.next().await, "answering");
    // One that was shown is made anew, once.
    registry.state().hides = true;
    assert_eq!(server.all().await, ["announced again", "not shown"]);
    assert_eq!(registry.state().announcements, 2);
}

#[tokio::test(start_paused = true)]
async fn an_announcement_that_is_lost_is_made_again_though_it_never_was_seen() {
    let registry = Registry::default();
    registry.state().hides = true;
    let mut server = Started::start(&registry, 1);
    assert_eq!((server.next().await, server.next().await), ("announced", "not shown"));
    *registry.state() = State::default();
    let news = [server.next().await, server.next().await];
    assert_eq!((news, registry.living()), (["announced again", "answering"], vec![1]));
}

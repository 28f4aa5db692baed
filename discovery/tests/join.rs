//! What a server becomes when it starts.

use std::sync::{Arc, Mutex};

use futures_util::future::{BoxFuture, FutureExt as _, ready};
use rampuddle_discovery::{
    Announcement, Backend, DiscoveryError, Id, JoinRequest, Joined, Living, Member, MemberState,
    Revision, Settings, Snapshot, Withdraw, join, open, record,
};

struct Fixture {
    backend: Arc<dyn Backend>,
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("dir:{}", folder.path().display());
        Self { backend: open(&url, "lab").unwrap(), folder }
    }

    async fn record(&self, member: &Member) {
        let written = self.backend.write_member(member, Revision::ABSENT).await;
        written.unwrap();
    }

    async fn recorded(&self) -> Member {
        let snapshot = self.backend.snapshot().await.unwrap();
        snapshot.member("node-1").unwrap().value.clone()
    }

    async fn join(&self, request: &JoinRequest) -> Result<Joined, DiscoveryError> {
        join(&*self.backend, request, &silence).await
    }
}

fn silence(_address: String) -> BoxFuture<'static, Option<Id>> {
    Box::pin(async { None })
}

fn request() -> JoinRequest {
    JoinRequest::new(
        Settings::new("lab", 1),
        Member::ready("node-1", 4.0),
        Living::at("node-1", "127.0.0.1:7000", Id([1; 16])),
    )
}

#[tokio::test]
async fn a_new_member_is_born_ready_whatever_it_asked_for() {
    let fixture = Fixture::new();
    let mut request = request();
    request.member.state = MemberState::Out;
    let joined = fixture.join(&request).await.unwrap();
    assert_eq!(joined.member, Member::ready("node-1", 4.0));
    assert_eq!(fixture.recorded().await, joined.member);
    assert_eq!(joined.settings, Settings::new("lab", 1));
    assert_eq!(joined.notes, Vec::<String>::new());
    let snapshot = fixture.backend.snapshot().await.unwrap();
    assert_eq!(snapshot.living, [request.living]);
}

#[tokio::test]
async fn a_known_member_keeps_its_state_and_weight() {
    let fixture = Fixture::new();
    let known = Member {
        state: MemberState::Draining,
        zone: "rack-1".to_owned(),
        ..Member::ready("node-1", 9.0)
    };
    fixture.record(&known).await;
    let joined = fixture.join(&request()).await.unwrap();
    assert_eq!(joined.member, known);
    assert_eq!(fixture.recorded().await, known);
    assert_eq!(joined.notes.len(), 2, "{:?}", joined.notes);
}

#[tokio::test]
async fn a_chosen_weight_and_zone_replace_the_recorded_ones() {
    let fixture = Fixture::new();
    fixture.record(&Member::ready("node-1", 9.0)).await;
    let mut request = request();
    request.explicit_weight = true;
    request.member.zone = "rack-2".to_owned();
    let joined = fixture.join(&request).await.unwrap();
    assert_eq!(joined.member, request.member);
    assert_eq!(fixture.recorded().await, request.member);
    assert_eq!(joined.notes.len(), 2, "{:?}", joined.notes);
}

#[tokio::test]
async fn the_settings_of_the_first_server_stay_and_the_second_is_told() {
    let fixture = Fixture::new();
    let _first = fixture.join(&request()).await.unwrap();
    let mut second = request();
    second.settings_if_first.replicas_max = 7;
    second.member.name = "node-2".to_owned();
    second.living = Living::at("node-2", "127.0.0.1:7001", Id([2; 16]));
    let joined = fixture.join(&second).await.unwrap();
    assert_eq!(joined.settings.replicas_max, 3);
    assert_eq!(joined.notes.len(), 1, "{:?}", joined.notes);
}

#[tokio::test]
async fn another_incarnation_answering_at_the_registered_address_refuses_the_newcomer() {
    let backend = open("static:node-1=127.0.0.1:7000", "lab").unwrap();
    let other = |address: String| -> BoxFuture<'static, Option<Id>> {
        Box::pin(async move { (address == "127.0.0.1:7000").then_some(Id([2; 16])) })
    };
    let refused = join(&*backend, &request(), &other).await;
    let Err(DiscoveryError::NameTaken { incarnation, .. }) = refused else {
        panic!("the name is taken, but {refused:?}");
    };
    assert_eq!(incarnation, Some(Id([2; 16])));

    let ourselves = |_address: String| -> BoxFuture<'static, Option<Id>> {
        Box::pin(async { Some(Id([1; 16])) })
    };
    assert!(join(&*backend, &request(), &ourselves).await.is_ok());
    assert!(join(&*backend, &request(), &silence).await.is_ok());
}

/// A registry whose views never have whoever holds the name.
#[derive(Debug)]
struct Hiding {
    holder: Mutex<Option<Living>>,
    recorded: Mutex<Option<Member>>,
}

impl Hiding {
    fn held_by(holder: Living) -> Self {
        Self { holder: Mutex::new(Some(holder)), recorded: Mutex::default() }
    }
}

#[derive(Debug)]
struct Entry;

impl Withdraw for Entry {
    fn withdraw(self: Box<Self>) -> BoxFuture<'static, Result<(), DiscoveryError>> {
        ready(Ok(())).boxed()
    }
}

impl Backend for Hiding {
    fn url(&self) -> String {
        "hiding:".to_owned()
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Snapshot, DiscoveryError>> {
        let settings = Some(Settings::new("lab", 1));
        ready(Ok(Snapshot { settings, ..Snapshot::default() })).boxed()
    }

    fn changed(&self) -> BoxFuture<'_, Result<(), DiscoveryError>> {
        std::future::pending().boxed()
    }

    fn create_settings<'a>(
        &'a self,
        settings: &'a Settings,
    ) -> BoxFuture<'a, Result<Settings, DiscoveryError>> {
        ready(Ok(settings.clone())).boxed()
    }

    fn write_member<'a>(
        &'a self,
        member: &'a Member,
        _expected: Revision,
    ) -> BoxFuture<'a, Result<Revision, DiscoveryError>> {
        *self.recorded.lock().unwrap() = Some(member.clone());
        ready(Ok(Revision(1))).boxed()
    }

    fn announce<'a>(
        &'a self,
        living: &'a Living,
    ) -> BoxFuture<'a, Result<Announcement, DiscoveryError>> {
        let mut holder = self.holder.lock().unwrap();
        let announced = match &*holder {
            None => {
                *holder = Some(living.clone());
                Ok(Announcement::new(Entry))
            }
            Some(holder) => Err(DiscoveryError::NameTaken {
                name: holder.name.clone(),
                address: holder.address(),
                incarnation: holder.incarnation,
            }),
        };
        ready(announced).boxed()
    }

    fn free_name<'a>(&'a self, silent: &'a Living) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        let mut holder = self.holder.lock().unwrap();
        holder.take_if(|holder| holder.incarnation == silent.incarnation);
        ready(Ok(())).boxed()
    }
}

#[tokio::test]
async fn who_has_the_name_and_is_in_no_view_is_asked_too() {
    let old = || Living::at("node-1", "127.0.0.1:7009", Id([2; 16]));
    let silent = Hiding::held_by(old());
    let joined = join(&silent, &request(), &silence).await.unwrap();
    assert_eq!(*silent.holder.lock().unwrap(), Some(request().living));
    assert_eq!(*silent.recorded.lock().unwrap(), Some(joined.member));

    let answering = Hiding::held_by(old());
    let probe = |address: String| -> BoxFuture<'static, Option<Id>> {
        ready((address == "127.0.0.1:7009").then_some(Id([2; 16]))).boxed()
    };
    let refused = join(&answering, &request(), &probe).await.unwrap_err();
    assert!(matches!(refused, DiscoveryError::NameTaken { .. }), "{refused:?}");
    assert_eq!(*answering.holder.lock().unwrap(), Some(old()));
    assert_eq!(*answering.recorded.lock().unwrap(), None);

    // Nobody is asked where no server can be.
    let odd = Living { tcp: Some("169.254.169.254:80".to_owned()), ..old() };
    let elsewhere = Hiding::held_by(odd.clone());
    let refused = join(&elsewhere, &request(), &silence).await.unwrap_err();
    assert!(matches!(refused, DiscoveryError::NameTaken { .. }), "{refused:?}");
    assert_eq!(*elsewhere.holder.lock().unwrap(), Some(odd));
}

// It was taken from among the living each second, to be announced again.
#[tokio::test]
async fn a_server_whose_own_record_makes_no_sense_lives_and_leaves_it_as_it_is() {
    let fixture = Fixture::new();
    fixture.record(&Member::ready("node-1", 9.0)).await;
    let path = fixture.folder.path().join("lab/members/node-1.json");
    std::fs::write(&path, "half a rec").unwrap();
    let joined = fixture.join(&request()).await.unwrap();
    assert_eq!(joined.member, request().member);
    let [note] = &joined.notes[..] else { panic!("{:?}", joined.notes) };
    assert!(note.contains("record of member \"node-1\" cannot be read"), "{note}");
    assert!(note.contains("node-1.json"), "{note}");
    let snapshot = fixture.backend.snapshot().await.unwrap();
    assert_eq!(
        (snapshot.living, snapshot.unreadable),
        (vec![request().living], vec!["node-1".to_owned()])
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "half a rec");
    assert!(record(&*fixture.backend, &request()).await.is_ok());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "half a rec");
}

#[tokio::test]
async fn a_refused_newcomer_changes_no_record() {
    let fixture = Fixture::new();
    let _first = fixture.join(&request()).await.unwrap();
    let mut impostor = request();
    impostor.explicit_weight = true;
    impostor.member.weight = 1000.0;
    impostor.living.incarnation = Some(Id([2; 16]));
    let refused = fixture.join(&impostor).await;
    assert!(matches!(refused, Err(DiscoveryError::NameTaken { .. })), "{refused:?}");
    assert_eq!(fixture.recorded().await.weight, 4.0);
}

#[tokio::test]
async fn in_a_written_list_the_list_wins_and_the_server_is_told() {
    let backend = open("static:node-1=127.0.0.1:7000*2", "lab").unwrap();
    let mut chosen = request();
    chosen.explicit_weight = true;
    let joined = join(&*backend, &chosen, &silence).await.unwrap();
    assert_eq!(joined.member.weight, 2.0);
    assert_eq!(joined.notes.len(), 1, "{:?}", joined.notes);

    let backend = open("static:other=127.0.0.1:7000", "lab").unwrap();
    let refused = join(&*backend, &request(), &silence).await;
    assert!(matches!(refused, Err(DiscoveryError::UnknownMember { .. })), "{refused:?}");
}

#[tokio::test]
async fn servers_that_start_at_once_all_become_members() {
    let fixture = Fixture::new();
    let servers = (0..8_u16).map(|number| {
        let backend = fixture.backend.clone();
        let name = format!("node-{number}");
        let address = format!("127.0.0.1:{}", 7000 + number);
        let request = JoinRequest::new(
            Settings::new("lab", number.into()),
            Member::ready(&name, 1.0),
            Living::at(&name, address, Id([1; 16])),
        );
        tokio::spawn(async move { join(&*backend, &request, &silence).await })
    });
    let mut joined = Vec::new();
    for server in servers.collect::<Vec<_>>() {
        joined.push(server.await.unwrap().unwrap());
    }
    assert!(joined.iter().all(|one| one.settings == joined[0].settings));
    let snapshot = fixture.backend.snapshot().await.unwrap();
    assert_eq!((snapshot.members.len(), snapshot.living.len()), (8, 8));
}

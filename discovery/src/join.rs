//! What a server does when it starts: become a member, and be seen alive.

use std::path::PathBuf;

use futures_util::future::BoxFuture;

use crate::backend::{Announcement, Backend};
use crate::error::DiscoveryError;
use crate::id::Id;
use crate::model::{Living, Member, MemberState, Recorded, Revision, Settings, Snapshot};
use crate::validate;

/// How often a member's record is read and written anew when somebody else
/// changes it at the same time.
const ATTEMPTS_MAX: u32 = 8;

/// Asks the server of a name at an address (`host:port` or `unix:/path`) for its
/// incarnation; `None` when nobody of that name answers there. Must set itself a time
/// limit.
pub type Probe<'a> = dyn Fn(String) -> BoxFuture<'static, Option<Id>> + Send + Sync + 'a;

/// What a server wants to be.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// The settings of the cluster, if this is its first server.
    pub settings_if_first: Settings,
    /// The member to become. Its state is ignored: members are born ready.
    pub member: Member,
    /// Whether somebody chose the weight, so that it replaces a recorded one.
    pub explicit_weight: bool,
    /// Where the server listens.
    pub living: Living,
}

impl JoinRequest {
    /// A request in which nobody chose the weight.
    pub fn new(settings_if_first: Settings, member: Member, living: Living) -> Self {
        Self { settings_if_first, member, explicit_weight: false, living }
    }
}

/// What a server became.
#[derive(Debug)]
#[must_use = "a server is alive only as long as its announcement is held"]
pub struct Joined {
    /// Keeps the server alive for others.
    pub announcement: Announcement,
    /// The member as it is recorded; as it was asked for where its record makes no sense.
    pub member: Member,
    /// The settings of the cluster.
    pub settings: Settings,
    /// What the user should know: wishes that were not followed, and why.
    pub notes: Vec<String>,
}

/// Writes the settings of the cluster and the server's record as a member, unless they
/// are there: for a server that is announced, and whose registry lost them. Returns what
/// there is then.
///
/// # Errors
/// When the service does not answer, or holds another cluster.
pub async fn record(
    backend: &dyn Backend,
    request: &JoinRequest,
) -> Result<Settings, DiscoveryError> {
    check(request)?;
    let settings = settle_settings(backend, request, &mut Vec::new()).await?;
    settle_member(backend, request, &mut Vec::new()).await?;
    Ok(settings)
}

/// Makes a server a member and announces it.
///
/// A new member is born ready; one that exists keeps its state, and its weight
/// and zone unless others were chosen. Fails with
/// [`DiscoveryError::NameTaken`] when another server lives under the name: it
/// holds the name in the back end, or answers at its registered address with
/// another incarnation. A registered server that is silent, or whose address now is
/// this server's own, is taken over, where the back end cannot tell by itself that
/// it lives. A server that is
/// refused has changed nothing but, as the first of its cluster, the settings;
/// hence the announcement comes before the record.
pub async fn join(
    backend: &dyn Backend,
    request: &JoinRequest,
    probe: &Probe<'_>,
) -> Result<Joined, DiscoveryError> {
    check(request)?;
    let mut notes = Vec::new();
    let settings = settle_settings(backend, request, &mut notes).await?;
    let announcement = announce_over_silent(backend, request, probe).await?;
    announced(backend, request, announcement, settings, notes).await
}

/// Announces a server anew that was a part of the cluster, and whose entry was lost.
///
/// As [`join`], but nobody is asked, and no entry of another server is removed: fails with
/// [`DiscoveryError::NameTaken`] when there is one of another incarnation, whether that
/// answers or not. Two servers of one name that cannot reach each other would take it
/// from each other for ever.
pub async fn join_again(
    backend: &dyn Backend,
    request: &JoinRequest,
) -> Result<Joined, DiscoveryError> {
    check(request)?;
    let mut notes = Vec::new();
    let settings = settle_settings(backend, request, &mut notes).await?;
    let ours = request.living.incarnation;
    match backend.snapshot().await?.alive(&request.living.name) {
        Some(registered) if registered.incarnation.is_none() => {}
        Some(registered) if registered.incarnation == ours => backend.free_name(registered).await?,
        Some(registered) => return Err(name_taken(registered, registered.incarnation)),
        None => {}
    }
    let announcement = backend.announce(&request.living).await?;
    announced(backend, request, announcement, settings, notes).await
}

async fn announced(
    backend: &dyn Backend,
    request: &JoinRequest,
    announcement: Announcement,
    settings: Settings,
    mut notes: Vec<String>,
) -> Result<Joined, DiscoveryError> {
    let member = settle_member(backend, request, &mut notes).await?;
    note_state(&member, &mut notes);
    Ok(Joined { announcement, member, settings, notes })
}

fn check(request: &JoinRequest) -> Result<(), DiscoveryError> {
    validate::settings(&request.settings_if_first)?;
    validate::member(&request.member)?;
    validate::living(&request.living)?;
    validate::same_name(&request.member.name, &request.living.name)?;
    Ok(())
}

async fn settle_settings(
    backend: &dyn Backend,
    request: &JoinRequest,
    notes: &mut Vec<String>,
) -> Result<Settings, DiscoveryError> {
    let wanted = &request.settings_if_first;
    let found = backend.create_settings(wanted).await?;
    if found.cluster != wanted.cluster {
        return Err(DiscoveryError::WrongCluster {
            wanted: wanted.cluster.clone(),
            found: found.cluster,
        });
    }
    if (found.strategy, found.replicas_max) != (wanted.strategy, wanted.replicas_max) {
        notes.push(format!(
            "the cluster exists with strategy {} and replicas_max {}: these stay",
            found.strategy, found.replicas_max
        ));
    }
    Ok(found)
}

/// Announces the server, in the place of one that is silent. A view may leave out who has
/// the name: an entry with the address of another, a server whose check does not pass. So
/// whom the back end then tells of is asked as well.
async fn announce_over_silent(
    backend: &dyn Backend,
    request: &JoinRequest,
    probe: &Probe<'_>,
) -> Result<Announcement, DiscoveryError> {
    let ours = &request.living;
    let snapshot = backend.snapshot().await?;
    if let Some(registered) = snapshot.alive(&ours.name) {
        free_if_silent(backend, registered, request, probe).await?;
        return backend.announce(ours).await;
    }
    let refused = match backend.announce(ours).await {
        Err(refused) => refused,
        announced => return announced,
    };
    let Some(holder) = holder_told_of(&refused) else { return Err(refused) };
    free_if_silent(backend, &holder, request, probe).await?;
    backend.announce(ours).await
}

/// Frees the name of an entry behind which nobody answers, or the server itself. Fails
/// when somebody else does.
async fn free_if_silent(
    backend: &dyn Backend,
    registered: &Living,
    request: &JoinRequest,
    probe: &Probe<'_>,
) -> Result<(), DiscoveryError> {
    let answering = probe(registered.address()).await;
    if answering.is_none() || answering == request.living.incarnation {
        return backend.free_name(registered).await;
    }
    Err(name_taken(registered, answering))
}

/// Who has the name, as far as the back end says it, and at an address that a server may
/// have.
fn holder_told_of(refused: &DiscoveryError) -> Option<Living> {
    let DiscoveryError::NameTaken { name, address, incarnation } = refused else { return None };
    let unix_socket = address.strip_prefix("unix:").map(PathBuf::from);
    let holder = Living {
        name: name.clone(),
        tcp: unix_socket.is_none().then(|| address.clone()),
        unix_socket,
        host: String::new(),
        incarnation: *incarnation,
        store_id: None,
    };
    validate::living(&holder).is_ok().then_some(holder)
}

fn name_taken(registered: &Living, incarnation: Option<Id>) -> DiscoveryError {
    let (name, address) = (registered.name.clone(), registered.address());
    DiscoveryError::NameTaken { name, address, incarnation }
}

/// Writes the member's record if it is not as it should be. One that makes no sense stays:
/// it may say that the member is draining, and a server that lives is seen all the same.
async fn settle_member(
    backend: &dyn Backend,
    request: &JoinRequest,
    notes: &mut Vec<String>,
) -> Result<Member, DiscoveryError> {
    let mut attempt = 1;
    loop {
        let snapshot = backend.snapshot().await?;
        if snapshot.unreadable.contains(&request.member.name) {
            notes.push(note_of_unreadable(&snapshot, &request.member.name));
            return Ok(wanted_member(None, request));
        }
        let recorded = snapshot.member(&request.member.name);
        let wanted = wanted_member(recorded, request);
        let expected = recorded.map_or(Revision::ABSENT, |recorded| recorded.revision);
        let found = recorded.map(|recorded| &recorded.value);
        if found == Some(&wanted) {
            note_kept_weight(found, request, notes);
            return Ok(wanted);
        }
        match (backend.write_member(&wanted, expected).await, found) {
            (Ok(_), _) => {
                note_change(found, &wanted, notes);
                return Ok(wanted);
            }
            (Err(DiscoveryError::ReadOnly { backend }), Some(found)) => {
                notes.push(format!(
                    "weight {} and zone \"{}\" stay: {backend} is changed by hand",
                    found.weight, found.zone
                ));
                return Ok(found.clone());
            }
            (Err(DiscoveryError::Conflict { .. }), _) if attempt < ATTEMPTS_MAX => attempt += 1,
            (Err(error), _) => return Err(error),
        }
    }
}

fn wanted_member(recorded: Option<&Recorded<Member>>, request: &JoinRequest) -> Member {
    let asked = &request.member;
    let Some(recorded) = recorded else {
        return Member { state: MemberState::Ready, ..asked.clone() };
    };
    let mut wanted = recorded.value.clone();
    if request.explicit_weight {
        wanted.weight = asked.weight;
    }
    if !asked.zone.is_empty() {
        wanted.zone.clone_from(&asked.zone);
    }
    wanted
}

fn note_of_unreadable(snapshot: &Snapshot, name: &str) -> String {
    let ours = format!("member \"{name}\"");
    let complaint = snapshot.complaints.iter().find(|complaint| complaint.starts_with(&ours));
    let why = complaint.map(|complaint| format!(": {complaint}")).unwrap_or_default();
    format!("the record of member \"{name}\" cannot be read, and stays until it is mended{why}")
}

fn note_kept_weight(found: Option<&Member>, request: &JoinRequest, notes: &mut Vec<String>) {
    let asked = request.member.weight;
    let kept = found.filter(|found| found.weight != asked);
    if let Some(found) = kept {
        let weight = found.weight;
        notes.push(format!("the recorded weight {weight} stays; the default would be {asked}"));
    }
}

fn note_change(found: Option<&Member>, wanted: &Member, notes: &mut Vec<String>) {
    let Some(found) = found else { return };
    if found.weight != wanted.weight {
        notes.push(format!("the weight changed from {} to {}", found.weight, wanted.weight));
    }
    if found.zone != wanted.zone {
        notes.push(format!("the zone changed from \"{}\" to \"{}\"", found.zone, wanted.zone));
    }
}

fn note_state(member: &Member, notes: &mut Vec<String>) {
    if member.state != MemberState::Ready {
        notes.push(format!(
            "member \"{}\" is recorded as {}, and stays so",
            member.name, member.state
        ));
    }
}

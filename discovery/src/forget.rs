//! How a member ends that never comes back.

use crate::backend::Backend;
use crate::error::DiscoveryError;
use crate::join::Probe;
use crate::model::{Living, Member, Snapshot};
use crate::validate;

/// How often the record is read and removed anew when somebody else changes it at the
/// same time.
const ATTEMPTS_MAX: u32 = 8;

/// Removes a member, and what is left of it among the living. From then on placement
/// gives its share to the others, and what only it had is gone. Returns the member as
/// it was written, `None` when it was only among the living.
///
/// Whoever answers at its address is asked first: that under which it lives, else that
/// where it was `last_seen`, if that is known. Where neither is, nobody is asked, and a
/// server that is only cut off would be forgotten. A server that is started meanwhile is
/// asked too.
///
/// # Errors
/// [`DiscoveryError::StillAlive`] when somebody of that name answers at its address: a
/// server that runs would become a member again. [`DiscoveryError::NoSuchMember`] when
/// there is nothing of that name, [`DiscoveryError::Unreadable`] when its record makes no
/// sense, [`DiscoveryError::ReadOnly`] for written lists. Nothing was changed then.
pub async fn forget(
    backend: &dyn Backend,
    name: &str,
    last_seen: Option<&Living>,
    probe: &Probe<'_>,
) -> Result<Option<Member>, DiscoveryError> {
    validate::name(name)?;
    let mut attempt = 1;
    loop {
        let snapshot = backend.snapshot().await?;
        check_readable(&snapshot, name)?;
        let (member, living) = (snapshot.member(name), snapshot.alive(name));
        if member.is_none() && living.is_none() {
            return Err(DiscoveryError::NoSuchMember { name: name.to_owned() });
        }
        if let Some(server) = living.or(last_seen) {
            check_silent(server, probe).await?;
        }
        let now = backend.snapshot().await?;
        let removed = match (now.alive(name), member) {
            // It was started, or started again, while somebody else was asked.
            (Some(server), _) if Some(server) != living => Err(still_alive(server)),
            (_, Some(member)) => backend.remove_member(name, member.revision).await,
            (_, None) => Ok(()),
        };
        match removed {
            Err(error) if is_of_a_change(&error) && attempt < ATTEMPTS_MAX => attempt += 1,
            Err(error) => return Err(error),
            Ok(()) => {
                if let Some(living) = living {
                    backend.free_name(living).await?;
                }
                return Ok(member.map(|member| member.value.clone()));
            }
        }
    }
}

/// Whether others changed something meanwhile, so that it is to be looked at anew.
fn is_of_a_change(error: &DiscoveryError) -> bool {
    matches!(error, DiscoveryError::Conflict { .. } | DiscoveryError::StillAlive { .. })
}

/// A record that makes no sense cannot be removed at its revision.
fn check_readable(snapshot: &Snapshot, name: &str) -> Result<(), DiscoveryError> {
    if !snapshot.unreadable.iter().any(|unreadable| unreadable == name) {
        return Ok(());
    }
    let quoted = format!("\"{name}\"");
    let complaint = snapshot.complaints.iter().find(|complaint| complaint.contains(&quoted));
    let complaint = complaint.cloned().unwrap_or_default();
    Err(DiscoveryError::Unreadable { name: name.to_owned(), complaint })
}

async fn check_silent(server: &Living, probe: &Probe<'_>) -> Result<(), DiscoveryError> {
    match probe(server.address()).await {
        Some(_) => Err(still_alive(server)),
        None => Ok(()),
    }
}

fn still_alive(server: &Living) -> DiscoveryError {
    DiscoveryError::StillAlive { name: server.name.clone(), address: server.address() }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use futures_util::future::BoxFuture;

    use super::*;
    use crate::model::{Revision, Settings};
    use crate::{Id, open};

    /// A cluster with the members `a` and `b`.
    async fn cluster_in(folder: &Path) -> Arc<dyn Backend> {
        let backend = open(&format!("dir:{}", folder.display()), "lab").unwrap();
        backend.create_settings(&Settings::new("lab", 1)).await.unwrap();
        for name in ["a", "b"] {
            let member = Member::ready(name, 3.0);
            backend.write_member(&member, Revision::ABSENT).await.unwrap();
        }
        backend
    }

    fn at(port: u16, incarnation: u8) -> Living {
        Living::at("a", format!("127.0.0.1:{port}"), Id([incarnation; 16]))
    }

    /// Says that a server answers at this port.
    fn answers_at(port: u16) -> impl Fn(String) -> BoxFuture<'static, Option<Id>> {
        move |address| {
            let answer = address.ends_with(&format!(":{port}")).then_some(Id([9; 16]));
            Box::pin(async move { answer })
        }
    }

    #[tokio::test]
    async fn a_member_is_forgotten_only_when_nobody_answers_at_its_address() {
        let folder = tempfile::tempdir().unwrap();
        let backend = cluster_in(folder.path()).await;
        let announced = backend.announce(&at(7, 1)).await.unwrap();

        let forget = async |name: &str, answer: Option<Id>| {
            forget(&*backend, name, None, &|_| Box::pin(async move { answer })).await
        };
        // Whoever answers there, the name is in use.
        for id in [1, 2] {
            let refused = forget("a", Some(Id([id; 16]))).await.unwrap_err();
            assert!(matches!(refused, DiscoveryError::StillAlive { .. }), "{refused:?}");
        }
        assert_eq!(backend.snapshot().await.unwrap().members.len(), 2);
        announced.withdraw().await.unwrap();
        assert_eq!(forget("a", None).await.unwrap(), Some(Member::ready("a", 3.0)));
        let left = backend.snapshot().await.unwrap();
        assert!(left.member("a").is_none() && left.member("b").is_some());
        for name in ["a", "never"] {
            let refused = forget(name, None).await.unwrap_err();
            assert!(matches!(refused, DiscoveryError::NoSuchMember { .. }), "{refused:?}");
        }
        assert!(matches!(forget("../a", None).await, Err(DiscoveryError::Invalid(_))));
    }

    #[tokio::test]
    async fn a_member_that_nobody_sees_is_asked_where_it_was_seen_last() {
        let folder = tempfile::tempdir().unwrap();
        let backend = cluster_in(folder.path()).await;
        let forget = async |answers: u16| {
            forget(&*backend, "a", Some(&at(7, 1)), &answers_at(answers)).await
        };
        let refused = forget(7).await.unwrap_err();
        assert!(matches!(refused, DiscoveryError::StillAlive { .. }), "{refused:?}");
        assert!(backend.snapshot().await.unwrap().member("a").is_some());
        assert_eq!(forget(8).await.unwrap(), Some(Member::ready("a", 3.0)));
    }

    #[tokio::test]
    async fn a_server_that_is_started_while_another_is_asked_is_asked_too() {
        let folder = tempfile::tempdir().unwrap();
        let backend = cluster_in(folder.path()).await;
        for (last_seen, begin) in [(None, Some(at(7, 1))), (Some(at(7, 1)), None)] {
            let mut living = Vec::new();
            if let Some(begin) = begin {
                living.push(backend.announce(&begin).await.unwrap());
            }
            let living = Arc::new(Mutex::new(living));
            // Who is asked at the old address is silent, because it starts elsewhere.
            let starts = |address: String| -> BoxFuture<'static, Option<Id>> {
                let (backend, living) = (backend.clone(), living.clone());
                Box::pin(async move {
                    if address.ends_with(":8") {
                        return Some(Id([2; 16]));
                    }
                    living.lock().unwrap().clear();
                    let started = backend.announce(&at(8, 2)).await.unwrap();
                    living.lock().unwrap().push(started);
                    None
                })
            };
            let refused = forget(&*backend, "a", last_seen.as_ref(), &starts).await.unwrap_err();
            let DiscoveryError::StillAlive { address, .. } = refused else {
                panic!("it is alive, but {refused:?}");
            };
            assert_eq!(address, "127.0.0.1:8");
            assert!(backend.snapshot().await.unwrap().member("a").is_some());
        }
    }

    #[tokio::test]
    async fn a_record_that_makes_no_sense_is_told_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let backend = cluster_in(folder.path()).await;
        std::fs::write(folder.path().join("lab/members/a.json"), "rubbish").unwrap();
        let refused = forget(&*backend, "a", None, &answers_at(7)).await.unwrap_err();
        let told = refused.explained();
        assert!(matches!(refused, DiscoveryError::Unreadable { .. }), "{refused:?}");
        assert!(told.contains("a.json") && told.contains("repair or remove it"), "{told}");
    }

    #[tokio::test]
    async fn a_list_is_not_changed() {
        let backend = open("static:a=127.0.0.1:1,b=127.0.0.1:2", "lab").unwrap();
        let refused = forget(&*backend, "a", None, &answers_at(0)).await.unwrap_err();
        assert!(matches!(refused, DiscoveryError::ReadOnly { .. }), "{refused:?}");
    }
}

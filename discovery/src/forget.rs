//! How a member ends that never comes back.

use crate::backend::Backend;
use crate::error::DiscoveryError;
use crate::join::Probe;
use crate::model::{Living, Member};
use crate::validate;

/// How often the record is read and removed anew when somebody else changes it at the
/// same time.
const ATTEMPTS_MAX: u32 = 8;

/// Removes a member, and what is left of it among the living. From then on placement
/// gives its share to the others, and what only it had is gone. Returns the member as
/// it was written, `None` when it was only among the living.
///
/// # Errors
/// [`DiscoveryError::StillAlive`] when somebody answers at its address: a server that
/// runs would become a member again. [`DiscoveryError::NoSuchMember`] when there is
/// nothing of that name, [`DiscoveryError::ReadOnly`] for written lists. Nothing was
/// changed then.
pub async fn forget(
    backend: &dyn Backend,
    name: &str,
    probe: &Probe<'_>,
) -> Result<Option<Member>, DiscoveryError> {
    validate::name(name)?;
    let mut attempt = 1;
    loop {
        let snapshot = backend.snapshot().await?;
        let (member, living) = (snapshot.member(name), snapshot.alive(name));
        if member.is_none() && living.is_none() {
            return Err(DiscoveryError::NoSuchMember { name: name.to_owned() });
        }
        if let Some(living) = living {
            check_silent(living, probe).await?;
        }
        let removed = match member {
            Some(member) => backend.remove_member(name, member.revision).await,
            None => Ok(()),
        };
        match removed {
            Err(DiscoveryError::Conflict { .. }) if attempt < ATTEMPTS_MAX => attempt += 1,
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

async fn check_silent(living: &Living, probe: &Probe<'_>) -> Result<(), DiscoveryError> {
    let (name, address) = (living.name.clone(), living.address());
    match probe(address.clone()).await {
        Some(_) => Err(DiscoveryError::StillAlive { name, address }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Revision, Settings};
    use crate::{Id, open};

    #[tokio::test]
    async fn a_member_is_forgotten_only_when_nobody_answers_at_its_address() {
        let folder = tempfile::tempdir().unwrap();
        let backend = open(&format!("dir:{}", folder.path().display()), "lab").unwrap();
        backend.create_settings(&Settings::new("lab", 1)).await.unwrap();
        for name in ["a", "b"] {
            let member = Member::ready(name, 3.0);
            backend.write_member(&member, Revision::ABSENT).await.unwrap();
        }
        let living = Living::at("a", "127.0.0.1:7", Id([1; 16]));
        let announced = backend.announce(&living).await.unwrap();

        let forget = async |name: &str, answer: Option<Id>| {
            forget(&*backend, name, &|_| Box::pin(async move { answer })).await
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
    async fn a_list_is_not_changed() {
        let backend = open("static:a=127.0.0.1:1,b=127.0.0.1:2", "lab").unwrap();
        let refused = forget(&*backend, "a", &|_| Box::pin(async { None })).await.unwrap_err();
        assert!(matches!(refused, DiscoveryError::ReadOnly { .. }), "{refused:?}");
    }
}

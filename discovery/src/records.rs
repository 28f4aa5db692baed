//! The records of a registry: from bytes to settings, members and the living, and what
//! becomes of those that make no sense.
//!
//! Every back end that keeps records writes the same JSON. `what` says in messages where
//! a record was found: a path, a key.
// Not every back end needs everything.
#![cfg_attr(not(all(feature = "consul", feature = "etcd")), allow(dead_code))]

#[cfg(feature = "registry")]
use serde::Serialize;

use crate::assemble::Assembly;
#[cfg(feature = "registry")]
use crate::document::parse_json;
use crate::error::DiscoveryError;
use crate::model::{Living, Member, Recorded, Settings};
use crate::validate;
#[cfg(feature = "registry")]
use crate::validate::RECORD_BYTES_MAX;

/// The settings in `bytes`, which must be those of `cluster`.
#[cfg(feature = "registry")]
pub(crate) fn settings(
    what: &str,
    cluster: &str,
    bytes: &[u8],
) -> Result<Settings, DiscoveryError> {
    checked_settings(what, cluster, parse_json(sized(what, bytes)?, what)?)
}

/// The member in `bytes`, which must have the name `name`.
#[cfg(feature = "registry")]
pub(crate) fn member(what: &str, name: &str, bytes: &[u8]) -> Result<Member, DiscoveryError> {
    checked_member(what, name, parse_json(sized(what, bytes)?, what)?)
}

/// The living server in `bytes`, which must have the name `name`. Whether its addresses
/// make sense is seen when it is taken.
#[cfg(feature = "registry")]
pub(crate) fn living(what: &str, name: &str, bytes: &[u8]) -> Result<Living, DiscoveryError> {
    let living: Living = parse_json(sized(what, bytes)?, what)?;
    validate::same_name(name, &living.name)?;
    Ok(living)
}

/// Whether the record in `bytes` is of this living server, in this incarnation.
#[cfg(feature = "registry")]
pub(crate) fn is_entry_of(what: &str, server: &Living, bytes: &[u8]) -> bool {
    living(what, &server.name, bytes).is_ok_and(|found| found.incarnation == server.incarnation)
}

/// A record as it is written.
#[cfg(feature = "registry")]
pub(crate) fn to_bytes(what: &str, record: &impl Serialize) -> Result<Vec<u8>, DiscoveryError> {
    serde_json::to_vec_pretty(record).map_err(|error| DiscoveryError::malformed(what, error))
}

/// Settings that make sense and are those of `cluster`.
pub(crate) fn checked_settings(
    what: &str,
    cluster: &str,
    settings: Settings,
) -> Result<Settings, DiscoveryError> {
    validate::settings(&settings).map_err(|error| DiscoveryError::malformed(what, error))?;
    check_cluster(cluster, &settings.cluster)?;
    Ok(settings)
}

/// A member that makes sense and has the name `name`.
pub(crate) fn checked_member(
    what: &str,
    name: &str,
    member: Member,
) -> Result<Member, DiscoveryError> {
    validate::same_name(name, &member.name)
        .and_then(|()| validate::member(&member))
        .map_err(|error| DiscoveryError::malformed(what, error))?;
    Ok(member)
}

/// Checks that what belongs to one cluster is not written to another's place.
pub(crate) fn check_cluster(wanted: &str, found: &str) -> Result<(), DiscoveryError> {
    if wanted == found {
        return Ok(());
    }
    Err(DiscoveryError::WrongCluster { wanted: wanted.to_owned(), found: found.to_owned() })
}

/// Takes a member into a snapshot, or what is wrong with its record as a complaint.
/// Fails when not only this one is at fault.
pub(crate) fn take_member(
    assembly: &mut Assembly,
    name: &str,
    found: Result<Recorded<Member>, DiscoveryError>,
) -> Result<(), DiscoveryError> {
    match found {
        Ok(record) => _ = assembly.add_member(record),
        Err(error) if error.spoils_one_entry_only() => {
            assembly.unreadable(name, error.explained());
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Takes a living server into a snapshot, or what is wrong with its record as a
/// complaint. Fails when not only this one is at fault.
pub(crate) fn take_living(
    assembly: &mut Assembly,
    name: &str,
    found: Result<Living, DiscoveryError>,
) -> Result<(), DiscoveryError> {
    match found {
        Ok(living) => assembly.add_living(living),
        Err(error) if error.spoils_one_entry_only() => {
            assembly.complain(format_args!("server \"{name}\" ignored: {}", error.explained()));
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

#[cfg(feature = "registry")]
fn sized<'a>(what: &str, bytes: &'a [u8]) -> Result<&'a [u8], DiscoveryError> {
    if bytes.len() as u64 <= RECORD_BYTES_MAX {
        return Ok(bytes);
    }
    Err(DiscoveryError::TooLarge { path: what.into(), bytes_max: RECORD_BYTES_MAX })
}

#[cfg(all(test, feature = "registry"))]
mod tests {
    use super::*;
    use crate::id::Id;

    #[test]
    fn a_record_that_was_written_is_read_as_it_was() {
        let settings_of_lab = Settings::new("lab", 7);
        let bytes = to_bytes("k", &settings_of_lab).unwrap();
        assert_eq!(settings("k", "lab", &bytes).unwrap(), settings_of_lab);
        let refused = settings("k", "other", &bytes).unwrap_err();
        assert!(matches!(refused, DiscoveryError::WrongCluster { .. }), "{refused:?}");

        let first = Member::ready("a", 2.0);
        let bytes = to_bytes("k", &first).unwrap();
        assert_eq!(member("k", "a", &bytes).unwrap(), first);
        assert!(member("k", "b", &bytes).is_err());

        let server = Living::at("a", "h:7", Id([1; 16]));
        let bytes = to_bytes("k", &server).unwrap();
        assert_eq!(living("k", "a", &bytes).unwrap(), server);
        assert!(living("k", "b", &bytes).is_err());
    }

    #[test]
    fn a_record_of_absurd_size_is_not_parsed_and_costs_one_complaint() {
        let bytes = vec![b' '; RECORD_BYTES_MAX as usize + 1];
        let mut assembly = Assembly::default();
        take_living(&mut assembly, "a", living("k/a", "a", &bytes)).unwrap();
        let complaints = assembly.finish(None).complaints;
        assert_eq!(complaints.len(), 1);
        assert!(complaints[0].contains("k/a has more than 65536 bytes"), "{complaints:?}");
    }
}

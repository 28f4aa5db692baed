//! Whether members that vanish from the registry are believed to be gone.
//!
//! Members are persistent: only a written state or an explicit removal ends
//! one. A registry that was wiped in part, or restored from an old copy, looks
//! like many removals at once. So when more than 15 % of the members are missing
//! from an answer, they are *doubted*: they stay as they were, and are asked
//! themselves. Those that answer, if only to refuse this client, stay for as long
//! as they do; one that gives no answer, or turns out to be somebody else, and does
//! so again some seconds later, is gone. That is also how one of three members goes
//! that was removed on purpose: when its server has stopped.
//!
//! No I/O here: what discovery and the servers say is handed in, and the time.

use std::collections::BTreeMap;
use std::time::Duration;

use rampuddle_discovery::{Living, Member, Recorded, Snapshot};
use tokio::time::Instant;

/// How long a doubted member is silent when it is taken to be gone: every server
/// has a bad second.
pub(crate) const SILENCE: Duration = Duration::from_secs(5);

/// The members as they are believed to be.
#[derive(Debug)]
pub(crate) struct Membership {
    answer: Snapshot,
    /// By name, and what was last known of them.
    doubted: BTreeMap<String, Doubted>,
}

/// A member that is missing from the registry.
#[derive(Debug, Clone)]
struct Doubted {
    member: Recorded<Member>,
    living: Option<Living>,
    /// When it was first found silent, since it was last heard.
    silent_since: Option<Instant>,
}

impl Membership {
    /// The first answer. It is believed as it is, unless another view was `seen_before` it.
    pub(crate) fn new(answer: Snapshot, seen_before: Option<Snapshot>) -> Self {
        let first = |answer| Self { answer, doubted: BTreeMap::new() };
        let Some(before) = seen_before else { return first(answer) };
        let mut membership = first(before);
        membership.answered(answer);
        membership
    }

    /// What to believe: the latest answer and all that are doubted.
    pub(crate) fn believed(&self) -> Snapshot {
        let mut believed = self.answer.clone();
        for Doubted { member, living, .. } in self.doubted.values() {
            believed.members.push(member.clone());
            let is_alive = |name: &str| self.answer.alive(name).is_some();
            believed.living.extend(living.clone().filter(|living| !is_alive(&living.name)));
        }
        believed.members.sort_by(|one, other| one.value.name.cmp(&other.value.name));
        believed.living.sort_by(|one, other| one.name.cmp(&other.name));
        believed
    }

    /// Members that must be asked themselves.
    pub(crate) fn doubted(&self) -> impl Iterator<Item = &str> {
        self.doubted.keys().map(String::as_str)
    }

    /// Takes a new answer of discovery. True when there are members to ask that
    /// were not doubted before.
    pub(crate) fn answered(&mut self, answer: Snapshot) -> bool {
        let before = self.believed();
        let missing = before.members.iter().filter(|it| answer.member(&it.value.name).is_none());
        let missing: Vec<&Recorded<Member>> = missing.collect();
        let is_suspicious = answer.lacks_many_of(&before);
        let mut doubted = BTreeMap::new();
        let mut has_more = false;
        for member in missing {
            let name = &member.value.name;
            let known = self.doubted.get(name);
            if known.is_some() || is_suspicious {
                let (member, living) = (member.clone(), before.alive(name).cloned());
                let silent_since = known.and_then(|known| known.silent_since);
                has_more |= known.is_none();
                doubted.insert(name.clone(), Doubted { member, living, silent_since });
            }
        }
        (self.answer, self.doubted) = (answer, doubted);
        has_more
    }

    /// Takes what became of asking members: those that gave an answer, and those
    /// that gave none, or another one than they should. Returns those that are gone
    /// by that.
    pub(crate) fn asked(&mut self, said: Vec<(String, bool)>, now: Instant) -> Vec<String> {
        let mut gone = Vec::new();
        for (name, answers) in said {
            let Some(doubted) = self.doubted.get_mut(&name) else { continue };
            if answers {
                doubted.silent_since = None;
            } else if now - *doubted.silent_since.get_or_insert(now) >= SILENCE {
                self.doubted.remove(&name);
                gone.push(name);
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use rampuddle_discovery::{Id, MemberState, Revision, Settings};

    use super::*;

    fn snapshot(names: &[&str]) -> Snapshot {
        let member =
            |name: &&str| Recorded { value: Member::ready(*name, 1.0), revision: Revision(1) };
        Snapshot {
            settings: Some(Settings::new("lab", 1)),
            members: names.iter().map(member).collect(),
            living: names.iter().map(|name| Living::at(*name, "h:1", Id([1; 16]))).collect(),
            ..Snapshot::default()
        }
    }

    fn numbered(numbers: std::ops::Range<usize>) -> Vec<String> {
        numbers.map(|number| format!("m{number:02}")).collect()
    }

    fn numbered_snapshot(numbers: std::ops::Range<usize>) -> Snapshot {
        let names = numbered(numbers);
        snapshot(&names.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn names(membership: &Membership) -> Vec<String> {
        let believed = membership.believed();
        believed.members.into_iter().map(|member| member.value.name).collect()
    }

    fn said(names: &[&str], answers: bool) -> Vec<(String, bool)> {
        names.iter().map(|name| ((*name).to_owned(), answers)).collect()
    }

    /// What is gone when these were asked, and asked again, and were silent.
    fn silent_twice(membership: &mut Membership, names: &[&str]) -> Vec<String> {
        let now = Instant::now();
        assert!(membership.asked(said(names, false), now).is_empty());
        membership.asked(said(names, false), now + SILENCE)
    }

    #[test]
    fn a_few_members_that_vanish_are_gone() {
        let mut membership = Membership::new(numbered_snapshot(0..20), None);
        assert!(!membership.answered(numbered_snapshot(3..20)));
        assert_eq!(names(&membership), numbered(3..20), "15 % of 20");
        assert_eq!(membership.doubted().count(), 0);
    }

    #[test]
    fn members_that_vanished_since_a_view_was_kept_are_doubted_from_the_first_answer_on() {
        let few = Membership::new(snapshot(&["a"]), Some(snapshot(&["a", "b", "c"])));
        assert_eq!(names(&few), ["a", "b", "c"]);
        assert_eq!(few.doubted().collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(few.believed().alive("b").unwrap().address(), "h:1");
        let most = Membership::new(numbered_snapshot(3..20), Some(numbered_snapshot(0..20)));
        assert_eq!((names(&most), most.doubted().count()), (numbered(3..20), 0));
    }

    #[test]
    fn many_members_that_vanish_stay_as_they_were_until_they_are_asked() {
        let mut membership = Membership::new(numbered_snapshot(0..20), None);
        assert!(membership.answered(numbered_snapshot(4..20)));
        assert_eq!(membership.believed(), numbered_snapshot(0..20), "20 % of 20, the living too");
        assert_eq!(membership.doubted().collect::<Vec<_>>(), numbered(0..4));
        assert_eq!(silent_twice(&mut membership, &["m01", "m03", "m09"]), ["m01", "m03"]);
        let expected = [vec!["m00".to_owned(), "m02".to_owned()], numbered(4..20)].concat();
        assert_eq!(names(&membership), expected);
        assert!(membership.asked(Vec::new(), Instant::now()).is_empty());
    }

    #[test]
    fn a_member_is_gone_only_when_it_was_silent_for_a_while_without_a_break() {
        let mut membership = Membership::new(snapshot(&["a", "b", "c"]), None);
        membership.answered(snapshot(&["a"]));
        let (start, little) = (Instant::now(), Duration::from_millis(1));
        assert!(membership.asked(said(&["b", "c"], false), start).is_empty());
        // That others are doubted, or it is asked at once again, proves nothing.
        membership.answered(snapshot(&["a"]));
        assert!(membership.asked(said(&["b", "c"], false), start + SILENCE - little).is_empty());
        let mut spoke = said(&["b"], true);
        spoke.extend(said(&["c"], false));
        assert_eq!(membership.asked(spoke, start + SILENCE), ["c"]);
        let again = start + 2 * SILENCE;
        assert!(membership.asked(said(&["b"], false), again).is_empty(), "it has spoken since");
        assert_eq!(membership.asked(said(&["b"], false), again + SILENCE), ["b"]);
        assert_eq!(names(&membership), ["a"]);
    }

    #[test]
    fn those_that_answered_stay_though_fewer_are_missing_now() {
        let mut membership = Membership::new(numbered_snapshot(0..20), None);
        membership.answered(numbered_snapshot(4..20));
        silent_twice(&mut membership, &["m01", "m02", "m03"]);
        assert!(!membership.answered(numbered_snapshot(4..20)), "1 of 17 is missing");
        assert!(names(&membership).contains(&"m00".to_owned()));
        assert_eq!(silent_twice(&mut membership, &["m00"]), ["m00"]);
        assert_eq!(names(&membership), numbered(4..20));
    }

    #[test]
    fn one_of_three_goes_when_it_gives_no_answer() {
        let mut membership = Membership::new(snapshot(&["a", "b", "c"]), None);
        assert!(membership.answered(snapshot(&["a", "c"])));
        assert_eq!(names(&membership), ["a", "b", "c"]);
        assert_eq!(silent_twice(&mut membership, &["b"]), ["b"]);
        assert_eq!(names(&membership), ["a", "c"]);
        assert!(!membership.answered(snapshot(&["a", "c"])), "nobody is missing any more");
    }

    #[test]
    fn a_member_that_comes_back_is_taken_as_it_is_written_then() {
        let mut membership = Membership::new(snapshot(&["a", "b", "c"]), None);
        membership.answered(snapshot(&["a"]));
        let mut back = snapshot(&["a", "b"]);
        back.members[1].value.state = MemberState::Out;
        membership.answered(back);
        let believed = membership.believed();
        assert_eq!(believed.member("b").unwrap().value.state, MemberState::Out);
        assert_eq!(membership.doubted().collect::<Vec<_>>(), ["c"]);
        membership.answered(snapshot(&["a", "b", "c"]));
        assert_eq!(membership.believed(), snapshot(&["a", "b", "c"]));
        assert_eq!(membership.doubted().count(), 0);
    }

    #[test]
    fn new_members_appear_while_others_are_doubted() {
        let mut membership = Membership::new(snapshot(&["a", "b"]), None);
        assert!(membership.answered(snapshot(&["c"])));
        assert_eq!(names(&membership), ["a", "b", "c"]);
        silent_twice(&mut membership, &["a", "b"]);
        assert_eq!(names(&membership), ["c"]);
    }

    #[test]
    fn a_doubted_member_that_lives_elsewhere_now_has_its_new_address() {
        let mut membership = Membership::new(snapshot(&["a", "b"]), None);
        let mut answer = snapshot(&["a"]);
        answer.living.push(Living::at("b", "h:2", Id([2; 16])));
        membership.answered(answer);
        let believed = membership.believed();
        assert_eq!(believed.living.len(), 2);
        assert_eq!(believed.alive("b").unwrap().address(), "h:2");
    }
}

//! The ordered index that List walks: a treap whose nodes are the entries
//! themselves (Seidel and Aragon, "Randomized Search Trees", 1996), so that it
//! takes no memory of its own and nothing is allocated for it.

use std::cmp::Ordering;

use super::entry::{EntryId, NO_ENTRY, Slab};
use super::random::Random;

/// Root of the treap, and the source of priorities.
#[derive(Debug)]
pub(crate) struct KeyOrder {
    root: EntryId,
    random: Random,
}

impl KeyOrder {
    /// An empty index; `seed` keeps its shape from being chosen by clients.
    pub(crate) fn new(seed: u64) -> Self {
        Self { root: NO_ENTRY, random: Random::new(seed) }
    }

    /// Inserts an entry whose key is not in the index.
    pub(crate) fn insert(&mut self, slab: &mut Slab, id: EntryId) {
        let priority = (self.random.draw() >> 32) as u32;
        slab[id].order.priority = priority;
        let mut link = Link::Root;
        let mut node = self.root;
        while node != NO_ENTRY && slab[node].order.priority >= priority {
            link =
                if compare(slab, id, node).is_lt() { Link::Left(node) } else { Link::Right(node) };
            node = self.follow(slab, link);
        }
        let (left, right) = split(slab, node, id);
        (slab[id].order.left, slab[id].order.right) = (left, right);
        self.set(slab, link, id);
    }

    /// Removes an entry that is in the index.
    pub(crate) fn remove(&mut self, slab: &mut Slab, id: EntryId) {
        let mut link = Link::Root;
        let mut node = self.root;
        while node != id {
            assert!(node != NO_ENTRY, "entry {id} is not in the ordered index");
            link =
                if compare(slab, id, node).is_lt() { Link::Left(node) } else { Link::Right(node) };
            node = self.follow(slab, link);
        }
        let merged = merge(slab, slab[id].order.left, slab[id].order.right);
        self.set(slab, link, merged);
        (slab[id].order.left, slab[id].order.right) = (NO_ENTRY, NO_ENTRY);
    }

    /// Walks, in order, over the entries with keys greater than `key`, or equal to
    /// it when `inclusive`. Costs a descent, then one step for each entry.
    pub(crate) fn walk(&self, slab: &Slab, key: &[u8], inclusive: bool) -> Walk {
        let (mut node, mut above) = (self.root, Vec::with_capacity(WALK_DEPTH));
        while node != NO_ENTRY {
            let ordering = slab.key(node).cmp(key);
            if ordering.is_gt() || (inclusive && ordering.is_eq()) {
                above.push(node);
                node = slab[node].order.left;
            } else {
                node = slab[node].order.right;
            }
        }
        Walk { above }
    }

    fn follow(&self, slab: &Slab, link: Link) -> EntryId {
        match link {
            Link::Root => self.root,
            Link::Left(parent) => slab[parent].order.left,
            Link::Right(parent) => slab[parent].order.right,
        }
    }

    fn set(&mut self, slab: &mut Slab, link: Link, id: EntryId) {
        match link {
            Link::Root => self.root = id,
            Link::Left(parent) => slab[parent].order.left = id,
            Link::Right(parent) => slab[parent].order.right = id,
        }
    }
}

/// How deep the tree is expected to be, with room to spare.
const WALK_DEPTH: usize = 64;

/// A walk over the index, in the order of the keys. The index must not change
/// while it lasts.
#[derive(Debug)]
pub(crate) struct Walk {
    /// Nodes whose left side has been walked, the next one last.
    above: Vec<EntryId>,
}

impl Walk {
    /// The next entry.
    pub(crate) fn next(&mut self, slab: &Slab) -> Option<EntryId> {
        let next = self.above.pop()?;
        let mut node = slab[next].order.right;
        while node != NO_ENTRY {
            self.above.push(node);
            node = slab[node].order.left;
        }
        Some(next)
    }
}

/// A place that names a node.
#[derive(Clone, Copy)]
enum Link {
    Root,
    Left(EntryId),
    Right(EntryId),
}

fn compare(slab: &Slab, one: EntryId, other: EntryId) -> Ordering {
    let by_prefix = slab[one].order.prefix.cmp(&slab[other].order.prefix);
    by_prefix.then_with(|| slab.key(one).cmp(slab.key(other)))
}

/// Splits the tree at `node` into what is less than `at` and what is greater.
fn split(slab: &mut Slab, mut node: EntryId, at: EntryId) -> (EntryId, EntryId) {
    let (mut less, mut greater) = (NO_ENTRY, NO_ENTRY);
    let (mut less_end, mut greater_end) = (NO_ENTRY, NO_ENTRY);
    while node != NO_ENTRY {
        if compare(slab, node, at).is_lt() {
            match less_end {
                NO_ENTRY => less = node,
                end => slab[end].order.right = node,
            }
            less_end = node;
            node = slab[node].order.right;
        } else {
            match greater_end {
                NO_ENTRY => greater = node,
                end => slab[end].order.left = node,
            }
            greater_end = node;
            node = slab[node].order.left;
        }
    }
    if less_end != NO_ENTRY {
        slab[less_end].order.right = NO_ENTRY;
    }
    if greater_end != NO_ENTRY {
        slab[greater_end].order.left = NO_ENTRY;
    }
    (less, greater)
}

/// Joins two trees of which all keys of `left` are less than all of `right`.
fn merge(slab: &mut Slab, mut left: EntryId, mut right: EntryId) -> EntryId {
    let (mut root, mut end) = (NO_ENTRY, Link::Root);
    loop {
        let next = match (left, right) {
            (NO_ENTRY, rest) | (rest, NO_ENTRY) => {
                attach(slab, &mut root, end, rest);
                return root;
            }
            _ if slab[left].order.priority >= slab[right].order.priority => left,
            _ => right,
        };
        attach(slab, &mut root, end, next);
        if next == left {
            end = Link::Right(next);
            left = slab[next].order.right;
        } else {
            end = Link::Left(next);
            right = slab[next].order.left;
        }
    }
}

fn attach(slab: &mut Slab, root: &mut EntryId, end: Link, node: EntryId) {
    match end {
        Link::Root => *root = node,
        Link::Left(parent) => slab[parent].order.left = node,
        Link::Right(parent) => slab[parent].order.right = node,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::store::entry::State;
    use crate::testing::Seeded;

    #[test]
    fn random_inserts_and_removes_walk_in_the_order_of_a_sorted_map() {
        let mut random = Seeded::from_environment();
        let mut slab = Slab::new(600);
        let mut order = KeyOrder::new(random.next());
        let mut model: BTreeMap<Vec<u8>, EntryId> = BTreeMap::new();
        for _ in 0..6_000 {
            let length = 1 + random.below(12) as usize;
            let key: Vec<u8> = (0..length).map(|_| random.below(3) as u8).collect();
            if let Some(id) = model.remove(&key) {
                order.remove(&mut slab, id);
                slab.give_back(id);
            } else if let Some(id) = slab.take(&key) {
                slab[id].state = State::Visible;
                order.insert(&mut slab, id);
                model.insert(key.clone(), id);
            }
            let expected = model.range(key.clone()..).next().map(|(_, id)| *id);
            assert_eq!(order.walk(&slab, &key, true).next(&slab), expected);
        }
        for (key, inclusive) in [(&b""[..], false), (b"\x01", true), (b"\x01", false)] {
            let mut walk = order.walk(&slab, key, inclusive);
            let walked: Vec<EntryId> = std::iter::from_fn(|| walk.next(&slab)).collect();
            let is_behind = |other: &[u8]| if inclusive { other >= key } else { other > key };
            let behind = model.iter().filter(|(other, _)| is_behind(other));
            let expected: Vec<EntryId> = behind.map(|(_, id)| *id).collect();
            assert!(walked.len() > 50);
            assert_eq!(walked, expected);
        }
    }
}

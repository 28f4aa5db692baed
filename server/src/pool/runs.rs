//! Which pages of the pool are free, and which belong together.
//!
//! The pool is always partitioned into *runs* of neighbouring pages. Free runs
//! are kept in two-level segregated lists (Masmano et al., "TLSF: a new dynamic
//! memory allocator for real-time systems", 2004): finding, splitting and
//! merging take constant time. What differs from TLSF: the tags lie outside the
//! memory, and when no run is long enough a request is served by several, longest
//! first, so that nothing is refused while enough pages are free.

/// A page of the pool, by number.
pub(crate) type Page = u32;

/// No page: the end of a chain or list.
pub(crate) const NO_PAGE: Page = u32::MAX;

const FREE: u32 = 1 << 31;
/// Each power of two is divided into this many lists.
const STEPS_LOG2: u32 = 3;
const STEPS: usize = 1 << STEPS_LOG2;
const POWERS: usize = 31;
/// Runs of one list that are looked at for a fit before several are taken.
const LIST_LOOKS_MAX: usize = 64;

/// What is known of a page; valid for the first page of a run, `run` also for the last.
#[derive(Clone, Copy, Debug)]
struct PageRecord {
    /// Length of the run in pages, and whether it is free.
    run: u32,
    /// Free: next run of its list. Taken: next run of its chain.
    next: Page,
    /// Free: previous run of its list.
    previous: Page,
    /// Taken: bytes given from the page's begin; the rest reads as zero.
    given: u32,
}

/// The pages of a pool.
#[derive(Debug)]
pub(crate) struct Runs {
    pages: Vec<PageRecord>,
    free_pages: u32,
    powers: u32,
    steps: [u8; POWERS],
    lists: [[Page; STEPS]; POWERS],
}

impl Runs {
    /// Bytes of bookkeeping per page.
    pub(crate) const BYTES_PER_PAGE: u64 = size_of::<PageRecord>() as u64;

    /// A pool of `pages` free pages.
    ///
    /// # Panics
    /// When there are none, or more than a page number can say.
    pub(crate) fn new(pages: u32) -> Self {
        assert!(pages > 0 && pages < FREE, "the options check the pool's size");
        let blank = PageRecord { run: 0, next: NO_PAGE, previous: NO_PAGE, given: 0 };
        let mut runs = Self {
            pages: vec![blank; pages as usize],
            free_pages: 0,
            powers: 0,
            steps: [0; POWERS],
            lists: [[NO_PAGE; STEPS]; POWERS],
        };
        runs.insert_free(0, pages);
        runs.free_pages = pages;
        runs
    }

    pub(crate) fn free_pages(&self) -> u32 {
        self.free_pages
    }

    pub(crate) fn total_pages(&self) -> u32 {
        self.pages.len() as u32
    }

    /// Takes `count` pages and returns the first page of a chain of runs: one
    /// run when any is long enough, else several, longest first. `None` only
    /// when fewer than `count` pages are free. The pages count as never given.
    pub(crate) fn take(&mut self, count: u32) -> Option<Page> {
        if count == 0 || count > self.free_pages {
            return None;
        }
        let chain = match self.find(count) {
            Some(run) => self.take_run(run, count),
            None => self.take_several(count),
        };
        self.free_pages -= count;
        Some(chain)
    }

    /// As [`Runs::take`]; the first page is a multiple of `unit` wherever a run is
    /// free that allows it.
    pub(crate) fn take_aligned(&mut self, count: u32, unit: u32) -> Option<Page> {
        let gap = |run: Page| run.next_multiple_of(unit) - run;
        let fits = |run: &Page| gap(*run) + count <= self.run_pages(*run);
        // A run that is longer by all but one of a unit's pages has such a page.
        let found = self.find(count).filter(fits).or_else(|| self.find(count + unit - 1));
        let Some(run) = found else { return self.take(count) };
        let before = gap(run);
        if before > 0 {
            self.split_free(run, before);
        }
        self.free_pages -= count;
        Some(self.take_run(run + before, count))
    }

    /// Makes two of a free run, of which one is taken from at once.
    fn split_free(&mut self, run: Page, count: u32) {
        let pages = self.run_pages(run);
        self.remove_free(run);
        self.insert_free(run, count);
        self.insert_free(run + count, pages - count);
    }

    fn take_several(&mut self, count: u32) -> Page {
        let (mut first, mut last, mut left) = (NO_PAGE, NO_PAGE, count);
        while left > 0 {
            let longest = self.longest_list_head();
            let pages = self.run_pages(longest).min(left);
            let run = self.take_run(longest, pages);
            if last == NO_PAGE {
                first = run;
            } else {
                self.pages[last as usize].next = run;
            }
            (last, left) = (run, left - pages);
        }
        first
    }

    /// Takes the first `count` pages of a free run.
    fn take_run(&mut self, run: Page, count: u32) -> Page {
        let pages = self.run_pages(run);
        self.remove_free(run);
        if pages > count {
            self.insert_free(run + count, pages - count);
        }
        self.mark_taken(run, count);
        for page in &mut self.pages[run as usize..(run + count) as usize] {
            page.given = 0;
        }
        run
    }

    fn mark_taken(&mut self, run: Page, count: u32) {
        self.pages[(run + count - 1) as usize].run = count;
        let first = &mut self.pages[run as usize];
        first.run = count;
        first.next = NO_PAGE;
    }

    /// Gives back a whole chain. Costs one step per run.
    pub(crate) fn give_back(&mut self, chain: Page) {
        let mut run = chain;
        while run != NO_PAGE {
            let next = self.pages[run as usize].next;
            self.give_back_run(run);
            run = next;
        }
    }

    /// Gives back all but the first `keep` pages of a chain; `keep` is at least 1.
    pub(crate) fn truncate(&mut self, chain: Page, keep: u32) {
        let (mut run, mut left) = (chain, keep);
        while left > self.run_pages(run) {
            left -= self.run_pages(run);
            run = self.pages[run as usize].next;
            if run == NO_PAGE {
                return;
            }
        }
        let (pages, rest) = (self.run_pages(run), self.pages[run as usize].next);
        self.mark_taken(run, left);
        if pages > left {
            self.mark_taken(run + left, pages - left);
            self.give_back_run(run + left);
        }
        if rest != NO_PAGE {
            self.give_back(rest);
        }
    }

    fn give_back_run(&mut self, run: Page) {
        let pages = self.run_pages(run);
        assert!(self.pages[run as usize].run & FREE == 0, "page {run} was given back twice");
        self.free_pages += pages;
        let (mut first, mut end) = (run, run + pages);
        if first > 0 && self.pages[first as usize - 1].run & FREE != 0 {
            let before = self.pages[first as usize - 1].run & !FREE;
            first -= before;
            self.remove_free(first);
        }
        if end < self.total_pages() && self.pages[end as usize].run & FREE != 0 {
            let after = self.run_pages(end);
            self.remove_free(end);
            end += after;
        }
        self.insert_free(first, end - first);
    }

    /// Length of the run that begins at `run`.
    #[inline]
    pub(crate) fn run_pages(&self, run: Page) -> u32 {
        self.pages[run as usize].run & !FREE
    }

    /// The run behind `run` in its chain.
    #[inline]
    pub(crate) fn next_run(&self, run: Page) -> Page {
        self.pages[run as usize].next
    }

    /// Bytes given from the begin of `page`.
    #[inline]
    pub(crate) fn given(&self, page: Page) -> u32 {
        self.pages[page as usize].given
    }

    #[inline]
    pub(crate) fn set_given(&mut self, page: Page, bytes: u32) {
        self.pages[page as usize].given = bytes;
    }

    /// A free run of at least `count` pages, if there is one.
    fn find(&self, count: u32) -> Option<Page> {
        let (power, step) = list_of(count);
        self.find_in_list(power, step, count).or_else(|| {
            let longer_steps = self.steps[power].checked_shr(step as u32 + 1).unwrap_or(0);
            if longer_steps != 0 {
                let step = step + 1 + longer_steps.trailing_zeros() as usize;
                return Some(self.lists[power][step]);
            }
            let longer_powers = self.powers.checked_shr(power as u32 + 1).unwrap_or(0);
            (longer_powers != 0).then(|| {
                let power = power + 1 + longer_powers.trailing_zeros() as usize;
                self.lists[power][self.steps[power].trailing_zeros() as usize]
            })
        })
    }

    fn find_in_list(&self, power: usize, step: usize, count: u32) -> Option<Page> {
        let mut run = self.lists[power][step];
        for _ in 0..LIST_LOOKS_MAX {
            if run == NO_PAGE {
                return None;
            }
            if self.run_pages(run) >= count {
                return Some(run);
            }
            run = self.pages[run as usize].next;
        }
        None
    }

    fn longest_list_head(&self) -> Page {
        assert!(self.powers != 0, "the caller checked that pages are free");
        let power = self.powers.ilog2() as usize;
        self.lists[power][self.steps[power].ilog2() as usize]
    }

    fn insert_free(&mut self, run: Page, pages: u32) {
        let (power, step) = list_of(pages);
        let head = self.lists[power][step];
        self.pages[(run + pages - 1) as usize].run = pages | FREE;
        let first = &mut self.pages[run as usize];
        (first.run, first.next, first.previous) = (pages | FREE, head, NO_PAGE);
        if head != NO_PAGE {
            self.pages[head as usize].previous = run;
        }
        self.lists[power][step] = run;
        self.powers |= 1 << power;
        self.steps[power] |= 1 << step;
    }

    fn remove_free(&mut self, run: Page) {
        let (power, step) = list_of(self.run_pages(run));
        let PageRecord { next, previous, .. } = self.pages[run as usize];
        if next != NO_PAGE {
            self.pages[next as usize].previous = previous;
        }
        if previous != NO_PAGE {
            self.pages[previous as usize].next = next;
            return;
        }
        self.lists[power][step] = next;
        if next == NO_PAGE {
            self.steps[power] &= !(1 << step);
            if self.steps[power] == 0 {
                self.powers &= !(1 << power);
            }
        }
    }

    /// Walks every run and list and asserts that they agree. Costs one step per run.
    #[cfg(any(test, feature = "simulation"))]
    pub(crate) fn check_invariants(&self) {
        let (mut page, mut free, mut free_runs, mut after_free) = (0, 0, 0, false);
        while page < self.total_pages() {
            let (run, is_free) = (self.run_pages(page), self.pages[page as usize].run & FREE != 0);
            assert!(run > 0 && page + run <= self.total_pages(), "run of {run} pages at {page}");
            assert_eq!(self.pages[page as usize].run, self.pages[(page + run - 1) as usize].run);
            assert!(!(is_free && after_free), "neighbouring free runs at {page} are not merged");
            if is_free {
                free += run;
                free_runs += 1;
            }
            (after_free, page) = (is_free, page + run);
        }
        assert_eq!(free, self.free_pages, "free pages");
        let listed: usize = self.lists.iter().flatten().map(|head| self.list_length(*head)).sum();
        assert_eq!(listed, free_runs, "free runs in lists");
    }

    #[cfg(any(test, feature = "simulation"))]
    fn list_length(&self, head: Page) -> usize {
        let listed = |page: Page| (page != NO_PAGE).then_some(page);
        let next = |page: &Page| listed(self.pages[*page as usize].next);
        std::iter::successors(listed(head), next).count()
    }
}

/// The list for runs of `pages`: power of two, and step within it.
fn list_of(pages: u32) -> (usize, usize) {
    let power = pages.ilog2();
    let step = match power.checked_sub(STEPS_LOG2) {
        Some(shift) => (pages >> shift) as usize & (STEPS - 1),
        None => (pages << (STEPS_LOG2 - power)) as usize & (STEPS - 1),
    };
    (power as usize, step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Seeded;

    fn chain_pages(runs: &Runs, chain: Page) -> Vec<Page> {
        let mut pages = Vec::new();
        let mut run = chain;
        while run != NO_PAGE {
            pages.extend(run..run + runs.run_pages(run));
            run = runs.next_run(run);
        }
        pages
    }

    #[test]
    fn one_run_is_taken_when_one_is_long_enough() {
        let mut runs = Runs::new(100);
        let first = runs.take(40).unwrap();
        let second = runs.take(60).unwrap();
        assert_eq!(runs.next_run(first), NO_PAGE);
        assert_eq!(runs.next_run(second), NO_PAGE);
        assert_eq!(runs.take(1), None);
    }

    #[test]
    fn aligned_runs_begin_at_whole_units_where_that_is_possible() {
        let mut runs = Runs::new(100);
        let head = runs.take(1).unwrap();
        let first = runs.take_aligned(64, 32).unwrap();
        assert_eq!((head, first), (0, 32));
        runs.check_invariants();
        // The gap is used by what needs no alignment, and nothing is lost.
        assert_eq!(runs.take(31), Some(1));
        let last = runs.take_aligned(4, 32).unwrap();
        assert_eq!((last, runs.free_pages()), (96, 0));
        runs.give_back(first);
        let again = runs.take_aligned(32, 32).unwrap();
        assert_eq!(again, 32);
        runs.give_back(head);
        assert_eq!(
            runs.take_aligned(33, 32).map(|chain| chain_pages(&runs, chain).len()),
            Some(33)
        );
        runs.check_invariants();
        assert_eq!(runs.take_aligned(1, 32), None);
    }

    #[test]
    fn the_last_page_is_used_however_scattered_the_free_ones_are() {
        let mut runs = Runs::new(64);
        let singles: Vec<Page> = (0..64).map(|_| runs.take(1).unwrap()).collect();
        for page in singles.iter().step_by(2) {
            runs.give_back(*page);
        }
        let chain = runs.take(32).unwrap();
        assert_eq!(chain_pages(&runs, chain).len(), 32);
        assert_eq!(runs.free_pages(), 0);
        runs.give_back(chain);
        assert_eq!(runs.free_pages(), 32);
        runs.check_invariants();
    }

    #[test]
    fn a_truncated_chain_keeps_its_first_pages() {
        let mut runs = Runs::new(16);
        let singles: Vec<Page> = (0..16).map(|_| runs.take(1).unwrap()).collect();
        singles.iter().filter(|page| **page % 4 != 3).for_each(|page| runs.give_back(*page));
        let chain = runs.take(10).unwrap();
        let before = chain_pages(&runs, chain);
        for keep in [8, 7, 3, 1] {
            runs.truncate(chain, keep);
            assert_eq!(chain_pages(&runs, chain), before[..keep as usize]);
            runs.check_invariants();
        }
    }

    #[test]
    fn random_taking_and_giving_back_agrees_with_a_naive_model() {
        let mut random = Seeded::from_environment();
        for round in 0..40 {
            let total = 1 + random.below(700) as u32;
            let mut runs = Runs::new(total);
            let mut owner: Vec<Option<usize>> = vec![None; total as usize];
            let mut chains: Vec<(usize, Page, u32)> = Vec::new();
            for step in 0..400 {
                let free = owner.iter().filter(|owner| owner.is_none()).count() as u32;
                assert_eq!(runs.free_pages(), free);
                if random.below(2) == 0 {
                    let count = 1 + random.below(u64::from(total).div_ceil(4)) as u32;
                    let taken = match random.below(2) {
                        0 => runs.take(count),
                        _ => runs.take_aligned(count, 8),
                    };
                    assert_eq!(taken.is_some(), count <= free, "round {round} step {step}");
                    let Some(chain) = taken else { continue };
                    let pages = chain_pages(&runs, chain);
                    assert_eq!(pages.len(), count as usize);
                    for page in pages {
                        assert_eq!(owner[page as usize].replace(step), None, "page taken twice");
                    }
                    chains.push((step, chain, count));
                } else if !chains.is_empty() {
                    let index = random.below(chains.len() as u64) as usize;
                    let (id, chain, count) = chains.swap_remove(index);
                    let keep = random.below(u64::from(count) + 1) as u32;
                    let pages = chain_pages(&runs, chain);
                    if keep == 0 {
                        runs.give_back(chain);
                    } else {
                        runs.truncate(chain, keep);
                        chains.push((id, chain, keep));
                    }
                    for page in &pages[keep as usize..] {
                        assert_eq!(owner[*page as usize].take(), Some(id));
                    }
                }
            }
            runs.check_invariants();
            chains.drain(..).for_each(|(_, chain, _)| runs.give_back(chain));
            assert_eq!(runs.take(total).map(|chain| runs.next_run(chain)), Some(NO_PAGE));
        }
    }
}

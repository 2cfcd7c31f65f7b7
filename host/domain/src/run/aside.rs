//! Steps that wait for the handler to make their calls (again).

use std::collections::{BTreeMap, HashMap};

use crate::{StepKey, run::Step};

/// Kept from an earlier run, or set aside by a retry, in the order in which they were called the
/// first time. Finding and taking one costs the same however many there are: a rerun may keep ten
/// thousand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aside {
    steps: BTreeMap<u32, Step>,
    places: HashMap<StepKey, u32>,
}

impl Aside {
    pub fn get(&self, key: &StepKey) -> Option<&Step> {
        self.steps.get(self.places.get(key)?)
    }

    pub fn iter(&self) -> Iter<'_> {
        self.steps.values()
    }

    pub fn len(&self) -> usize {
        self.steps.len()
    }

    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    pub(super) fn get_mut(&mut self, key: &StepKey) -> Option<&mut Step> {
        self.steps.get_mut(self.places.get(key)?)
    }

    /// Behind all others; in place of one with the same key.
    pub(super) fn push(&mut self, step: Step) {
        self.take(&step.key);
        let place = self.steps.last_key_value().map_or(0, |(last, _)| last + 1);
        self.places.insert(step.key.clone(), place);
        self.steps.insert(place, step);
    }

    pub(super) fn take(&mut self, key: &StepKey) -> Option<Step> {
        self.steps.remove(&self.places.remove(key)?)
    }

    /// Puts `earlier` before all that is here.
    pub(super) fn put_before(&mut self, earlier: impl IntoIterator<Item = Step>) {
        let later = std::mem::take(self);
        for step in earlier.into_iter().chain(later.steps.into_values()) {
            self.push(step);
        }
    }
}

/// What is left, in its order.
pub type Iter<'a> = std::collections::btree_map::Values<'a, u32, Step>;

impl<'a> IntoIterator for &'a Aside {
    type Item = &'a Step;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

//! One leg of a run: the handler called from the top, counting its calls.

use std::collections::HashMap;

use crate::{StepKey, StepName};

/// Where in its run a call stands: which call of the handler it is, and under which key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// 0 for the first durable call.
    pub index: u32,
    pub key: StepKey,
}

/// The calls that the handler has made since it was entered: one leg of the run. Gives each
/// its place, so that the first call always meets the first record.
#[derive(Debug, Default)]
pub struct Leg {
    calls_made: u32,
    names: HashMap<StepName, u32>,
}

impl Leg {
    /// The place of the next call, made under `name`.
    pub fn place(&mut self, name: StepName) -> Place {
        let nth = self.names.entry(name.clone()).or_insert(0);
        *nth += 1;
        let place = Place { index: self.calls_made, key: StepKey::new(&name, *nth) };
        self.calls_made += 1;
        place
    }

    /// Takes back the last place, made under `name`: the call was refused. It leaves nothing in
    /// the journal, so the next call meets the record that this one would have met.
    pub fn give_back(&mut self, name: &StepName) {
        self.calls_made -= 1;
        if let Some(nth) = self.names.get_mut(name) {
            *nth -= 1;
        }
    }

    pub fn calls_made(&self) -> u32 {
        self.calls_made
    }
}

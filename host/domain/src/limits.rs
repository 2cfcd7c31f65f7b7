//! What a guest may take: every limit by name, with its unit, its default and its reason.
//!
//! Three layers make the value that holds: the defaults below (or the host's own), what an admin
//! has set for the task, and the host's ceiling, which no setting passes.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// Something that a guest takes of the host, or of its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Limit {
    MemoryMaxBytes,
    TableMaxElements,
    HandlerCpuMaxMs,
    HandlerWallMaxMs,
    AttemptCpuMaxMs,
    AttemptWallMaxMs,
    ValueMaxBytes,
    OutputMaxBytes,
    StepsMax,
    HostCallsPerSecondMax,
    LiveMax,
    ParkedMax,
    RequestsMax,
    ConnectionsMax,
    RequestMaxMs,
    RequestBodyMaxBytes,
    ResponseBodyMaxBytes,
}

impl Limit {
    pub const ALL: [Limit; 17] = [
        Limit::MemoryMaxBytes,
        Limit::TableMaxElements,
        Limit::HandlerCpuMaxMs,
        Limit::HandlerWallMaxMs,
        Limit::AttemptCpuMaxMs,
        Limit::AttemptWallMaxMs,
        Limit::ValueMaxBytes,
        Limit::OutputMaxBytes,
        Limit::StepsMax,
        Limit::HostCallsPerSecondMax,
        Limit::LiveMax,
        Limit::ParkedMax,
        Limit::RequestsMax,
        Limit::ConnectionsMax,
        Limit::RequestMaxMs,
        Limit::RequestBodyMaxBytes,
        Limit::ResponseBodyMaxBytes,
    ];

    /// The word in the API, on disk and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Limit::MemoryMaxBytes => "memoryMaxBytes",
            Limit::TableMaxElements => "tableMaxElements",
            Limit::HandlerCpuMaxMs => "handlerCpuMaxMs",
            Limit::HandlerWallMaxMs => "handlerWallMaxMs",
            Limit::AttemptCpuMaxMs => "attemptCpuMaxMs",
            Limit::AttemptWallMaxMs => "attemptWallMaxMs",
            Limit::ValueMaxBytes => "valueMaxBytes",
            Limit::OutputMaxBytes => "outputMaxBytes",
            Limit::StepsMax => "stepsMax",
            Limit::HostCallsPerSecondMax => "hostCallsPerSecondMax",
            Limit::LiveMax => "liveMax",
            Limit::ParkedMax => "parkedMax",
            Limit::RequestsMax => "requestsMax",
            Limit::ConnectionsMax => "connectionsMax",
            Limit::RequestMaxMs => "requestMaxMs",
            Limit::RequestBodyMaxBytes => "requestBodyMaxBytes",
            Limit::ResponseBodyMaxBytes => "responseBodyMaxBytes",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Limit::ALL.into_iter().find(|limit| limit.as_str() == text)
    }

    /// What it bounds, in a line for people.
    pub fn meaning(self) -> &'static str {
        match self {
            Limit::MemoryMaxBytes => "all linear memories of an instance together",
            Limit::TableMaxElements => "all tables of an instance together, in elements of 8 bytes",
            Limit::HandlerCpuMaxMs => "CPU time of one leg of the handler",
            Limit::HandlerWallMaxMs => {
                "time by the clock of one leg of the handler, without what it waits for in calls of the host"
            }
            Limit::AttemptCpuMaxMs => "CPU time of one attempt of a step",
            Limit::AttemptWallMaxMs => "time by the clock of one attempt of a step, whatever its own timeout",
            Limit::ValueMaxBytes => "one JSON value that crosses: a payload, an input, a result",
            Limit::OutputMaxBytes => {
                "log output of one leg of the handler, or of one attempt; the rest is dropped"
            }
            Limit::StepsMax => "durable calls that a run may record",
            Limit::HostCallsPerSecondMax => "calls of the host by one instance in a second",
            Limit::LiveMax => "runs of the task that hold an instance at the same time; others queue",
            Limit::ParkedMax => "of these, how many may stand still with their instance",
            Limit::RequestsMax => "outgoing requests of one attempt",
            Limit::ConnectionsMax => "outgoing connections that one attempt holds at the same time",
            Limit::RequestMaxMs => "time by the clock of one outgoing request, its answer's body included",
            Limit::RequestBodyMaxBytes => "body of one outgoing request",
            Limit::ResponseBodyMaxBytes => "body of the answer to one outgoing request",
        }
    }

    /// What holds where nobody has set anything.
    pub fn default_value(self) -> u64 {
        match self {
            // A Rust guest has 1 MiB, a Python guest some 15 MiB.
            Limit::MemoryMaxBytes => 256 << 20,
            // JavaScript needs 7,895.
            Limit::TableMaxElements => 40_000,
            // It orchestrates; the work belongs into steps.
            Limit::HandlerCpuMaxMs => 10_000,
            Limit::HandlerWallMaxMs => 120_000,
            Limit::AttemptCpuMaxMs => 60_000,
            Limit::AttemptWallMaxMs => 15 * 60_000,
            Limit::ValueMaxBytes => 1 << 20,
            Limit::OutputMaxBytes => 256 << 10,
            // A detail page folds them all.
            Limit::StepsMax => 50_000,
            // An honest guest that reads a body in pieces makes some ten thousand.
            Limit::HostCallsPerSecondMax => 200_000,
            // As many as the host has, unless an admin wants less.
            Limit::LiveMax | Limit::ParkedMax => 100_000,
            Limit::RequestsMax => 1_000,
            Limit::ConnectionsMax => 16,
            Limit::RequestMaxMs => 60_000,
            Limit::RequestBodyMaxBytes => 8 << 20,
            Limit::ResponseBodyMaxBytes => 8 << 20,
        }
    }

    /// What no task may be set above where the host does not say otherwise: room for the few that
    /// need more, and none for one that would take it all.
    pub fn default_ceiling(self) -> u64 {
        match self {
            Limit::MemoryMaxBytes => 1 << 30,
            Limit::TableMaxElements => 40_000,
            Limit::HandlerCpuMaxMs | Limit::HandlerWallMaxMs => 10 * 60_000,
            Limit::AttemptCpuMaxMs => 60 * 60_000,
            Limit::AttemptWallMaxMs => 24 * 60 * 60_000,
            Limit::ValueMaxBytes => 16 << 20,
            Limit::OutputMaxBytes => 4 << 20,
            Limit::StepsMax => 200_000,
            Limit::HostCallsPerSecondMax => 5_000_000,
            Limit::LiveMax | Limit::ParkedMax => 100_000,
            Limit::RequestsMax => 100_000,
            Limit::ConnectionsMax => 256,
            Limit::RequestMaxMs => 60 * 60_000,
            Limit::RequestBodyMaxBytes | Limit::ResponseBodyMaxBytes => 256 << 20,
        }
    }

    /// Below this no guest could do anything.
    pub fn least(self) -> u64 {
        match self {
            Limit::MemoryMaxBytes => 1 << 20,
            Limit::TableMaxElements | Limit::HostCallsPerSecondMax => 100,
            Limit::ValueMaxBytes => 1 << 10,
            Limit::OutputMaxBytes | Limit::ParkedMax | Limit::RequestsMax => 0,
            Limit::RequestBodyMaxBytes | Limit::ResponseBodyMaxBytes => 0,
            Limit::HandlerCpuMaxMs
            | Limit::HandlerWallMaxMs
            | Limit::AttemptCpuMaxMs
            | Limit::AttemptWallMaxMs
            | Limit::RequestMaxMs => 10,
            Limit::StepsMax | Limit::LiveMax | Limit::ConnectionsMax => 1,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What somebody has set: some of the limits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LimitSettings(BTreeMap<Limit, u64>);

impl LimitSettings {
    pub fn set(&mut self, limit: Limit, value: u64) {
        self.0.insert(limit, value);
    }

    pub fn get(&self, limit: Limit) -> Option<u64> {
        self.0.get(&limit).copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = (Limit, u64)> {
        self.0.iter().map(|(limit, value)| (*limit, *value))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a task may be set up so on a host with these ceilings.
    pub fn check(&self, ceilings: &Limits) -> Result<(), LimitError> {
        for (limit, value) in self.iter() {
            let (least, ceiling) = (limit.least(), ceilings.get(limit));
            if value < least {
                return Err(LimitError::TooLittle { limit, value, least });
            }
            if value > ceiling {
                return Err(LimitError::AboveCeiling { limit, value, ceiling });
            }
        }
        Ok(())
    }
}

impl FromIterator<(Limit, u64)> for LimitSettings {
    fn from_iter<I: IntoIterator<Item = (Limit, u64)>>(settings: I) -> Self {
        LimitSettings(settings.into_iter().collect())
    }
}

/// Why a limit cannot be set so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    #[error("{limit} must be at least {least}, this is {value}")]
    TooLittle { limit: Limit, value: u64, least: u64 },
    #[error(
        "{limit} may be {ceiling} at most on this host, this is {value}; the host's ceiling is raised with --ceiling {limit}={value}"
    )]
    AboveCeiling { limit: Limit, value: u64, ceiling: u64 },
}

/// A value for every limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits([u64; Limit::ALL.len()]);

impl Default for Limits {
    fn default() -> Self {
        Limits(Limit::ALL.map(Limit::default_value))
    }
}

impl Limits {
    /// What no task may be set above, unless the host says otherwise.
    pub fn ceilings() -> Self {
        Limits(Limit::ALL.map(Limit::default_ceiling))
    }

    pub fn get(&self, limit: Limit) -> u64 {
        self.0[limit as usize]
    }

    /// These, but for what `settings` has.
    pub fn with(&self, settings: &LimitSettings) -> Limits {
        let mut limits = self.clone();
        for (limit, value) in settings.iter() {
            limits.0[limit as usize] = value;
        }
        limits
    }

    /// These, none of them above `ceilings`.
    pub fn capped(&self, ceilings: &Limits) -> Limits {
        let mut limits = self.clone();
        for (value, ceiling) in limits.0.iter_mut().zip(ceilings.0) {
            *value = (*value).min(ceiling);
        }
        limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_has_one_name_and_its_own_place() {
        for (place, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, place);
            assert_eq!(Limit::parse(limit.as_str()), Some(limit));
            assert_eq!(serde_json::to_value(limit).unwrap(), limit.as_str());
            assert!(limit.least() <= limit.default_value());
            assert!(limit.default_value() <= limit.default_ceiling());
        }
        assert_eq!(Limit::parse("memory"), None);
    }

    #[test]
    fn a_setting_wins_over_the_default_and_no_setting_passes_the_ceiling() {
        let mut settings = LimitSettings::default();
        settings.set(Limit::StepsMax, 10);
        settings.set(Limit::ValueMaxBytes, u64::MAX);
        let limits = Limits::default().with(&settings).capped(&Limits::default());
        assert_eq!(limits.get(Limit::StepsMax), 10);
        assert_eq!(limits.get(Limit::ValueMaxBytes), 1 << 20);
        assert_eq!(
            settings.check(&Limits::default()),
            Err(LimitError::AboveCeiling { limit: Limit::ValueMaxBytes, value: u64::MAX, ceiling: 1 << 20 })
        );
        settings.set(Limit::ValueMaxBytes, 3);
        assert!(matches!(settings.check(&Limits::default()), Err(LimitError::TooLittle { .. })));
    }
}

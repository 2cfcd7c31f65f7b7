//! Which event answers which wait: once, in the order in which they came.

use std::collections::VecDeque;

use crate::{EventName, Json, Timestamp};

/// Something sent to an execution from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The order of arrival over all events of the store.
    pub seq: i64,
    pub name: EventName,
    pub payload: Json,
    pub received_at: Timestamp,
}

/// The events of an execution that nobody has consumed yet, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mailbox {
    events: VecDeque<Event>,
    /// The newest event ever put in, so that looking again brings each only once.
    seen: i64,
}

impl Mailbox {
    /// Puts in what has come since [`Mailbox::seen`]; what is older is passed over, so the same
    /// event never comes in twice.
    pub fn receive(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            if event.seq > self.seen {
                self.seen = event.seq;
                self.events.push_back(event);
            }
        }
    }

    /// The order number of the newest event that was put in; 0 before the first.
    pub fn seen(&self) -> i64 {
        self.seen
    }

    /// The oldest event of that name which came no later than `deadline`.
    pub fn first(&self, name: &EventName, deadline: Option<Timestamp>) -> Option<&Event> {
        let first = self.events.iter().find(|event| event.name == *name)?;
        deadline.is_none_or(|deadline| first.received_at <= deadline).then_some(first)
    }

    /// Takes the event out; called when its consumption is recorded.
    pub fn remove(&mut self, seq: i64) {
        self.events.retain(|event| event.seq != seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: i64, name: &str, at: i64) -> Event {
        Event {
            seq,
            name: EventName::parse(name).unwrap(),
            payload: Json::null(),
            received_at: Timestamp::from_ms(at),
        }
    }

    #[test]
    fn the_oldest_of_a_name_comes_first_and_each_once() {
        let a = EventName::parse("a").unwrap();
        let mut mailbox = Mailbox::default();
        mailbox.receive([event(1, "b", 0), event(2, "a", 0), event(5, "a", 0)]);
        mailbox.receive([event(2, "a", 0), event(5, "a", 0)]);
        for seq in [2, 5] {
            assert_eq!(mailbox.first(&a, None).unwrap().seq, seq);
            mailbox.remove(seq);
        }
        assert_eq!(mailbox.first(&a, None), None);
    }

    #[test]
    fn an_event_after_the_deadline_is_too_late_and_stays() {
        let a = EventName::parse("a").unwrap();
        let mut mailbox = Mailbox::default();
        mailbox.receive([event(1, "a", 100)]);
        assert_eq!(mailbox.first(&a, Some(Timestamp::from_ms(99))), None);
        assert!(mailbox.first(&a, Some(Timestamp::from_ms(100))).is_some());
        assert!(mailbox.first(&a, None).is_some());
    }
}

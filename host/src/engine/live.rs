//! Which runs are being driven by this process, and how to reach them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use stepbox_domain::event::{Event, Mailbox};
use tokio::sync::Notify;

use super::{ahead::OnItsWay, ready::Ready};
use crate::store::{Claim, Epoch, RunKey};

/// The outside end of a run that is being driven here.
pub(crate) struct LiveHandle {
    /// What has come since the run last looked.
    news: Mutex<News>,
    knock: Notify,
    /// Claims with a lower epoch are void: the run was cancelled, or seized for a repair. By epoch
    /// and not by yes or no, since who is about to claim may get the run only after the repair.
    void_below: AtomicI64,
    interrupt: Notify,
    /// The run was ready to go while it was being driven, so it is to be looked at again.
    go_again: AtomicBool,
}

/// So many events are kept for a run that has not looked yet.
const ARRIVED_MAX: usize = 8;
/// And none with a larger payload.
const ARRIVED_MAX_BYTES: usize = 4 << 10;

/// What a run that looks for events finds.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// There may be more than these: the store has to be asked.
    pub untold: bool,
    pub arrived: Vec<Arrived>,
    /// Of those that are on their way to the disk: told when they are there.
    pub unwritten: Vec<OnItsWay>,
}

/// An event that is stored or about to be, and the number of the unconsumed one before it (0 for none).
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub event: Event,
    pub after: i64,
}

impl News {
    /// Kept here where that is little: a run that looks for no event must not fill the memory.
    fn add(&mut self, arrived: Arrived, unwritten: Option<OnItsWay>) {
        let is_little =
            self.arrived.len() < ARRIVED_MAX && arrived.event.payload.as_str().len() <= ARRIVED_MAX_BYTES;
        if is_little && !self.untold {
            self.arrived.push(arrived);
            self.unwritten.extend(unwritten);
        } else {
            *self = News { untold: true, ..News::default() };
        }
    }

    fn is_some(&self) -> bool {
        self.untold || !self.arrived.is_empty()
    }

    /// Puts into `mailbox` what follows closely on what it has, in the order of arrival. False: some
    /// are missing, or may be.
    pub fn put_into(mut self, mailbox: &mut Mailbox) -> bool {
        self.arrived.sort_by_key(|arrived| arrived.event.seq);
        for Arrived { event, after } in self.arrived {
            if after > mailbox.seen() {
                return false;
            }
            mailbox.receive([event]);
        }
        !self.untold
    }
}

impl LiveHandle {
    fn new() -> Arc<Self> {
        Arc::new(LiveHandle {
            // Some may have come before the handle could be found.
            news: Mutex::new(News { untold: true, ..News::default() }),
            knock: Notify::new(),
            void_below: AtomicI64::new(i64::MIN),
            interrupt: Notify::new(),
            go_again: AtomicBool::new(false),
        })
    }

    /// What has come since the last call.
    pub fn take_news(&self) -> News {
        std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All that came until now will be read with the claim that follows.
    pub fn before_claim(&self) {
        self.take_news();
    }

    /// Comes back when there may be news.
    pub async fn knocked(&self) {
        self.knock.notified().await;
    }

    fn interrupt_before(&self, epoch: Epoch) {
        self.void_below.fetch_max(epoch.0, Ordering::AcqRel);
        self.interrupt.notify_one();
    }

    /// Comes back when `claim` has become void: the run was cancelled or seized since.
    pub async fn interrupted(&self, claim: Claim) {
        while self.void_below.load(Ordering::Acquire) <= claim.epoch.0 {
            self.interrupt.notified().await;
        }
    }
}

#[derive(Default)]
pub(crate) struct LiveRuns {
    runs: Mutex<Runs>,
    left: Notify,
}

#[derive(Default)]
struct Runs {
    live: HashMap<RunKey, Arc<LiveHandle>>,
    /// How many claims are on their way that come with an event: each holds a run before it can enter it
    /// here.
    claiming: usize,
    /// Interrupts of runs that were not here meanwhile, for the one that is meant.
    missed: HashMap<RunKey, Epoch>,
}

/// A claim that is on its way; from then on no interrupt of its run is missed.
pub(crate) struct Claiming<'a>(&'a LiveRuns);

impl Drop for Claiming<'_> {
    fn drop(&mut self) {
        let mut runs = self.0.runs();
        runs.claiming -= 1;
        if runs.claiming == 0 {
            runs.missed.clear();
        }
    }
}

impl LiveRuns {
    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called before a run is claimed together with an event, and kept until it has entered.
    pub fn claiming(&self) -> Claiming<'_> {
        self.runs().claiming += 1;
        Claiming(self)
    }

    /// None when the run is being driven already. Then it becomes ready once more when it is left:
    /// who drives it may do so by a claim that a repair has made void, and not go on.
    pub fn enter(&self, run: RunKey) -> Option<Arc<LiveHandle>> {
        let mut runs = self.runs();
        if let Some(handle) = runs.live.get(&run) {
            handle.go_again.store(true, Ordering::Release);
            return None;
        }
        let handle = LiveHandle::new();
        if let Some(epoch) = runs.missed.remove(&run) {
            handle.interrupt_before(epoch);
        }
        runs.live.insert(run, handle.clone());
        Some(handle)
    }

    /// The run is no longer driven here. One that stands at an event and has news that it has not
    /// looked at goes straight back to `ready`: between the two nobody could have told it. So does
    /// one that became ready meanwhile.
    pub fn leave(&self, run: RunKey, stands_at_event: bool, ready: &Ready) {
        let mut runs = self.runs();
        if let Some(handle) = runs.live.remove(&run)
            && (handle.go_again.load(Ordering::Acquire) || stands_at_event && handle.take_news().is_some())
        {
            ready.push(run);
        }
        drop(runs);
        self.left.notify_waiters();
    }

    /// Tells the run that an event has come, or is about to: then `unwritten` tells when it is on disk,
    /// and the run is to be told of it again. False: it is not driven here.
    pub fn knock(&self, run: RunKey, arrived: Arrived, unwritten: Option<OnItsWay>) -> bool {
        let runs = self.runs();
        let Some(handle) = runs.live.get(&run) else { return false };
        handle.news.lock().unwrap_or_else(PoisonError::into_inner).add(arrived, unwritten);
        handle.knock.notify_one();
        true
    }

    /// Interrupts the run, whatever it is doing, if it is driven by a claim before `epoch`.
    pub fn interrupt_before(&self, run: RunKey, epoch: Epoch) {
        let mut runs = self.runs();
        if let Some(handle) = runs.live.get(&run) {
            handle.interrupt_before(epoch);
        } else if runs.claiming > 0 {
            let missed = runs.missed.entry(run).or_insert(epoch);
            *missed = epoch.max(*missed);
        }
    }

    /// Interrupts the run, which is over.
    pub fn interrupt(&self, run: RunKey) {
        self.interrupt_before(run, Epoch(i64::MAX));
    }

    pub fn len(&self) -> usize {
        self.runs().live.len()
    }

    /// Comes back when no run is driven here.
    pub async fn empty(&self) {
        loop {
            let mut left = std::pin::pin!(self.left.notified());
            left.as_mut().enable();
            if self.len() == 0 {
                return;
            }
            left.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use stepbox_domain::{EventName, Json, Timestamp};

    use super::*;
    use crate::engine::ahead::on_its_way;

    const RUN: RunKey = RunKey(1);

    fn claim(epoch: i64) -> Claim {
        Claim { run: RUN, epoch: Epoch(epoch) }
    }

    fn arrived(seq: i64, after: i64) -> Arrived {
        let name = EventName::parse("go").unwrap();
        let event = Event { seq, name, payload: Json::null(), received_at: Timestamp::from_ms(seq) };
        Arrived { event, after }
    }

    fn mailbox_with(seen: i64) -> Mailbox {
        let mut mailbox = Mailbox::default();
        mailbox.receive([arrived(seen, 0).event]);
        mailbox
    }

    fn news(all: &[(i64, i64)]) -> News {
        let mut news = News::default();
        all.iter().for_each(|(seq, after)| news.add(arrived(*seq, *after), None));
        news
    }

    #[test]
    fn events_that_follow_on_what_is_known_need_no_look() {
        let mut mailbox = mailbox_with(3);
        assert!(news(&[(9, 5), (5, 3)]).put_into(&mut mailbox), "told out of order");
        assert_eq!(mailbox.seen(), 9);
        assert!(news(&[(5, 3), (9, 5)]).put_into(&mut mailbox), "told twice");
        assert!(news(&[(12, 0)]).put_into(&mut mailbox), "all before it are consumed");
        assert!(news(&[]).put_into(&mut mailbox));
        assert_eq!(mailbox.seen(), 12);
    }

    #[test]
    fn where_one_is_missing_the_store_is_asked() {
        let mut mailbox = mailbox_with(3);
        assert!(!news(&[(9, 7), (5, 3)]).put_into(&mut mailbox));
        assert_eq!(mailbox.seen(), 5, "what lies before the gap is in");
        assert!(!News { untold: true, ..News::default() }.put_into(&mut mailbox));
    }

    #[test]
    fn what_is_kept_for_a_run_that_does_not_look_is_bounded() {
        let many: Vec<(i64, i64)> = (1..=1_000).map(|seq| (seq, seq - 1)).collect();
        let is_empty = |news: News| news.untold && news.arrived.is_empty() && news.unwritten.is_empty();
        assert!(is_empty(news(&many)));
        let mut large = arrived(1, 0);
        large.event.payload = Json::from(serde_json::json!("x".repeat(ARRIVED_MAX_BYTES)));
        let mut news = News::default();
        let (_answer, unwritten) = on_its_way();
        news.add(large, Some(unwritten));
        assert!(is_empty(news));
    }

    #[test]
    fn a_run_that_becomes_ready_while_it_is_driven_is_looked_at_again_afterwards() {
        let (live, ready) = (LiveRuns::default(), Ready::default());
        assert!(live.enter(RUN).is_some());
        assert!(live.enter(RUN).is_none());
        assert_eq!(ready.len(), 0);
        live.leave(RUN, false, &ready);
        assert_eq!(ready.len(), 1, "the wake-up is not lost");

        assert!(live.enter(RUN).is_some());
        live.leave(RUN, false, &ready);
        assert_eq!(ready.len(), 1, "and nobody asked again");
    }

    #[test]
    fn a_run_that_is_cancelled_before_its_claim_could_enter_it_is_interrupted_all_the_same() {
        let live = LiveRuns::default();
        let claiming = live.claiming();
        live.interrupt(RUN);
        let handle = live.enter(RUN).unwrap();
        assert!(handle.interrupted(claim(1)).now_or_never().is_some());
        live.interrupt(RunKey(2));
        drop(claiming);
        assert!(live.runs().missed.is_empty(), "nothing is kept for runs that nobody claims");
        live.interrupt(RunKey(3));
        assert!(live.runs().missed.is_empty());
    }

    #[test]
    fn a_repair_interrupts_the_claims_before_it_and_not_the_one_after() {
        let live = LiveRuns::default();
        let handle = live.enter(RUN).unwrap();
        assert!(handle.interrupted(claim(3)).now_or_never().is_none());
        live.interrupt_before(RUN, Epoch(4));
        assert!(handle.interrupted(claim(3)).now_or_never().is_some());
        assert!(handle.interrupted(claim(5)).now_or_never().is_none());
        live.interrupt(RUN);
        assert!(handle.interrupted(claim(5)).now_or_never().is_some());
    }
}

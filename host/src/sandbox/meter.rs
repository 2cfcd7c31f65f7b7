//! What an attempt takes, noted as it is taken.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use stepbox_domain::receipt::{REQUESTS_LISTED_MAX, Receipt, Request};
use tokio::time::Instant;

/// The running bill of one attempt. Outlives the instance, so that an attempt which is dropped
/// half-way has a receipt too.
#[derive(Debug)]
pub struct Meter {
    begun: Mutex<Instant>,
    cpu_us: AtomicU64,
    memory_peak_bytes: AtomicU64,
    host_calls: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    requests: Mutex<Requests>,
}

#[derive(Debug, Default)]
struct Requests {
    /// Of which attempt they are.
    attempt: u64,
    listed: Vec<Request>,
    unlisted: u32,
}

/// Where a request is listed: what is still heard of it when the next attempt has begun is of no
/// interest any more.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestPlace {
    attempt: u64,
    /// None when the list was full.
    at: Option<usize>,
}

impl Default for Meter {
    fn default() -> Self {
        Meter {
            begun: Mutex::new(Instant::now()),
            cpu_us: AtomicU64::new(0),
            memory_peak_bytes: AtomicU64::new(0),
            host_calls: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            requests: Mutex::default(),
        }
    }
}

impl Meter {
    /// An attempt begins: everything counts from nothing.
    pub fn begin(&self) {
        *lock(&self.begun) = Instant::now();
        for count in
            [&self.cpu_us, &self.memory_peak_bytes, &self.host_calls, &self.bytes_in, &self.bytes_out]
        {
            count.store(0, Relaxed);
        }
        let mut requests = lock(&self.requests);
        *requests = Requests { attempt: requests.attempt + 1, ..Requests::default() };
    }

    /// What the attempt has taken up to now.
    pub fn receipt(&self) -> Receipt {
        let requests = lock(&self.requests);
        Receipt {
            cpu_us: self.cpu_us.load(Relaxed),
            wall_us: u64::try_from(lock(&self.begun).elapsed().as_micros()).unwrap_or(u64::MAX),
            memory_peak_bytes: self.memory_peak_bytes.load(Relaxed),
            host_calls: self.host_calls.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            requests: requests.listed.clone(),
            requests_unlisted: requests.unlisted,
        }
    }

    /// Computing since the attempt's start, as measured elsewhere.
    pub(super) fn set_cpu_us(&self, cpu_us: u64) {
        self.cpu_us.store(cpu_us, Relaxed);
    }

    /// So much memory the instance has now.
    pub(super) fn memory_is(&self, bytes: u64) {
        self.memory_peak_bytes.fetch_max(bytes, Relaxed);
    }

    /// To be called by the instance only, which makes one call after the other: cheaper than an
    /// addition that many could make at once.
    pub(super) fn host_called(&self) {
        self.host_calls.store(self.host_calls.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// What was noted as a call was none.
    pub(super) fn host_was_not_called(&self) {
        self.host_calls.store(self.host_calls.load(Relaxed).saturating_sub(1), Relaxed);
    }

    pub(super) fn came_in(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn went_out(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Relaxed);
    }

    /// Lists a request that has begun, and says where to note how it went on.
    pub(super) fn request(&self, request: Request) -> RequestPlace {
        let mut requests = lock(&self.requests);
        let full = requests.listed.len() == REQUESTS_LISTED_MAX;
        if full {
            requests.unlisted = requests.unlisted.saturating_add(1);
        } else {
            requests.listed.push(request);
        }
        RequestPlace {
            attempt: requests.attempt,
            at: if full { None } else { requests.listed.len().checked_sub(1) },
        }
    }

    /// Notes how a request went on.
    pub(super) fn request_went_on(&self, place: RequestPlace, change: impl FnOnce(&mut Request)) {
        let mut requests = lock(&self.requests);
        if requests.attempt == place.attempt
            && let Some(request) = place.at.and_then(|at| requests.listed.get_mut(at))
        {
            change(request);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

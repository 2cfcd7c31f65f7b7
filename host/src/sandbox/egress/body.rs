//! Bodies on their way: counted, bounded, and not waited for without end.

use std::{
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use stepbox_domain::{Limit, Limits};
use tokio::time::{Instant, Sleep};
use wasmtime_wasi_http::{Error, WasiBody};

use super::{
    bill::Bill,
    pool::{Connection, Connections},
    target::Target,
    trouble::{Trouble, in_words},
};

/// What is heard of a request's body while hyper has it.
#[derive(Clone, Default)]
pub(super) struct Upload {
    done: Arc<AtomicBool>,
    trouble: Arc<OnceLock<Trouble>>,
}

impl Upload {
    pub(super) fn is_done(&self) -> bool {
        self.done.load(Relaxed)
    }

    /// Why it broke off, if it did so here.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.trouble.get().cloned()
    }
}

/// The body of a request, as the guest writes it.
pub(super) struct RequestBody {
    pub inner: WasiBody,
    pub upload: Upload,
    pub bill: Bill,
    pub allowance: Allowance,
}

impl RequestBody {
    fn break_off(&self, trouble: Trouble) -> Error {
        let error = trouble.clone().into();
        // The first is the reason of all others.
        let _ = self.upload.trouble.set(trouble);
        error
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
            Some(Ok(frame)) => Some(match self.allowance.take(&frame) {
                Ok(bytes) => {
                    self.bill.sent(bytes);
                    Ok(frame)
                }
                Err(trouble) => Err(self.break_off(trouble)),
            }),
            // wasmtime's word for a body that the guest let go of before its end.
            Some(Err(_)) => Some(Err(self
                .break_off(Trouble::Broken("the guest did not finish the body of the request".to_owned())))),
            None => None,
        };
        if polled.is_none() || self.inner.is_end_stream() {
            self.upload.done.store(true, Relaxed);
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        let ended = self.inner.is_end_stream();
        if ended {
            self.upload.done.store(true, Relaxed);
        }
        ended
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// How much of a body may still pass, whichever way it goes.
pub(super) struct Allowance {
    limit: Limit,
    max_bytes: u64,
    left_bytes: u64,
    what: &'static str,
}

impl Allowance {
    pub(super) fn of_a_request(limits: &Limits) -> Self {
        Allowance::new(limits, Limit::RequestBodyMaxBytes, "the body of the request is too large")
    }

    pub(super) fn of_an_answer(limits: &Limits) -> Self {
        Allowance::new(limits, Limit::ResponseBodyMaxBytes, "the body of the answer is too large")
    }

    fn new(limits: &Limits, limit: Limit, what: &'static str) -> Self {
        let max_bytes = limits.get(limit);
        Allowance { limit, max_bytes, left_bytes: max_bytes, what }
    }

    /// Whether a body that is announced with so many bytes has a chance.
    pub(super) fn check(&self, bytes: u64) -> Result<(), Trouble> {
        if bytes <= self.max_bytes { Ok(()) } else { Err(self.exceeded()) }
    }

    /// Lets a frame pass; how many bytes it has.
    fn take(&mut self, frame: &Frame<Bytes>) -> Result<usize, Trouble> {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        self.left_bytes = self.left_bytes.checked_sub(bytes as u64).ok_or_else(|| self.exceeded())?;
        Ok(bytes)
    }

    fn exceeded(&self) -> Trouble {
        Trouble::limit(self.limit, self.max_bytes, self.what)
    }
}

/// The body of an answer. Holds the connection that it comes by, which is used again when the body
/// is complete and closed when it is not.
pub(super) struct AnswerBody {
    incoming: Incoming,
    connection: Option<Connection>,
    connections: Arc<Connections>,
    target: Target,
    upload: Upload,
    bill: Option<Bill>,
    allowance: Allowance,
    patience: Patience,
}

/// How long an answer is waited for.
pub(super) struct Patience {
    deadline: Instant,
    max_ms: u64,
    between: Duration,
    sleep: Pin<Box<Sleep>>,
    waits: bool,
}

impl Patience {
    pub(super) fn until(deadline: Instant, max_ms: u64, between: Duration) -> Self {
        Patience {
            deadline,
            max_ms,
            between,
            sleep: Box::pin(tokio::time::sleep_until(deadline)),
            waits: false,
        }
    }

    /// Ready when it has run out.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Trouble> {
        if !self.waits {
            self.waits = true;
            let pause_ends = Instant::now().checked_add(self.between).unwrap_or(self.deadline);
            self.sleep.as_mut().reset(pause_ends.min(self.deadline));
        }
        ready!(self.sleep.as_mut().poll(context));
        Poll::Ready(match Instant::now() < self.deadline {
            true => Trouble::TimedOut(format!(
                "nothing more of the answer came for {} ms, which is what the guest asked for",
                self.between.as_millis()
            )),
            false => too_slow(self.max_ms, "the answer was not complete"),
        })
    }
}

/// The whole time of a request is up.
pub(super) fn too_slow(max_ms: u64, what: &str) -> Trouble {
    Trouble::TimedOut(format!("{what} within {max_ms} ms, which is requestMaxMs"))
}

impl AnswerBody {
    pub(super) fn new(
        incoming: Incoming,
        connection: Connection,
        connections: Arc<Connections>,
        (target, upload, bill): (Target, Upload, Bill),
        allowance: Allowance,
        patience: Patience,
    ) -> Self {
        let mut body = AnswerBody {
            incoming,
            connection: Some(connection),
            connections,
            target,
            upload,
            bill: Some(bill),
            allowance,
            patience,
        };
        body.end_if_complete();
        body
    }

    fn end_if_complete(&mut self) {
        if self.incoming.is_end_stream() {
            self.end();
        }
    }

    fn end(&mut self) {
        if let Some(bill) = self.bill.take() {
            bill.ended();
        }
        if let Some(connection) = self.connection.take()
            && self.upload.is_done()
        {
            self.connections.give_back(self.target.clone(), connection);
        }
    }

    fn break_off(&mut self, trouble: Trouble) -> Error {
        if let Some(bill) = self.bill.take() {
            bill.failed(&trouble);
        }
        self.connection = None;
        trouble.into()
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.bill.is_none() {
            return Poll::Ready(None);
        }
        let Poll::Ready(came) = Pin::new(&mut self.incoming).poll_frame(context) else {
            let trouble = ready!(self.patience.poll(context));
            return Poll::Ready(Some(Err(self.break_off(trouble))));
        };
        self.patience.waits = false;
        Poll::Ready(match came {
            Some(Ok(frame)) => Some(match self.allowance.take(&frame) {
                Ok(bytes) => {
                    if let Some(bill) = &self.bill {
                        bill.received(bytes);
                    }
                    self.end_if_complete();
                    Ok(frame)
                }
                Err(trouble) => Err(self.break_off(trouble)),
            }),
            Some(Err(error)) => {
                let trouble = Trouble::Broken(format!("in the body of the answer: {}", in_words(&error)));
                Some(Err(self.break_off(trouble)))
            }
            None => {
                self.end();
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.bill.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        self.end_if_complete();
        // Nobody wants the rest, and reading it only to use the connection again could take for ever.
        if let Some(bill) = self.bill.take() {
            bill.ended();
        }
    }
}

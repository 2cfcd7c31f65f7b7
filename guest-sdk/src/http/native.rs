//! Natively there is no network: what the test says answers.

use std::cell::RefCell;
use std::rc::Rc;

use super::{Error, ErrorKind, Request, Response};
use crate::testing::session;

/// Answers in the place of all servers.
pub(crate) type Server = Rc<dyn Fn(&Request) -> Result<Response, Error>>;

thread_local! {
    static SERVER: RefCell<Option<Server>> = const { RefCell::new(None) };
}

/// Runs `body` with `server` for all requests of this thread.
pub(crate) fn with_server<R>(server: Server, body: impl FnOnce() -> R) -> R {
    /// Takes it away again, also when `body` panics.
    struct Before(Option<Server>);
    impl Drop for Before {
        fn drop(&mut self) {
            SERVER.set(self.0.take());
        }
    }
    let _before = Before(SERVER.replace(Some(server)));
    body()
}

pub(super) fn send(request: &Request) -> Result<Response, Error> {
    let of_run = session::current().and_then(|session| session.server());
    match SERVER.with_borrow(Clone::clone).or(of_run) {
        Some(server) => server(request),
        None => Err(Error::new(
            ErrorKind::Unreachable,
            "there is no network in a unit test: answer in its place with `TestRun::http` or `testing::with_http`",
        )),
    }
}

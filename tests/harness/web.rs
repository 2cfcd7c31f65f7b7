//! A small web server to send requests to. It keeps what it hears, and answers, or misbehaves, as
//! it is told.
//!
//! Used by the tests of the sandbox too, which are in another crate: it needs nothing but tokio.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    sync::watch,
};

/// Both directions of a connection.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Heard {
    pub head: String,
    pub body: Vec<u8>,
}

impl Heard {
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// How many connections there are, and were.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub made: usize,
    pub open: usize,
    pub most_open: usize,
}

pub struct Web {
    pub address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    counts: watch::Receiver<Counts>,
}

type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl Web {
    /// Answers each request with the bytes that `answer` gives.
    pub async fn start(answer: impl Fn(&Heard) -> Vec<u8> + Send + Sync + 'static) -> Web {
        Web::start_on("127.0.0.1:0", answer).await
    }

    pub async fn start_on(address: &str, answer: impl Fn(&Heard) -> Vec<u8> + Send + Sync + 'static) -> Web {
        let answer = Arc::new(answer);
        Web::over(address, |stream| Box::pin(async move { Some(Box::new(stream) as Box<dyn Wire>) }), {
            move |mut wire, heard| {
                let answer = answer.clone();
                Box::pin(async move {
                    while let Some(request) = read(&mut wire).await {
                        let bytes = answer(&request);
                        heard.lock().unwrap().push(request);
                        let close = String::from_utf8_lossy(&bytes).contains("connection: close");
                        if wire.write_all(&bytes).await.is_err() || close {
                            break;
                        }
                    }
                })
            }
        })
        .await
    }

    /// Gives every connection to `serve`, which may do with it what no server should.
    pub async fn raw<F>(serve: impl Fn(Box<dyn Wire>) -> F + Send + Sync + 'static) -> Web
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Web::over(
            "127.0.0.1:0",
            |stream| Box::pin(async move { Some(Box::new(stream) as Box<dyn Wire>) }),
            move |wire, _| Box::pin(serve(wire)),
        )
        .await
    }

    /// What `accept` makes of a connection is given to `serve`.
    pub async fn over(
        address: &str,
        accept: impl Fn(tokio::net::TcpStream) -> Pending<Option<Box<dyn Wire>>> + Send + Sync + 'static,
        serve: impl Fn(Box<dyn Wire>, Arc<Mutex<Vec<Heard>>>) -> Pending<()> + Send + Sync + 'static,
    ) -> Web {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (counting, counts) = watch::channel(Counts::default());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let kept = heard.clone();
        tokio::spawn(async move {
            let (counting, accept) = (Arc::new(counting), Arc::new(accept));
            let serve = Arc::new(serve);
            while let Ok((stream, _)) = listener.accept().await {
                counting.send_modify(|counts| {
                    counts.made += 1;
                    counts.open += 1;
                    counts.most_open = counts.most_open.max(counts.open);
                });
                let (counting, heard) = (counting.clone(), kept.clone());
                let (accept, serve) = (accept.clone(), serve.clone());
                tokio::spawn(async move {
                    if let Some(wire) = accept(stream).await {
                        serve(wire, heard).await;
                    }
                    counting.send_modify(|counts| counts.open -= 1);
                });
            }
        });
        Web { address, heard, counts }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    pub fn counts(&self) -> Counts {
        *self.counts.borrow()
    }

    /// Waits until the counts are as wanted.
    pub async fn until(&self, what: &str, wanted: impl FnMut(&Counts) -> bool) {
        let mut counts = self.counts.clone();
        let waited = tokio::time::timeout(Duration::from_secs(20), counts.wait_for(wanted)).await;
        assert!(waited.is_ok(), "the server does not see {what}: {:?}", self.counts());
    }

    pub async fn until_all_are_closed(&self) {
        self.until("every connection closed", |counts| counts.open == 0).await;
    }
}

/// An answer with a body, on a connection that stays open.
pub fn ok(body: &str) -> Vec<u8> {
    status("200 OK", "", body)
}

/// `headers` each end in a line end.
pub fn status(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len()).into_bytes()
}

/// The next request on a connection. None: it was closed.
pub async fn read(wire: &mut Box<dyn Wire>) -> Option<Heard> {
    let mut bytes = Vec::new();
    let head_ends = loop {
        if let Some(at) = find(&bytes, b"\r\n\r\n") {
            break at + 4;
        }
        if wire.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_ends]).into_owned();
    let mut heard = Heard { head, body: bytes.split_off(head_ends) };
    if heard.header("transfer-encoding").is_some() {
        while !heard.body.ends_with(b"0\r\n\r\n") {
            more(wire, &mut heard.body).await?;
        }
    } else {
        let length = heard.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        while heard.body.len() < length {
            more(wire, &mut heard.body).await?;
        }
    }
    Some(heard)
}

async fn more(wire: &mut Box<dyn Wire>, bytes: &mut Vec<u8>) -> Option<()> {
    (wire.read_buf(bytes).await.ok()? > 0).then_some(())
}

fn find(bytes: &[u8], word: &[u8]) -> Option<usize> {
    bytes.windows(word.len()).position(|part| part == word)
}

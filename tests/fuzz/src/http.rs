//! HTTP below any client: what is sent is sent to the letter, and a connection is kept for as long
//! as the other side keeps it.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(60);

pub struct Connection {
    address: String,
    stream: Option<TcpStream>,
    /// What was read and belongs to the next answer.
    rest: Vec<u8>,
}

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// In small letters.
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }
}

impl Connection {
    pub fn new(address: &str) -> Connection {
        Connection { address: address.to_owned(), stream: None, rest: Vec::new() }
    }

    pub fn close(&mut self) {
        self.stream = None;
        self.rest.clear();
    }

    /// Sends `bytes` and nothing after them: what is half a request stays one.
    pub async fn exchange_and_end(&mut self, bytes: &[u8]) -> io::Result<Option<Response>> {
        self.close();
        let mut stream = TcpStream::connect(&self.address).await?;
        // Who was refused early finds the other side gone; the answer may be there all the same.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        match timeout(PATIENCE, read(&mut stream, &mut self.rest, false)).await {
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Ok(read) => read,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {PATIENCE:?}"))),
        }
    }

    /// Sends `bytes` and reads one answer. None: the other side closed without one.
    pub async fn exchange(&mut self, bytes: &[u8], is_head: bool) -> io::Result<Option<Response>> {
        let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {PATIENCE:?}"));
        timeout(PATIENCE, self.exchanged(bytes, is_head)).await.unwrap_or_else(|_| Err(late()))
    }

    async fn exchanged(&mut self, bytes: &[u8], is_head: bool) -> io::Result<Option<Response>> {
        if self.stream.is_none() {
            self.rest.clear();
            self.stream = Some(TcpStream::connect(&self.address).await?);
        }
        let Some(stream) = &mut self.stream else { return Ok(None) };
        // Who refuses early closes before all is sent; the answer may be there all the same.
        let sent = stream.write_all(bytes).await;
        match read(stream, &mut self.rest, is_head).await {
            Ok(Some(response)) => {
                if sent.is_err() || response.header("connection") == Some("close") {
                    self.close();
                }
                Ok(Some(response))
            }
            Ok(None) => {
                self.close();
                Ok(None)
            }
            // Reset: what was not read of the request.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                self.close();
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

async fn read(stream: &mut TcpStream, rest: &mut Vec<u8>, is_head: bool) -> io::Result<Option<Response>> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let end = loop {
        if let Some(at) = rest.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(rest).await? == 0 {
            return if rest.is_empty() { Ok(None) } else { Err(bad("the answer ends within its head")) };
        }
    };
    let head = String::from_utf8(rest.drain(..end).collect()).map_err(|_| bad("the head is not UTF-8"))?;
    let head = head.to_ascii_lowercase();
    let status =
        head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(|| bad("no status"))?;
    let mut response = Response { status, head, body: Vec::new() };
    if is_head || matches!(status, 100..200 | 204 | 304) {
        return Ok(Some(response));
    }
    if response.header("transfer-encoding") == Some("chunked") {
        response.body = chunks(stream, rest).await?;
        return Ok(Some(response));
    }
    let length = response.header("content-length").and_then(|length| length.parse::<usize>().ok());
    let length = length.ok_or_else(|| bad("no length"))?;
    while rest.len() < length {
        if stream.read_buf(rest).await? == 0 {
            return Err(bad("the answer ends within its body"));
        }
    }
    response.body = rest.drain(..length).collect();
    Ok(Some(response))
}

async fn chunks(stream: &mut TcpStream, rest: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut body = Vec::new();
    loop {
        let line = loop {
            if let Some(at) = rest.windows(2).position(|window| window == b"\r\n") {
                break rest.drain(..at + 2).collect::<Vec<u8>>();
            }
            if stream.read_buf(rest).await? == 0 {
                return Err(bad("the answer ends within a chunk"));
            }
        };
        let text = String::from_utf8_lossy(&line);
        let length = usize::from_str_radix(text.trim(), 16).map_err(|_| bad("a chunk without length"))?;
        while rest.len() < length + 2 {
            if stream.read_buf(rest).await? == 0 {
                return Err(bad("the answer ends within a chunk"));
            }
        }
        body.extend(rest.drain(..length));
        rest.drain(..2);
        if length == 0 {
            return Ok(body);
        }
    }
}

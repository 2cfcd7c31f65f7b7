//! HTTP as a client of the product speaks it.

use std::{
    sync::{Arc, RwLock},
    time::Duration,
};

use reqwest::{Method, RequestBuilder, header::HeaderMap};
use serde_json::{Value, json};

use super::until;

/// Talks to one server; goes on when that comes back under another port. Clones talk to the same.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Arc<RwLock<String>>,
}

/// A whole response.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Method and path of what was asked.
    #[expect(dead_code, reason = "read by who reads a failed assertion")]
    pub asked: String,
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}, in {self:#?}"))
    }

    /// The body, given that the status is `status`.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:#?}");
        self.assert_is_json();
        self.json()
    }

    #[track_caller]
    pub fn expect_empty(&self, status: u16) {
        assert_eq!((self.status, self.text.as_str()), (status, ""), "{self:#?}");
    }

    /// The message of an error, given that it has the status `status`, the code `code` and the
    /// shape that every error has.
    #[track_caller]
    pub fn error(&self, status: u16, code: &str) -> String {
        let message = self.any_error(status);
        assert_eq!(self.json()["code"], code, "{self:#?}");
        message
    }

    #[track_caller]
    pub fn any_error(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:#?}");
        self.assert_is_json();
        let body = self.json();
        let message = body["error"].as_str().unwrap_or_else(|| panic!("no `error` in {self:#?}"));
        assert!(message.len() > 10, "the error says nothing: {self:#?}");
        let code = body["code"].as_str().unwrap_or_else(|| panic!("no `code` in {self:#?}"));
        let snake = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(!code.is_empty() && code.chars().all(snake), "{self:#?}");
        message.to_owned()
    }

    #[track_caller]
    fn assert_is_json(&self) {
        let kind = self.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("application/json"), "the body is {kind:?}: {self:#?}");
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Client {
    pub fn new(base: String) -> Self {
        // Longer than the longest wait that can be asked for: a server that never answers fails.
        let http = reqwest::Client::builder().timeout(Duration::from_secs(60)).build();
        let http = http.expect("a client can be made");
        Client { http, base: Arc::new(RwLock::new(base)) }
    }

    /// The same server, over connections of its own: those of a client are served where it is used.
    pub fn apart(&self) -> Self {
        Client { base: Arc::clone(&self.base), ..Client::new(String::new()) }
    }

    pub fn moved_to(&self, base: String) {
        *self.base.write().unwrap() = base;
    }

    /// `127.0.0.1:8080`
    pub fn address(&self) -> String {
        self.base.read().unwrap().trim_start_matches("http://").to_owned()
    }

    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let url = format!("{}{path}", self.base.read().unwrap());
        self.http.request(method, url)
    }

    /// Err: no answer came.
    pub async fn try_send(&self, request: RequestBuilder) -> Result<Answer, reqwest::Error> {
        let request = request.build()?;
        let asked = format!("{} {}", request.method(), request.url());
        let response = self.http.execute(request).await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { asked, status, headers, text: response.text().await? })
    }

    pub async fn send(&self, request: RequestBuilder) -> Answer {
        self.try_send(request).await.unwrap_or_else(|error| panic!("no answer: {error:?}"))
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request("GET", path)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.request("DELETE", path)).await
    }

    /// Without a body.
    pub async fn post(&self, path: &str) -> Answer {
        self.send(self.request("POST", path)).await
    }

    pub async fn post_json(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request("POST", path).json(body)).await
    }

    /// `body` to the letter, as JSON.
    pub async fn post_text(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        self.send(self.request("POST", path).header("content-type", "application/json").body(body)).await
    }

    pub async fn start(&self, id: &str, task: &str, payload: &Value) -> Answer {
        let body = json!({ "executionId": id, "taskName": task, "payload": payload });
        self.post_json("/api/v1/executions", &body).await
    }

    /// Starts the guest `scenario`, which is new under that id.
    #[track_caller]
    pub fn run_script(&self, id: &str, payload: &Value) -> impl Future<Output = Value> {
        let (client, id, payload) = (self.clone(), id.to_owned(), payload.clone());
        async move { client.start(&id, "scenario", &payload).await.expect(201) }
    }

    /// Starts the guest `scenario` under `id` and answers with the execution once it is over.
    pub async fn play(&self, id: &str, payload: &Value) -> Value {
        self.run_script(id, payload).await;
        self.over(id).await
    }

    pub async fn execution(&self, id: &str) -> Value {
        self.get(&execution_path(id)).await.expect(200)
    }

    pub async fn event(&self, id: &str, name: &str, payload: &Value) -> Answer {
        self.post_json(&format!("/api/v1/events/{}/{}", encoded(id), encoded(name)), payload).await
    }

    pub async fn cancel(&self, id: &str) -> Answer {
        self.post(&format!("{}/cancel", execution_path(id))).await
    }

    pub async fn wait(&self, id: &str, timeout_secs: &str) -> Answer {
        self.get(&format!("{}/wait?timeoutSecs={timeout_secs}", execution_path(id))).await
    }

    pub async fn stats(&self) -> Value {
        self.get("/api/v1/stats").await.expect(200)
    }

    /// What the list gives for `query`, and how many there are in all.
    pub async fn list(&self, query: &str) -> (Vec<Value>, u64) {
        let answer = self.get(&format!("/api/v1/executions{query}")).await;
        let Value::Array(executions) = answer.expect(200) else { panic!("not an array: {answer:#?}") };
        let total = answer.header("x-total-count").unwrap_or_else(|| panic!("no total in {answer:#?}"));
        (executions, total.parse().unwrap())
    }

    pub async fn ids(&self, query: &str) -> Vec<String> {
        let (executions, _) = self.list(query).await;
        executions.iter().map(|e| e["durableExecutionId"].as_str().unwrap().to_owned()).collect()
    }

    pub async fn upload(&self, task: &str, component: Vec<u8>) -> Answer {
        let request = self.request("PUT", &format!("/admin/v1/modules/{task}"));
        self.send(request.header("content-type", "application/wasm").body(component)).await
    }

    /// The execution once it is over, whichever way. Patient: the machine may be busy.
    pub async fn over(&self, id: &str) -> Value {
        let path = format!("{}/wait", execution_path(id));
        let mut answer = self.get(&path).await;
        for _ in 0..3 {
            if answer.status != 504 {
                break;
            }
            answer = self.get(&path).await;
        }
        assert!(answer.status != 504, "{id} is not over after four waits: {answer:#?}");
        answer.expect(200)
    }

    /// The result of the execution once it is completed; panics when it ends otherwise.
    pub async fn result(&self, id: &str) -> Value {
        let over = self.over(id).await;
        assert_eq!(over["status"], "completed", "{over:#}");
        over["result"].clone()
    }

    /// The error of the execution once it has failed; panics when it ends otherwise.
    pub async fn failure(&self, id: &str) -> Value {
        let over = self.over(id).await;
        assert_eq!(over["status"], "failed", "{over:#}");
        over["error"].clone()
    }

    /// The execution once `holds` says yes to it.
    pub async fn until(&self, id: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        until(&format!("{id} {what}"), async || self.execution(id).await, holds).await
    }

    /// The execution once it stands still, waiting for what `waitingFor.type` calls `kind`.
    pub async fn until_waiting(&self, id: &str, kind: &str) -> Value {
        self.until(id, &format!("waits for {kind}"), |execution| {
            assert_not_over(execution);
            execution["waitingFor"]["type"] == kind
        })
        .await
    }
}

fn assert_not_over(execution: &Value) {
    let status = execution["status"].as_str().unwrap_or_default();
    assert!(matches!(status, "scheduled" | "running"), "it is over already: {execution:#}");
}

pub fn execution_path(id: &str) -> String {
    format!("/api/v1/executions/{}", encoded(id))
}

/// `text` as one segment of a path or one value of a query.
pub fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

//! What is promised of requests that go out.

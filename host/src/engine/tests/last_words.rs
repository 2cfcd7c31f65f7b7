//! What a failure says of what was printed last, whoever made it.

use super::*;

#[test]
fn a_failure_says_what_was_printed_last() {
    let of_step = Scripted::new(|mut h| async move { h.step("charge", retries(2, 1)).await })
        .step("charge", |_| async { fails("declined") });
    let host = Host::start(&store(None), &of_step, config());
    host.begin("e");
    let error = host.end_of("e").error.unwrap();
    assert_eq!(error.logs, ["info stdout: charge 2"], "of the last attempt, and of no other");

    let of_handler = Scripted::new(|_| async {
        Err(Ending::Failed(stepbox_domain::Failure::new(FailureKind::Error, "no")))
    });
    let host = Host::start(&store(None), &of_handler, config());
    host.begin("e");
    assert_eq!(host.end_of("e").error.unwrap().logs, ["info stdout: the handler is called"]);
}

#[test]
fn a_failure_of_the_host_says_what_was_printed_too() {
    let options = StepOptions { timeout_ms: Some(50), ..once() };
    let guest = Scripted::new(move |mut h| {
        let options = options.clone();
        async move { h.step("slow", options).await }
    })
    .step("slow", |_| std::future::pending());
    let host = Host::start(&store(None), &guest, config());
    host.begin("e");
    let error = host.end_of("e").error.unwrap();
    assert_eq!((error.kind, error.logs), (FailureKind::TimedOut, vec!["info stdout: slow 1".to_owned()]));
}

#[test]
fn a_run_whose_time_is_up_says_what_was_printed_where_it_was() {
    let in_step = Scripted::new(|mut h| async move { h.step("slow", once()).await })
        .step("slow", |_| std::future::pending());
    let in_handler = Scripted::new(|_| std::future::pending());
    for (guest, line) in
        [(in_step, "info stdout: slow 1"), (in_handler, "info stdout: the handler is called")]
    {
        let host = Host::start(&store(Some(100)), &guest, config());
        host.begin("e");
        let error = host.end_of("e").error.unwrap();
        assert_eq!((error.kind, error.logs), (FailureKind::TimedOut, vec![line.to_owned()]));
    }
}

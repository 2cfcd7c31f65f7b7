//! More who want an instance than there are places.

use std::time::Duration;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_when_all_places_are_taken_waits_and_does_not_fail() {
    let bed = Arc::new(TestBed::with(|config| {
        config.pool.handlers_max = 2;
        config.pool.steps_max = 2;
    }));
    let guest = bed.guest(WatGuest::default()).await;
    let tasks: Vec<_> = (0..200)
        .map(|_| {
            let (bed, guest) = (bed.clone(), guest.clone());
            tokio::spawn(async move {
                assert_eq!(result(bed.run(&guest, nothing()).await), "null");
                let mut steps = bed.steps(&guest);
                for _ in 0..3 {
                    assert_eq!(completed(steps.run_step("f", &json("1"), 1).await), "1");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// Runs that have had a step and wait for long keep their step instance only until another run
/// wants the place.
#[tokio::test]
async fn an_idle_step_instance_gives_its_place_to_who_needs_it() {
    let bed = TestBed::with(|config| config.pool.steps_max = 2);
    let guest = bed.guest(WatGuest::default()).await;
    let input = json("1");
    let mut runs: Vec<_> = (0..10).map(|_| bed.steps(&guest)).collect();
    for _ in 0..3 {
        for run in &mut runs {
            let attempt = run.run_step("f", &input, 1);
            let exit = tokio::time::timeout(Duration::from_secs(5), attempt).await.expect("a place");
            assert_eq!(completed(exit), "1");
        }
    }
}

/// One that is at work when somebody starts to wait gives its place up when it is done.
#[tokio::test]
async fn a_busy_step_instance_gives_its_place_up_when_somebody_waits() {
    let bed = TestBed::with(|config| config.pool.steps_max = 1);
    let sleeps = WatGuest::default()
        .run_step(r#"(i64.const 50000000) call $subscribe call $block $"1" call $step_ok"#);
    let guest = bed.guest(sleeps).await;
    let (mut one, mut other) = (bed.steps(&guest), bed.steps(&guest));
    let input = json("1");
    let both = async { tokio::join!(one.run_step("f", &input, 1), other.run_step("f", &input, 1)) };
    let (one_exit, other_exit) = tokio::time::timeout(Duration::from_secs(5), both).await.expect("places");
    assert_eq!((completed(one_exit), completed(other_exit)), ("1".to_owned(), "1".to_owned()));
}

/// Who stops waiting leaves nothing behind.
#[tokio::test]
async fn a_place_is_not_lost_when_its_wait_is_given_up() {
    let bed = TestBed::with(|config| {
        config.pool.steps_max = 1;
        config.pool.handlers_max = 1;
    });
    let sleeps = WatGuest::default()
        .run_step(r#"(i64.const 100000000) call $subscribe call $block $"1" call $step_ok"#);
    let guest = bed.guest(sleeps).await;
    let input = json("1");
    for _ in 0..3 {
        let (mut one, mut other) = (bed.steps(&guest), bed.steps(&guest));
        let both = async { tokio::join!(one.run_step("f", &input, 1), other.run_step("f", &input, 1)) };
        assert!(tokio::time::timeout(Duration::from_millis(20), both).await.is_err());
    }
    assert_eq!(completed(bed.steps(&guest).run_step("f", &input, 1).await), "1");
    assert_eq!(result(bed.run(&guest, nothing()).await), "null");
}

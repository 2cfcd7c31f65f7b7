//! Modules and their versions.

use std::sync::Arc;

use stepbox_domain::Digest;

use super::given::audit;
use super::given::*;
use crate::store::*;

on_every_store!(
    an_upload_is_the_next_version_and_active,
    the_same_bytes_again_are_no_new_version,
    an_older_version_can_be_made_active_again,
    a_module_in_use_cannot_be_removed,
    a_removed_module_is_gone_and_its_numbers_are_not_given_again,
    a_component_lives_as_long_as_a_version_has_it,
    what_runs_on_a_version_is_counted,
);

async fn add(store: &Arc<dyn Store>, task: &str, component: &[u8]) -> VersionView {
    match store.add_version(upload(task, component), audit()).await.unwrap() {
        VersionAdded::New(view) => view,
        VersionAdded::Same(view) => panic!("{view:?}"),
    }
}

async fn numbers(store: &Arc<dyn Store>, name: &str) -> Option<Vec<(u32, bool)>> {
    let versions = store.versions(&task(name)).await.unwrap()?;
    Some(versions.iter().map(|version| (version.version, version.active)).collect())
}

async fn an_upload_is_the_next_version_and_active(store: Arc<dyn Store>) {
    assert_eq!(numbers(&store, "order").await, None);
    assert_eq!(store.module(&task("order")).await.unwrap(), None);
    let first = add(&store, "order", b"one").await;
    let expected = VersionView {
        task: task("order"),
        version: 1,
        active: true,
        waiting: false,
        digest: Digest::of(b"one"),
        size_bytes: 3,
        compiled_in_ms: 12,
        created_at: at(500),
        manifest: json(r#"{"description":"a test"}"#),
        unfinished: 0,
    };
    assert_eq!(first, expected);
    let second = add(&store, "order", b"two").await;
    add(&store, "a-task", b"two").await;
    assert_eq!(numbers(&store, "order").await, Some(vec![(2, true), (1, false)]));
    assert_eq!(store.version(&task("order"), 2).await.unwrap(), Some(second.clone()));
    assert_eq!(store.version(&task("order"), 3).await.unwrap(), None);
    let module = ModuleView { task: task("order"), shown: second, waiting: None, versions: 2, unfinished: 0 };
    assert_eq!(store.module(&task("order")).await.unwrap(), Some(module));
    let names: Vec<_> = store.modules().await.unwrap().iter().map(|module| module.task.to_string()).collect();
    assert_eq!(names, ["a-task", "order"]);
}

async fn the_same_bytes_again_are_no_new_version(store: Arc<dyn Store>) {
    let first = add(&store, "order", b"one").await;
    let again =
        store.add_version(NewVersion { now: at(900), ..upload("order", b"one") }, audit()).await.unwrap();
    assert_eq!(again, VersionAdded::Same(first));
    add(&store, "order", b"two").await;
    assert_eq!(add(&store, "order", b"one").await.version, 3, "they are not those of the active version");
}

async fn an_older_version_can_be_made_active_again(store: Arc<dyn Store>) {
    add(&store, "order", b"one").await;
    add(&store, "order", b"two").await;
    let active = store.activate_version(&task("order"), 1, audit()).await.unwrap().unwrap();
    assert_eq!((active.version, active.active), (1, true));
    assert_eq!(numbers(&store, "order").await, Some(vec![(2, false), (1, true)]));
    assert_eq!(store.activate_version(&task("order"), 3, audit()).await.unwrap(), None);
    assert_eq!(store.activate_version(&task("refund"), 1, audit()).await.unwrap(), None);
    assert_eq!(numbers(&store, "order").await, Some(vec![(2, false), (1, true)]));
    assert_eq!(add(&store, "order", b"three").await.version, 3);
}

async fn a_module_in_use_cannot_be_removed(store: Arc<dyn Store>) {
    with_order(&store).await;
    scheduled(&store, "a").await;
    let b = claimed(&store, "b").await;
    assert_eq!(store.remove_module(&task("order"), audit()).await.unwrap(), Removal::InUse(2));
    store.cancel(&id("a"), None, at(9), audit()).await.unwrap();
    store.commit(standing(b, 0, completed("1", 9))).await.unwrap();
    assert_eq!(store.remove_module(&task("order"), audit()).await.unwrap(), Removal::Removed);
    assert_eq!(view(&store, "a").await.version, 1, "what was, stays to be seen");
}

async fn a_removed_module_is_gone_and_its_numbers_are_not_given_again(store: Arc<dyn Store>) {
    add(&store, "order", b"one").await;
    add(&store, "order", b"two").await;
    assert_eq!(store.remove_module(&task("order"), audit()).await.unwrap(), Removal::Removed);
    assert_eq!(store.remove_module(&task("order"), audit()).await.unwrap(), Removal::NoSuchModule);
    assert_eq!(store.remove_module(&task("refund"), audit()).await.unwrap(), Removal::NoSuchModule);
    assert_eq!(numbers(&store, "order").await, None);
    assert_eq!(store.modules().await.unwrap(), []);
    assert_eq!(store.activate_version(&task("order"), 1, audit()).await.unwrap(), None);
    let start = store.create_execution(start("a", "order", "{}")).await;
    assert!(matches!(start, Err(StoreError::Unavailable(_))));
    assert_eq!(add(&store, "order", b"two").await.version, 3);
}

async fn a_component_lives_as_long_as_a_version_has_it(store: Arc<dyn Store>) {
    let large: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
    add(&store, "order", &large).await;
    add(&store, "refund", &large).await;
    let digest = Digest::of(&large);
    for task_name in ["order", "refund"] {
        assert_eq!(store.component(&digest).await.unwrap().as_ref(), Some(&large));
        store.remove_module(&task(task_name), audit()).await.unwrap();
    }
    assert_eq!(store.component(&digest).await.unwrap(), None);
}

async fn what_runs_on_a_version_is_counted(store: Arc<dyn Store>) {
    add(&store, "order", b"one").await;
    scheduled(&store, "a").await;
    claimed(&store, "b").await;
    add(&store, "order", b"two").await;
    store.create_execution(NewExecution { version: 2, ..start("c", "order", "{}") }).await.unwrap();
    let module = store.module(&task("order")).await.unwrap().unwrap();
    assert_eq!((module.unfinished, module.shown.unfinished), (3, 1));
    let versions = store.versions(&task("order")).await.unwrap().unwrap();
    assert_eq!(versions.iter().map(|version| version.unfinished).collect::<Vec<_>>(), [1, 2]);
    store.cancel(&id("b"), None, at(9), audit()).await.unwrap();
    assert_eq!(store.version(&task("order"), 1).await.unwrap().unwrap().unfinished, 1);
}

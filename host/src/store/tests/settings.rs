//! What is set for tasks, and versions that wait for grants.

use std::sync::Arc;

use stepbox_domain::{
    audit::AuditAction,
    capability::Grants,
    limits::{Limit, LimitSettings},
};

use super::given::audit;
use super::given::*;
use crate::store::*;

on_every_store!(
    a_version_that_waits_is_kept_and_not_active,
    a_first_version_that_waits_is_listed,
    the_bytes_that_wait_already_are_no_new_version,
    what_is_set_for_a_task_is_replaced_as_a_whole_and_needs_no_module,
    a_version_becomes_active_with_the_settings_that_it_waited_for,
    what_is_active_or_newer_ends_the_wait_of_those_before,
    what_is_set_goes_with_the_module,
);

async fn add(store: &Arc<dyn Store>, component: &[u8], waits: bool) -> VersionView {
    let new = NewVersion { waits, ..upload("order", component) };
    match store.add_version(new, audit()).await.unwrap() {
        VersionAdded::New(view) => view,
        VersionAdded::Same(view) => panic!("{view:?}"),
    }
}

fn settings(host: &str, steps_max: u64) -> SettingsView {
    let grants = format!(
        r#"{{"http":[{{"host":"{host}","methods":["GET"]}}],"addresses":["10.0.0.0/8"],
            "secrets":{{"KEY":["{host}"]}},"env":{{"REGION":"it's \"eu\"\n"}}}}"#
    );
    SettingsView {
        grants: serde_json::from_str(&grants).unwrap(),
        limits: LimitSettings::from_iter([(Limit::StepsMax, steps_max), (Limit::OutputMaxBytes, u64::MAX)]),
    }
}

fn entry(action: AuditAction) -> AuditEntry {
    AuditEntry { action, ..audit() }
}

fn change(settings: SettingsView, activate: Option<u32>) -> SettingsChange {
    SettingsChange {
        task: task("order"),
        settings,
        audit: entry(AuditAction::SetGrants),
        activate: activate.map(|version| (version, entry(AuditAction::ActivateVersion))),
    }
}

/// Each version: its number, and whether it is active or waits.
async fn told(store: &Arc<dyn Store>) -> Vec<(u32, &'static str)> {
    let versions = store.versions(&task("order")).await.unwrap().unwrap_or_default();
    let word = |view: &VersionView| match (view.active, view.waiting) {
        (true, false) => "active",
        (false, true) => "waits",
        (false, false) => "rests",
        (true, true) => "both",
    };
    versions.iter().map(|view| (view.version, word(view))).collect()
}

/// What was done, newest last.
async fn actions(store: &Arc<dyn Store>) -> Vec<AuditAction> {
    store.audit_after(0, 100).await.unwrap().into_iter().map(|view| view.entry.action).collect()
}

async fn a_version_that_waits_is_kept_and_not_active(store: Arc<dyn Store>) {
    add(&store, b"one", false).await;
    let second = add(&store, b"two", true).await;
    assert_eq!((second.version, second.active, second.waiting), (2, false, true));
    add(&store, b"three", true).await;
    assert_eq!(told(&store).await, [(3, "waits"), (2, "waits"), (1, "active")]);
    let module = store.module(&task("order")).await.unwrap().unwrap();
    assert_eq!((module.shown.version, module.waiting.unwrap().version, module.versions), (1, 3, 3));
    assert_eq!(store.component(&second.digest).await.unwrap().as_deref(), Some(b"two" as &[u8]));
}

async fn a_first_version_that_waits_is_listed(store: Arc<dyn Store>) {
    let first = add(&store, b"one", true).await;
    let module = ModuleView {
        task: task("order"),
        shown: first.clone(),
        waiting: Some(first.clone()),
        versions: 1,
        unfinished: 0,
    };
    assert_eq!(store.module(&task("order")).await.unwrap(), Some(module.clone()));
    assert_eq!(store.modules().await.unwrap(), [module]);
    assert_eq!(store.version(&task("order"), 1).await.unwrap(), Some(first));
    add(&store, b"two", true).await;
    let module = store.module(&task("order")).await.unwrap().unwrap();
    assert_eq!((module.shown.version, module.waiting.unwrap().version), (2, 2), "the newest");
    assert_eq!(store.remove_module(&task("order"), audit()).await.unwrap(), Removal::Removed);
    assert_eq!(store.modules().await.unwrap(), []);
    assert_eq!(add(&store, b"one", true).await.version, 3);
}

async fn the_bytes_that_wait_already_are_no_new_version(store: Arc<dyn Store>) {
    let first = add(&store, b"one", false).await;
    let second = add(&store, b"two", true).await;
    for (bytes, there, waits) in [(b"two", &second, true), (b"two", &second, false), (b"one", &first, true)] {
        let new = NewVersion { waits, now: at(900), ..upload("order", bytes) };
        let same = store.add_version(new, audit()).await.unwrap();
        assert_eq!(same, VersionAdded::Same(there.clone()));
    }
    add(&store, b"three", true).await;
    assert_eq!(add(&store, b"two", true).await.version, 4, "it is not the newest that waits");
    assert_eq!(actions(&store).await.len(), 4);
}

async fn what_is_set_for_a_task_is_replaced_as_a_whole_and_needs_no_module(store: Arc<dyn Store>) {
    let order = task("order");
    assert_eq!(store.settings_of(&order).await.unwrap(), SettingsView::default());
    assert_eq!(store.settings().await.unwrap(), []);
    let (first, second) = (settings("a.com", 7), settings("b.com", 8));
    assert_eq!(store.put_settings(change(first.clone(), None)).await.unwrap(), None);
    assert_eq!(store.settings_of(&order).await.unwrap(), first);
    store.put_settings(change(second.clone(), None)).await.unwrap();
    let other = SettingsView { grants: Grants::default(), ..first };
    let about_another = SettingsChange { task: task("a-task"), ..change(other.clone(), None) };
    store.put_settings(about_another).await.unwrap();
    assert_eq!(store.settings().await.unwrap(), [(task("a-task"), other), (order.clone(), second)]);
    assert_eq!(store.settings_of(&task("refund")).await.unwrap(), SettingsView::default());
    assert_eq!(store.module(&order).await.unwrap(), None);
    assert_eq!(actions(&store).await, [AuditAction::SetGrants; 3]);
}

async fn a_version_becomes_active_with_the_settings_that_it_waited_for(store: Arc<dyn Store>) {
    add(&store, b"one", false).await;
    add(&store, b"two", true).await;
    let active = store.put_settings(change(settings("a.com", 7), Some(2))).await.unwrap().unwrap();
    assert_eq!((active.version, active.active, active.waiting), (2, true, false));
    assert_eq!(told(&store).await, [(2, "active"), (1, "rests")]);
    let done = actions(&store).await;
    assert_eq!(done[2..], [AuditAction::SetGrants, AuditAction::ActivateVersion]);
    // One that is not there is not made active, but what is set, is.
    let put = store.put_settings(change(settings("b.com", 7), Some(9))).await.unwrap();
    assert_eq!(put, None);
    assert_eq!(store.settings_of(&task("order")).await.unwrap(), settings("b.com", 7));
    assert_eq!(told(&store).await, [(2, "active"), (1, "rests")]);
    assert_eq!(actions(&store).await[4..], [AuditAction::SetGrants]);
}

async fn what_is_active_or_newer_ends_the_wait_of_those_before(store: Arc<dyn Store>) {
    for (bytes, waits) in [(b"1", false), (b"2", true), (b"3", true), (b"4", true)] {
        add(&store, bytes, waits).await;
    }
    store.activate_version(&task("order"), 3, audit()).await.unwrap();
    assert_eq!(told(&store).await, [(4, "waits"), (3, "active"), (2, "rests"), (1, "rests")]);
    // Back to an older one: what is newer waits on.
    store.activate_version(&task("order"), 1, audit()).await.unwrap();
    assert_eq!(told(&store).await, [(4, "waits"), (3, "rests"), (2, "rests"), (1, "active")]);
    add(&store, b"5", false).await;
    assert_eq!(told(&store).await, [(5, "active"), (4, "rests"), (3, "rests"), (2, "rests"), (1, "rests")]);
    assert_eq!(store.module(&task("order")).await.unwrap().unwrap().waiting, None);
}

async fn what_is_set_goes_with_the_module(store: Arc<dyn Store>) {
    add(&store, b"one", false).await;
    store.put_settings(change(settings("a.com", 7), None)).await.unwrap();
    scheduled(&store, "e").await;
    assert_eq!(store.remove_module(&task("order"), audit()).await.unwrap(), Removal::InUse(1));
    assert_eq!(store.settings_of(&task("order")).await.unwrap(), settings("a.com", 7));
    store.cancel(&id("e"), None, at(9), audit()).await.unwrap();
    assert_eq!(store.remove_module(&task("order"), audit()).await.unwrap(), Removal::Removed);
    assert_eq!(store.settings_of(&task("order")).await.unwrap(), SettingsView::default());
    // Where there is no module, there is nothing to take them with.
    store.put_settings(change(settings("a.com", 7), None)).await.unwrap();
    assert_eq!(store.remove_module(&task("order"), audit()).await.unwrap(), Removal::NoSuchModule);
    assert_eq!(store.settings_of(&task("order")).await.unwrap(), settings("a.com", 7));
}

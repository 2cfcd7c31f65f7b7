//! Secrets, as they are kept.

use std::sync::Arc;

use stepbox_domain::{audit::AuditAction, capability::SecretName};

use super::given::{audit, *};
use crate::store::*;

on_every_store!(
    a_secret_is_kept_replaced_and_forgotten,
    the_trail_has_its_name_and_what_changed_nothing_is_not_in_it,
    what_is_closed_keeps_none,
);

fn name(text: &str) -> SecretName {
    SecretName::parse(text).unwrap()
}

fn new(text: &str, ciphertext: &[u8], ms: i64) -> NewSecret {
    NewSecret { name: name(text), ciphertext: ciphertext.to_vec(), now: at(ms) }
}

fn entry(action: AuditAction, target: &str) -> AuditEntry {
    AuditEntry { action, target: Some(target.to_owned()), ..audit() }
}

async fn a_secret_is_kept_replaced_and_forgotten(store: Arc<dyn Store>) {
    assert!(store.set_secret(new("b", b"\0one", 10), audit()).await.unwrap());
    assert!(store.set_secret(new("a", b"two", 11), audit()).await.unwrap());
    assert!(!store.set_secret(new("b", b"three", 12), audit()).await.unwrap());
    let kept = |text: &str, ciphertext: &[u8], created, updated| SealedSecret {
        name: name(text),
        ciphertext: ciphertext.to_vec(),
        created_at: at(created),
        updated_at: at(updated),
    };
    assert_eq!(store.secrets().await.unwrap(), [kept("a", b"two", 11, 11), kept("b", b"three", 10, 12)]);
    assert!(store.delete_secret(&name("b"), audit()).await.unwrap());
    assert!(!store.delete_secret(&name("b"), audit()).await.unwrap());
    assert!(store.set_secret(new("b", b"four", 13), audit()).await.unwrap());
    assert_eq!(store.secrets().await.unwrap(), [kept("a", b"two", 11, 11), kept("b", b"four", 13, 13)]);
}

async fn the_trail_has_its_name_and_what_changed_nothing_is_not_in_it(store: Arc<dyn Store>) {
    for ms in [1, 2] {
        store.set_secret(new("a", b"x", ms), entry(AuditAction::SetSecret, "a")).await.unwrap();
    }
    for _ in 0..2 {
        store.delete_secret(&name("a"), entry(AuditAction::DeleteSecret, "a")).await.unwrap();
    }
    let told: Vec<String> = store
        .audit_after(0, 10)
        .await
        .unwrap()
        .into_iter()
        .map(|view| format!("{} {}", view.entry.action.as_str(), view.entry.target.unwrap_or_default()))
        .collect();
    assert_eq!(told, ["set_secret a", "set_secret a", "delete_secret a"]);
}

async fn what_is_closed_keeps_none(store: Arc<dyn Store>) {
    store.close().await;
    let refused = store.set_secret(new("a", b"x", 1), audit()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused}");
}

use super::*;
use crate::store::{Store as _, Views as _, memory::Memory};

fn name(text: &str) -> SecretName {
    SecretName::parse(text).unwrap()
}

fn value(text: &str) -> SecretValue {
    SecretValue::parse(Zeroizing::new(text.as_bytes().to_vec())).unwrap()
}

async fn open(store: &Arc<Memory>, key: Option<&SecretsKey>) -> Result<Vault, OpenError> {
    let key = key.map(|key| SecretsKey::parse(&key.to_text()).unwrap());
    Vault::open(store.clone(), key, Clock::manual(Timestamp::from_ms(5))).await
}

async fn set(vault: &Vault, text: &str, to: &str) -> Result<bool, VaultError> {
    vault.set(name(text), value(to), Who::default()).await
}

fn revealed(vault: &Vault, text: &str) -> Option<String> {
    vault.reveal(&name(text)).map(|value| value.to_string())
}

#[tokio::test]
async fn what_is_set_is_revealed_from_then_on_and_after_a_start() {
    let (store, key) = (Arc::new(Memory::new()), SecretsKey::generate());
    let vault = open(&store, Some(&key)).await.unwrap();
    assert_eq!(revealed(&vault, "a"), None);
    assert!(set(&vault, "a", "one").await.unwrap());
    assert_eq!(revealed(&vault, "a").as_deref(), Some("one"));
    assert!(!set(&vault, "a", "two").await.unwrap());
    assert_eq!(revealed(&vault, "a").as_deref(), Some("two"));
    let again = open(&store, Some(&key)).await.unwrap();
    assert_eq!(revealed(&again, "a").as_deref(), Some("two"));
    vault.delete(name("a"), Who::default()).await.unwrap();
    assert_eq!(revealed(&vault, "a"), None);
    let gone = vault.delete(name("a"), Who::default()).await.unwrap_err();
    assert!(matches!(gone, VaultError::Unknown(_)), "{gone}");
}

#[tokio::test]
async fn another_key_is_told_from_damage_and_refused() {
    let (store, key) = (Arc::new(Memory::new()), SecretsKey::generate());
    let vault = open(&store, Some(&key)).await.unwrap();
    for text in ["a", "b", "c"] {
        set(&vault, text, text).await.unwrap();
    }
    let other = open(&store, Some(&SecretsKey::generate())).await.err().expect("a refusal");
    assert!(matches!(&other, OpenError::OtherKey(name) if name.as_str() == "a"), "{other}");

    // Somebody swaps two rows, and cuts one short.
    let sealed: Vec<Vec<u8>> =
        store.secrets().await.unwrap().into_iter().map(|kept| kept.ciphertext).collect();
    for (text, ciphertext) in [("a", &sealed[1][..]), ("b", &sealed[0][..]), ("c", &sealed[2][..20])] {
        let now = Timestamp::from_ms(9);
        let new = NewSecret { name: name(text), ciphertext: ciphertext.to_vec(), now };
        store
            .set_secret(new, entry(&Who::default(), AuditAction::SetSecret, &name(text), now))
            .await
            .unwrap();
    }
    let damaged = open(&store, Some(&key)).await.unwrap();
    for text in ["a", "b", "c"] {
        assert_eq!(revealed(&damaged, text), None);
    }
    assert!(damaged.list().await.unwrap().iter().all(|secret| !secret.usable));
    set(&damaged, "b", "anew").await.unwrap();
    let usable: Vec<bool> = damaged.list().await.unwrap().iter().map(|secret| secret.usable).collect();
    assert_eq!(usable, [false, true, false]);
}

#[tokio::test]
async fn without_a_key_nothing_is_set_or_revealed_and_what_is_there_can_go() {
    let (store, key) = (Arc::new(Memory::new()), SecretsKey::generate());
    set(&open(&store, Some(&key)).await.unwrap(), "a", "one").await.unwrap();
    let vault = open(&store, None).await.unwrap();
    assert_eq!(revealed(&vault, "a"), None);
    let refused = set(&vault, "a", "two").await.unwrap_err();
    assert!(matches!(refused, VaultError::NoKey), "{refused}");
    assert!(!vault.list().await.unwrap()[0].usable);
    vault.delete(name("a"), Who::default()).await.unwrap();
    assert!(vault.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_the_store_does_not_take_is_not_revealed() {
    let (store, key) = (Arc::new(Memory::new()), SecretsKey::generate());
    let vault = open(&store, Some(&key)).await.unwrap();
    set(&vault, "a", "one").await.unwrap();
    store.close().await;
    assert!(matches!(set(&vault, "a", "two").await, Err(VaultError::Store(_))));
    assert_eq!(revealed(&vault, "a").as_deref(), Some("one"));
    assert!(matches!(vault.delete(name("a"), Who::default()).await, Err(VaultError::Store(_))));
    assert_eq!(revealed(&vault, "a").as_deref(), Some("one"));
}

#[tokio::test]
async fn the_trail_says_who_and_which_and_nothing_of_the_value() {
    let store = Arc::new(Memory::new());
    let vault = open(&store, Some(&SecretsKey::generate())).await.unwrap();
    let who = Who { by: Some("ann".to_owned()), reason: Some("rotated".to_owned()) };
    vault.set(name("bank"), value("hunter2"), who.clone()).await.unwrap();
    vault.delete(name("bank"), who).await.unwrap();
    let trail = store.audit_after(0, 10).await.unwrap();
    let told: Vec<_> = trail.iter().map(|view| (view.entry.action, view.entry.target.as_deref())).collect();
    assert_eq!(told, [(AuditAction::SetSecret, Some("bank")), (AuditAction::DeleteSecret, Some("bank"))]);
    let shown = format!("{trail:?}");
    assert!(shown.contains("ann") && shown.contains("rotated") && !shown.contains("hunter2"), "{shown}");
}

//! Secrets: set by admins, encrypted in the store, given away only where a request leaves.
//!
//! In memory, too, they lie sealed: a value exists in the clear for as long as a request's headers are
//! written. Nothing here has a way to show one.

mod key;
mod value;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use stepbox_domain::{
    Timestamp,
    audit::{AuditAction, AuditEntry},
    capability::SecretName,
};
use zeroize::Zeroizing;

use self::key::Unopened;
pub use self::{
    key::{KEY_VARIABLE, NoKey, SecretsKey},
    value::{BadValue, SecretValue, VALUE_MAX_BYTES},
};
use crate::{
    engine::{Who, carried_through, clock::Clock},
    sandbox::Secrets,
    store::{NewSecret, SealedSecret, Store, StoreError},
};

/// The secrets of this host; cheap to clone.
#[derive(Clone)]
pub struct Vault(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    clock: Clock,
    key: Option<SecretsKey>,
    /// What the store has.
    sealed: RwLock<BTreeMap<SecretName, Vec<u8>>>,
    /// Changes take turns, so that the last one in the store is the last one here.
    turn: tokio::sync::Mutex<()>,
}

/// Why the host cannot begin with what is stored.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// To begin all the same would fail every step that needs one of them, where waiting for an
    /// operator fails none.
    #[error(
        "the secret \"{0}\" was sealed with another key than the one that is given; give the right key, or start \
         without one, delete that secret and set it anew"
    )]
    OtherKey(SecretName),
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    #[error(
        "this host has no key for secrets; give it one with {KEY_VARIABLE} or --secrets-key-file (`stepbox secret \
         keygen` prints a new one) and start it again"
    )]
    NoKey,
    #[error("there is no secret \"{0}\"; see GET /admin/v1/secrets")]
    Unknown(SecretName),
    #[error("the value cannot be sealed")]
    Unsealable,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A secret as lists show it.
#[derive(Clone, Debug, PartialEq)]
pub struct SecretView {
    pub name: SecretName,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Whether this host can give it to a request: it has the key, and what is stored is whole.
    pub usable: bool,
}

impl Vault {
    /// With what `store` has. Without a key nothing can be set, and no request is given a secret.
    pub async fn open(
        store: Arc<dyn Store>,
        key: Option<SecretsKey>,
        clock: Clock,
    ) -> Result<Self, OpenError> {
        let stored = store.secrets().await?;
        match &key {
            Some(key) => {
                for secret in &stored {
                    match key.open(&secret.name, &secret.ciphertext) {
                        Ok(_) => {}
                        Err(Unopened::OtherKey) => return Err(OpenError::OtherKey(secret.name.clone())),
                        Err(Unopened::Damaged) => {
                            tracing::error!(name = %secret.name, "a secret is damaged; set it anew");
                        }
                    }
                }
            }
            None if !stored.is_empty() => tracing::warn!(
                secrets = stored.len(),
                "there are secrets but no key for them: steps that need one fail; see {KEY_VARIABLE}"
            ),
            None => {}
        }
        let sealed = stored.into_iter().map(|secret| (secret.name, secret.ciphertext)).collect();
        Ok(Vault(Arc::new(Inner {
            store,
            clock,
            key,
            sealed: RwLock::new(sealed),
            turn: Default::default(),
        })))
    }

    /// Keeps `value` under `name`, in place of the one there was; whether there was none. Requests that
    /// leave after the answer have the new one.
    pub async fn set(&self, name: SecretName, value: SecretValue, who: Who) -> Result<bool, VaultError> {
        let vault = self.0.clone();
        // Whoever asks may go away; store and memory shall not differ for that.
        carried_through(async move {
            let _turn = vault.turn.lock().await;
            let key = vault.key.as_ref().ok_or(VaultError::NoKey)?;
            let ciphertext = key.seal(&name, value.reveal()).ok_or(VaultError::Unsealable)?;
            drop(value);
            let now = vault.clock.now();
            let audit = entry(&who, AuditAction::SetSecret, &name, now);
            let new = NewSecret { name: name.clone(), ciphertext: ciphertext.clone(), now };
            let is_new = vault.store.set_secret(new, audit).await?;
            vault.sealed.write().unwrap_or_else(PoisonError::into_inner).insert(name, ciphertext);
            Ok(is_new)
        })
        .await
    }

    /// Forgets it, whether or not grants name it: a key that has leaked has to go at once. Needs no
    /// key.
    pub async fn delete(&self, name: SecretName, who: Who) -> Result<(), VaultError> {
        let vault = self.0.clone();
        carried_through(async move {
            let _turn = vault.turn.lock().await;
            let audit = entry(&who, AuditAction::DeleteSecret, &name, vault.clock.now());
            let was_there = vault.store.delete_secret(&name, audit).await?;
            vault.sealed.write().unwrap_or_else(PoisonError::into_inner).remove(&name);
            if was_there { Ok(()) } else { Err(VaultError::Unknown(name)) }
        })
        .await
    }

    /// All of them, by name.
    pub async fn list(&self) -> Result<Vec<SecretView>, StoreError> {
        let stored = self.0.store.secrets().await?;
        Ok(stored.into_iter().map(|secret| self.view(secret)).collect())
    }

    fn view(&self, secret: SealedSecret) -> SecretView {
        let SealedSecret { name, ciphertext, created_at, updated_at } = secret;
        let usable = self.0.key.as_ref().is_some_and(|key| key.open(&name, &ciphertext).is_ok());
        SecretView { name, created_at, updated_at, usable }
    }
}

/// Who and when: of the secret there is only its name.
fn entry(who: &Who, action: AuditAction, name: &SecretName, now: Timestamp) -> AuditEntry {
    AuditEntry { target: Some(name.to_string()), ..who.entry(action, now) }
}

impl Secrets for Vault {
    fn reveal(&self, name: &SecretName) -> Option<Zeroizing<String>> {
        let sealed = self.0.sealed.read().unwrap_or_else(PoisonError::into_inner);
        self.0.key.as_ref()?.open(name, sealed.get(name)?).ok()
    }
}

//! Which executions have a text in their id, without looking at each of a million.
//!
//! An index of every three characters (the trigram tokenizer of SQLite's FTS5) in a file of its
//! own, `<data directory>/search.db`. It is filled shortly after executions have been started, by
//! a task that nobody waits for: within the start itself it would be several more pages in each
//! commit. What is not in it yet are the newest few, and a search looks at these one by one. So a
//! search is exact whatever the index has; without it, it is slow. The file can be deleted at any
//! time.

mod file;
mod filling;

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use sqlx::{Row as _, SqlitePool, sqlite::SqliteConnectOptions};
use tokio::task::AbortHandle;

use super::{
    StoreError, codec,
    queries::search::{FEW_MAX, Hits, IdHits},
};

/// What a character sequence of the index has.
const GRAM_CHARS: usize = 3;
/// A longer text is looked for by some of its sequences, for each of them costs; what they find has to
/// be compared with the text. Measured for a whole UUID among a million: 16 ms with all, 2 ms so.
const PHRASE_CHARS_MAX: usize = 8;
const SAMPLED_MAX: usize = 4;
/// No execution has a longer id.
const ID_CHARS_MAX: usize = 255;

pub(super) struct Search {
    shared: Arc<Shared>,
    filling: AbortHandle,
}

/// What the task that fills the index has for those who search.
#[derive(Default)]
struct Shared {
    /// None while it cannot be used, or has too much to catch up with.
    readers: Mutex<Option<SqlitePool>>,
    /// A search has found that it holds what it should not.
    damaged: AtomicBool,
}

impl Shared {
    fn readers(&self) -> Option<SqlitePool> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn put(&self, readers: Option<SqlitePool>) -> Option<SqlitePool> {
        std::mem::replace(&mut self.readers.lock().unwrap_or_else(PoisonError::into_inner), readers)
    }
}

impl Search {
    /// Begins to fill the index of the database that `database` reads.
    pub(super) fn begin(data_dir: &Path, database: SqliteConnectOptions) -> Self {
        let shared = Arc::<Shared>::default();
        let filling = filling::run(data_dir.join("search.db"), database, Arc::clone(&shared));
        Search { shared, filling: tokio::spawn(filling).abort_handle() }
    }

    /// The executions that have `text` in their id, its ASCII letters in lower case, as far as the
    /// index knows. None where it cannot say.
    pub(super) async fn ids_with(&self, text: &str) -> Option<IdHits> {
        let chars = text.chars().count();
        // FTS5 takes a text to end at its first NUL; no id has one.
        if chars > ID_CHARS_MAX || text.contains('\0') {
            return Some(IdHits { up_to: i64::MAX, hits: Hits::Few(Vec::new()) });
        }
        if chars < GRAM_CHARS {
            return None;
        }
        let readers = self.shared.readers()?;
        let hits = async { hits(&mut *readers.acquire().await?, text).await };
        match hits.await {
            Ok(hits) => Some(hits),
            Err(error) => {
                if let StoreError::Corrupt(_) = &error {
                    self.shared.damaged.store(true, Ordering::Relaxed);
                }
                tracing::warn!(%error, "the index of executions' ids could not be asked; looking at each of them");
                None
            }
        }
    }

    pub(super) async fn close(&self) {
        self.filling.abort();
        if let Some(readers) = self.shared.put(None) {
            readers.close().await;
        }
    }
}

async fn hits(reader: &mut sqlx::SqliteConnection, text: &str) -> Result<IdHits, StoreError> {
    // Read first: what is added after this is in the rest that is looked at one by one.
    let up_to: i64 = sqlx::query_scalar("select up_to from progress").fetch_one(&mut *reader).await?;
    if let Some(sampled) = sampled(text)
        && let Some(keys) = few(reader, &sampled, up_to).await?
    {
        return Ok(IdHits { up_to, hits: Hits::Among(keys) });
    }
    let phrase = quoted(text);
    if let Some(keys) = few(reader, &phrase, up_to).await? {
        return Ok(IdHits { up_to, hits: Hits::Few(keys) });
    }
    let count = sqlx::query_scalar("select count(*) from ids where ids match $1 and rowid <= $2")
        .bind(&phrase)
        .bind(up_to)
        .fetch_one(reader)
        .await?;
    Ok(IdHits { up_to, hits: Hits::Many(codec::number("a count", count)?) })
}

/// What matches up to there, unless it is too much.
async fn few(
    reader: &mut sqlx::SqliteConnection,
    query: &str,
    up_to: i64,
) -> Result<Option<Vec<i64>>, StoreError> {
    let rows = sqlx::query("select rowid from ids where ids match $1 and rowid <= $2 limit $3")
        .bind(query)
        .bind(up_to)
        .bind(FEW_MAX as i64 + 1)
        .fetch_all(reader)
        .await?;
    if rows.len() > FEW_MAX {
        return Ok(None);
    }
    Ok(Some(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// Sequences that all have to be in what has a long text. Of letters and digits where there are such:
/// what joins the parts of an id is at the same place in all ids, and tells nothing.
fn sampled(text: &str) -> Option<String> {
    let chars: Vec<char> = text.chars().collect();
    if chars.len() <= PHRASE_CHARS_MAX {
        return None;
    }
    let grams: Vec<&[char]> = chars.chunks_exact(GRAM_CHARS).collect();
    let telling: Vec<&[char]> =
        grams.iter().copied().filter(|gram| gram.iter().all(|char| char.is_alphanumeric())).collect();
    let chosen = if telling.is_empty() { grams } else { telling };
    let quoted: Vec<String> =
        chosen.into_iter().take(SAMPLED_MAX).map(|gram| quoted(&String::from_iter(gram))).collect();
    Some(quoted.join(" AND "))
}

//! What an error of the database means for a caller.

use super::StoreError;

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(database) => {
                let code = database.code().and_then(|code| code.parse::<i32>().ok()).unwrap_or(0);
                of_code(code, database.message())
            }
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => StoreError::Unavailable(error.to_string()),
            _ => StoreError::Corrupt(error.to_string()),
        }
    }
}

/// By SQLite's result codes (<https://sqlite.org/rescode.html>); the low byte is the primary one.
fn of_code(code: i32, message: &str) -> StoreError {
    let unavailable = |what: &str| StoreError::Unavailable(format!("{what} ({message}, code {code})"));
    match code & 0xff {
        3 | 23 => unavailable("its file may not be accessed; look at the permissions of the data directory"),
        5 | 6 => unavailable("another program holds its file locked"),
        7 => unavailable("out of memory"),
        8 => unavailable("its file cannot be written to; look at the file system of the data directory"),
        9 => unavailable("interrupted"),
        10 => unavailable("its file cannot be read or written; look at the disk of the data directory"),
        13 => unavailable("the disk of the data directory is full; make room"),
        14 => unavailable("its file cannot be opened; look at the data directory"),
        _ => StoreError::Corrupt(format!("{message} (code {code})")),
    }
}

impl StoreError {
    /// The same again, for the next who asked.
    pub(crate) fn again(&self) -> Self {
        match self {
            StoreError::ClaimLost => StoreError::ClaimLost,
            StoreError::Unavailable(why) => StoreError::Unavailable(why.clone()),
            StoreError::Corrupt(what) => StoreError::Corrupt(what.clone()),
        }
    }
}

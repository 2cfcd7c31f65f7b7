//! Statements over many rows.
//!
//! Every statement is a round trip to the connection's own thread, so what is to be done to many
//! rows is done in one statement over a list of values. The lists come in a few fixed widths,
//! padded with nulls, so that each text is prepared once and used again.

use std::sync::Arc;

use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, Either, Executor, query::Query, sqlite::SqliteArguments};

use super::{Connection, Row};
use crate::store::StoreError;

/// How many rows a wide statement takes. The widest binds at most 256 × 14 of SQLite's 32,766
/// parameters.
const WIDTHS: [usize; 7] = [1, 4, 16, 32, 64, 128, 256];
const WIDEST: usize = WIDTHS[WIDTHS.len() - 1];

/// What stands in a parameter.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Int(i64),
    Text(Arc<str>),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::Int(value)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.into())
    }
}

impl From<Arc<str>> for Value {
    fn from(text: Arc<str>) -> Self {
        Value::Text(text)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// A statement with its values, ready to run.
pub(crate) struct Statement {
    sql: String,
    values: Vec<Value>,
}

/// Statements that together do the same to all of `rows`. `sql` makes the text around a list of
/// values; a row of nulls in it must do nothing.
pub(crate) fn wide<const COLUMNS: usize>(
    rows: &[[Value; COLUMNS]],
    sql: impl Fn(&str) -> String,
) -> Vec<Statement> {
    rows.chunks(WIDEST)
        .map(|chunk| {
            let width = WIDTHS.into_iter().find(|width| *width >= chunk.len()).unwrap_or(WIDEST);
            let mut values = Vec::with_capacity(width * COLUMNS);
            values.extend(chunk.iter().flatten().cloned());
            values.resize(width * COLUMNS, Value::Null);
            Statement { sql: sql(&value_list(width, COLUMNS)), values }
        })
        .collect()
}

/// `values (?,?),(?,?)`
fn value_list(rows: usize, columns: usize) -> String {
    let row = format!("({})", vec!["?"; columns].join(","));
    let mut list = String::with_capacity("values ".len() + rows * (row.len() + 1));
    list.push_str("values ");
    for place in 0..rows {
        if place > 0 {
            list.push(',');
        }
        list.push_str(&row);
    }
    list
}

impl Statement {
    /// Runs it; how many rows it touched.
    pub(crate) async fn execute(self, connection: &mut Connection) -> Result<u64, StoreError> {
        Ok(query(self.sql, self.values).execute(connection).await?.rows_affected())
    }

    /// Runs it; in the words of the trigger that refuses it, why, if one does. Then nothing was done.
    pub(crate) async fn offer(self, connection: &mut Connection) -> Result<Option<String>, StoreError> {
        /// `SQLITE_CONSTRAINT_TRIGGER`: what `raise` comes to.
        const RAISED: &str = "1811";
        match query(self.sql, self.values).execute(connection).await {
            Ok(_) => Ok(None),
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(RAISED) => {
                Ok(Some(error.message().to_owned()))
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) async fn fetch(self, connection: &mut Connection) -> Result<Vec<Row>, StoreError> {
        Ok(query(self.sql, self.values).fetch_all(connection).await?)
    }
}

/// Runs all of them; how many rows they touched together.
pub(crate) async fn execute_all(
    connection: &mut Connection,
    statements: Vec<Statement>,
) -> Result<u64, StoreError> {
    let mut touched = 0;
    for statement in statements {
        touched += statement.execute(connection).await?;
    }
    Ok(touched)
}

pub(crate) async fn fetch_all(
    connection: &mut Connection,
    statements: Vec<Statement>,
) -> Result<Vec<Row>, StoreError> {
    let mut rows = Vec::new();
    for statement in statements {
        rows.extend(statement.fetch(connection).await?);
    }
    Ok(rows)
}

/// Runs a few statements one after the other, in one round trip; the rows of each.
pub(crate) async fn fetch_each(
    connection: &mut Connection,
    statements: Vec<Statement>,
) -> Result<Vec<Vec<Row>>, StoreError> {
    let count = statements.len();
    let (sql, values) = joined(statements);
    let (mut all, mut rows) = (Vec::with_capacity(count), Vec::new());
    let mut results = connection.fetch_many(query(sql, values));
    while let Some(result) = results.try_next().await? {
        match result {
            Either::Right(row) => rows.push(row),
            Either::Left(_) => all.push(std::mem::take(&mut rows)),
        }
    }
    match all.len() == count {
        true => Ok(all),
        false => Err(StoreError::Corrupt("not every statement had an answer".to_owned())),
    }
}

/// What a statement came to.
pub(crate) struct Done {
    pub rows: Vec<Row>,
    pub touched: u64,
}

/// Runs a few statements as a transaction of their own, in one round trip; what each came to. A
/// single one commits by itself. `so_far` is shown what has been done after each of them, while the
/// next ones are at work, the commit among them.
pub(crate) async fn transact(
    connection: &mut Connection,
    statements: Vec<Statement>,
    mut so_far: impl FnMut(&[Done]) -> Result<(), StoreError>,
) -> Result<Vec<Done>, StoreError> {
    let count = statements.len();
    let (mut sql, values) = joined(statements);
    // Those that begin and end the transaction answer too.
    let around = usize::from(count > 1);
    if count > 1 {
        sql = format!("begin immediate;\n{sql}commit");
    }
    let (mut all, mut rows) = (Vec::with_capacity(count + 2), Vec::new());
    let mut results = connection.fetch_many(query(sql, values));
    while let Some(result) = results.try_next().await? {
        match result {
            Either::Right(row) => rows.push(row),
            Either::Left(done) => {
                all.push(Done { rows: std::mem::take(&mut rows), touched: done.rows_affected() });
                if all.len() > around && all.len() <= around + count {
                    so_far(&all[around..])?;
                }
            }
        }
    }
    if all.len() != count + 2 * around {
        return Err(StoreError::Corrupt("not every statement had an answer".to_owned()));
    }
    Ok(all.into_iter().skip(around).take(count).collect())
}

/// One text that is all of them, and their values.
fn joined(statements: Vec<Statement>) -> (String, Vec<Value>) {
    let (mut sql, mut values) = (String::new(), Vec::new());
    for statement in statements {
        sql.push_str(&statement.sql);
        sql.push_str(";\n");
        values.extend(statement.values);
    }
    (sql, values)
}

fn query(sql: String, values: Vec<Value>) -> Query<'static, sqlx::Sqlite, SqliteArguments> {
    values.into_iter().fold(sqlx::query(AssertSqlSafe(sql)), |query, value| match value {
        Value::Null => query.bind(None::<i64>),
        Value::Int(value) => query.bind(value),
        Value::Text(text) => query.bind(text),
    })
}

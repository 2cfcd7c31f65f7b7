//! What comes alone goes to the database as one statement.
//!
//! sqlx runs SQLite on a thread of its own and sends back what each statement of a text came to; the
//! two threads wake and hinder each other over every one of them, and the disk has nothing to do
//! meanwhile. So the statements of a start, and those of a commit, stand in a trigger: what is inserted
//! into its view is carried out by them, behind the same fences as in a batch. The views are temporary,
//! so they belong to the connection that writes and to this program, not to the database.

use super::{
    Connection,
    commits::{self, Encoded, FENCE},
    executions::{self, EXECUTION_ROW, Numbered, RUN_ROW, Start},
    statement::{Value, execute_all, wide},
};
use crate::store::StoreError;

/// Why a start is refused: the id is taken, or the version is not there.
const NOT_STARTED: &str = "the execution was not started";

/// Of one commit: the bodies and the numbers of the events as JSON.
const ONE_COMMIT: &str = "run_key, epoch, first_number, bodies, consumed, stands, status, at_ms, due_ms, waiting, \
                          awaited_event, claim_state, result, error, trouble, trouble_shape";
const CLAIM_LOST: &str = "the claim is lost";
const NOT_CONSUMED: &str = "an event is not there to be consumed";

/// Larger ones cost more to pack into JSON and to unpack again than a few round trips do.
const PACKED_BYTES_MAX: usize = 16 << 10;
const PACKED_ROWS_MAX: usize = 16;

/// For each connection that writes.
pub(crate) async fn set_up(connection: &mut Connection) -> Result<(), StoreError> {
    let one_start = &format!("{EXECUTION_ROW}, {RUN_ROW}, bodies");
    for sql in [
        view("one_start", one_start),
        trigger(
            "one_start",
            &[
                executions::insert_executions_of(&new(one_start, "n", "")),
                format!(
                    "select raise(abort, '{NOT_STARTED}')
                      where not exists (select 1 from executions where execution_key = new.execution_key)"
                ),
                executions::insert_runs_of(&new(one_start, "n", "")),
                executions::insert_first_records_of(
                    "(select new.run_key as run_key, j.key as number, j.value as body
                        from json_each(new.bodies) j) c",
                ),
            ],
        ),
        view("one_commit", ONE_COMMIT),
        trigger(
            "one_commit",
            &[
                format!(
                    "select raise(abort, '{CLAIM_LOST}')
                      where not exists (select 1 from {} join runs r on {FENCE})",
                    new("run_key, epoch", "c", "")
                ),
                commits::insert_records_of(
                    "(select new.run_key as run_key, new.epoch as epoch, new.first_number + j.key as number,
                             j.value as body
                        from json_each(new.bodies) j) c",
                ),
                commits::consume_events_of(
                    "(select new.run_key as run_key, new.epoch as epoch, j.value as seq
                        from json_each(new.consumed) j) c",
                ),
                format!(
                    "select raise(abort, '{NOT_CONSUMED}')
                      where changes() <> json_array_length(new.consumed)"
                ),
                commits::end_executions_of(&new(ONE_COMMIT, "c", "where new.at_ms is not null")),
                commits::change_runs_of(&new(ONE_COMMIT, "c", "where new.claim_state is not null")),
            ],
        ),
    ] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *connection).await?;
    }
    Ok(())
}

fn view(name: &str, columns: &str) -> String {
    let nulls: Vec<String> = columns.split(", ").map(|column| format!("null as {column}")).collect();
    format!("create temp view {name} as select {}", nulls.join(", "))
}

fn trigger(view: &str, statements: &[String]) -> String {
    let statements = statements.join(";\n");
    format!("create temp trigger {view}_is_carried_out instead of insert on {view} begin\n{statements};\nend")
}

/// These columns of the row that is inserted, as a table of one row.
fn new(columns: &str, name: &str, condition: &str) -> String {
    let columns: Vec<String> =
        columns.split(", ").map(|column| format!("new.{column} as {column}")).collect();
    format!("(select {} {condition}) {name}", columns.join(", "))
}

/// Inserts `row` into `view`; in the words of the trigger, why it is refused, if it is.
async fn insert<const COLUMNS: usize>(
    connection: &mut Connection,
    view: &str,
    columns: &str,
    row: [Value; COLUMNS],
) -> Result<Option<String>, StoreError> {
    for statement in wide(&[row], |values| format!("insert into {view} ({columns}) {values}")) {
        if let Some(why) = statement.offer(connection).await? {
            return Ok(Some(why));
        }
    }
    Ok(None)
}

/// Whether it was started: the id is free and the version is there.
pub(crate) async fn start(connection: &mut Connection, start: &Numbered<'_>) -> Result<bool, StoreError> {
    let bodies = start.2.commit().map_or(Ok(Value::Null), Encoded::packed_bodies)?;
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n] = executions::execution_row(start);
    let [o, p, q, r, s, t, u, v] = executions::run_row(start);
    let row = [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, bodies];
    match insert(connection, "one_start", &format!("{EXECUTION_ROW}, {RUN_ROW}, bodies"), row).await? {
        None => Ok(true),
        Some(why) if why == NOT_STARTED => Ok(false),
        Some(why) => Err(StoreError::Corrupt(why)),
    }
}

/// Whether [`commit`] will do.
pub(crate) fn can_be(commit: &Encoded) -> bool {
    is_small(commit) || commit.only_records()
}

/// Whether [`start`] will do.
pub(crate) fn can_start(start: &Start) -> bool {
    start.commit().is_none_or(is_small)
}

fn is_small(commit: &Encoded) -> bool {
    commit.bytes() <= PACKED_BYTES_MAX && commit.rows() <= PACKED_ROWS_MAX
}

/// Commits one by itself.
pub(crate) async fn commit(connection: &mut Connection, commit: &Encoded) -> Result<(), StoreError> {
    if commit.only_records() {
        // One statement as it is.
        return match execute_all(connection, commits::insert_records(&[commit])).await? {
            0 => Err(StoreError::ClaimLost),
            _ => Ok(()),
        };
    }
    match insert(connection, "one_commit", ONE_COMMIT, commit.row()?).await? {
        None => Ok(()),
        Some(why) if why == CLAIM_LOST => Err(StoreError::ClaimLost),
        Some(why) => Err(StoreError::Corrupt(why)),
    }
}

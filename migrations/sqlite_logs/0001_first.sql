-- What guests print. A file of its own (logs.db), beside the database of the runs: nothing here is
-- waited for, and losing it loses no run.

create table log_runs (
    run_key      integer primary key,
    run_id       text    not null unique,
    execution_id text    not null,
    -- Those that are there, and what they count for.
    lines        integer not null,
    bytes        integer not null,
    -- Lines that had to make room for later ones.
    dropped      integer not null,
    -- The last line's.
    last_ms      integer not null
) strict;

-- The log of an execution.
create index log_runs_by_execution on log_runs (execution_id);
-- Which run's log goes first when there is too much.
create index log_runs_by_age on log_runs (last_ms, run_key);

create table log_lines (
    sequence integer primary key,
    run_key  integer not null references log_runs,
    at_ms    integer not null,
    -- Both null for the handler.
    step     text,
    attempt  integer,
    -- 0 trace, 1 debug, 2 info, 3 warn, 4 error.
    level    integer not null,
    target   text    not null,
    message  text    not null
) strict;

-- The log of a run, in its order.
create index log_lines_by_run on log_lines (run_key, sequence);

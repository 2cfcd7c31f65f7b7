-- What a client asked for, as the lists show it. Everything that a list filters or sorts by is
-- here; what changes with every wait is in `runs`, so that a large payload is not written again.
create table executions (
    -- Ascending: hot rows lie side by side, and it breaks the ties of every order.
    execution_key integer primary key,
    execution_id  text    not null unique,
    task_name     text    not null,
    -- Of the first start, to tell a repeated start from a clash.
    fingerprint   text    not null,
    status        text    not null check (status in ('scheduled', 'running', 'completed', 'failed', 'cancelled')),
    scheduled_ms  integer not null,
    -- Null exactly while the execution is not over.
    completed_ms  integer,
    -- The current run.
    run_key       integer not null,
    run_index     integer not null,
    version       integer not null,
    result        text,
    error         text,
    -- Why it failed, as what it has in common with others: a fingerprint, and what that stands for
    -- as JSON. Null unless it is failed.
    trouble       text,
    trouble_shape text,
    -- Of the first start. The largest comes last: what stands before it is read without its
    -- overflow pages.
    payload       text    not null
) strict;

-- The lists: everything, of one status, of one task; newest or oldest first.
create index executions_by_time on executions (scheduled_ms);
create index executions_by_status on executions (status, scheduled_ms);
create index executions_by_task on executions (task_name, scheduled_ms);
-- What went wrong, of one task. Along one of the two above, a list by task and status would look at
-- all that is only one of them; for what went well, which is most, that is soon done.
create index executions_gone_wrong on executions (task_name, status, scheduled_ms)
    where status = 'failed' or status = 'cancelled';

-- How many executions of each version of a task have each status: what a list says of its length, the
-- statistics, and what still needs a version. Counting a million rows takes longer than the list
-- itself.
create table execution_counts (
    task_name  text    not null,
    version    integer not null,
    status     text    not null,
    executions integer not null,
    primary key (task_name, version, status)
) strict, without rowid;

create trigger executions_are_counted after insert on executions
begin
    insert into execution_counts (task_name, version, status, executions)
        values (new.task_name, new.version, new.status, 1)
        on conflict (task_name, version, status) do update set executions = executions + 1;
end;

create trigger executions_are_counted_anew after update of status, version on executions
    when old.status <> new.status or old.version <> new.version
begin
    update execution_counts set executions = executions - 1
     where task_name = old.task_name and version = old.version and status = old.status;
    insert into execution_counts (task_name, version, status, executions)
        values (new.task_name, new.version, new.status, 1)
        on conflict (task_name, version, status) do update set executions = executions + 1;
end;

create trigger executions_are_counted_no_more after delete on executions
begin
    update execution_counts set executions = executions - 1
     where task_name = old.task_name and version = old.version and status = old.status;
end;

-- What failed executions have in common.
create index executions_by_trouble on executions (trouble, completed_ms) where trouble is not null;

-- One go at an execution: how it stands, and who holds it. Its id is made of the execution's
-- id and its index, so it needs no column.
create table runs (
    run_key       integer primary key,
    execution_key integer not null references executions,
    run_index     integer not null,
    version       integer not null,
    trigger       text    not null,
    status        text    not null check (status in ('scheduled', 'running', 'completed', 'failed', 'cancelled')),
    created_ms    integer not null,
    -- At the first claim.
    started_ms    integer,
    completed_ms  integer,
    -- When the execution's time is up.
    deadline_ms   integer,
    -- The number of the last claim; 0 before the first.
    claim_epoch   integer not null,
    -- 'abandoned': its holder died.
    claim_state   text    not null check (claim_state in ('free', 'held', 'abandoned')),
    -- The length of the journal at the last claim; -1 once the claim has come to a wait.
    claim_records integer not null,
    -- Claims in a row that were abandoned without having recorded anything.
    crashes       integer not null,
    -- When to look at it again.
    due_ms        integer,
    -- What it stands at, as JSON, and the name of the event if it is one.
    waiting       text,
    awaited_event text,
    triggered_by  text,
    -- Of a run that is not the current one any more; those of the current one are the execution's.
    result        text,
    error         text,
    -- Null: the execution's.
    payload       text,
    unique (execution_key, run_index)
) strict;

-- The journals. `body` is the record as JSON, its kind inside. The rows lie in the order in which
-- they came, and the index finds those of a run: keyed by run, each of 500 runs that record
-- something at once would dirty a page of its own (measured: three times as slow, seven times as
-- much written).
create table records (
    seq     integer primary key,
    run_key integer not null,
    number  integer not null,
    body    text    not null,
    unique (run_key, number)
) strict;

-- What was sent to executions, in the order of arrival.
create table events (
    seq           integer primary key,
    execution_key integer not null references executions,
    name          text    not null,
    received_ms   integer not null,
    -- The run whose journal has it; null while nobody has.
    consumed_by   integer,
    payload       text    not null
) strict;

-- What a run still has before it.
create index events_pending on events (execution_key, seq) where consumed_by is null;

-- The registered tasks. A row outlives its module, so that no version number is given twice.
create table modules (
    task_name      text    primary key not null,
    -- Null: removed, or none of its versions has been granted what it wants.
    active_version integer,
    versions_given integer not null
) strict;

create table module_versions (
    task_name      text    not null references modules,
    version        integer not null,
    digest         text    not null references components,
    size_bytes     integer not null,
    compiled_in_ms integer not null,
    created_ms     integer not null,
    -- 1: becomes active by itself when it is granted what it wants; 0 again once it, or a newer one,
    -- has been active.
    waiting        integer not null check (waiting in (0, 1)),
    manifest       text    not null,
    primary key (task_name, version)
) strict;

-- What an admin has set for a task, as JSON. May be there before any module of the task is; goes
-- with its module.
create table task_settings (
    task_name text primary key not null,
    grants    text not null,
    limits    text not null
) strict;

-- The bytes, once for all versions that have them.
create table components (
    digest text primary key not null,
    bytes  blob not null
) strict;

-- Orders to hold what matches all that they name. A deleted one stays to be seen.
create table pause_rules (
    rule_key     integer primary key,
    rule_id      text    not null unique,
    execution_id text,
    task_name    text,
    step_pattern text,
    created_ms   integer not null,
    created_by   text,
    reason       text,
    expires_ms   integer,
    deleted_ms   integer,
    deleted_by   text
) strict;

-- Who did what. Each entry's hash covers the entry and the hash before it.
create table audit (
    -- From 1, without gaps.
    number       integer primary key,
    at_ms        integer not null,
    actor        text,
    action       text    not null,
    execution_id text,
    task_name    text,
    target       text,
    -- As JSON.
    before       text    not null,
    after        text    not null,
    reason       text,
    hash         text    not null
) strict;

create index audit_by_time on audit (at_ms);
create index audit_by_action on audit (action);
create index audit_by_actor on audit (actor) where actor is not null;
create index audit_by_execution on audit (execution_id) where execution_id is not null;
create index audit_by_task on audit (task_name) where task_name is not null;

-- Against mistakes, not against somebody who owns the file: that is what the hashes are for.
create trigger audit_is_not_altered before update on audit
begin
    select raise(abort, 'the audit trail is only ever added to');
end;

create trigger audit_is_not_shortened before delete on audit
begin
    select raise(abort, 'the audit trail is only ever added to');
end;

-- The same repair for many executions.
create table bulks (
    bulk_key   integer primary key,
    bulk_id    text    not null unique,
    -- As JSON, both.
    plan       text    not null,
    selection  text    not null,
    state      text    not null check (state in ('running', 'completed', 'stopped', 'cancelled')),
    why        text,
    created_ms integer not null,
    ended_ms   integer
) strict;

create table bulk_items (
    bulk_key      integer not null references bulks,
    -- Their order.
    number        integer not null,
    execution_key integer not null references executions,
    -- 'repaired': and not over since.
    state         text    not null check (state in ('pending', 'repaired', 'completed', 'failed', 'skipped')),
    -- Of one that was skipped or has failed again.
    why           text,
    primary key (bulk_key, number),
    unique (bulk_key, execution_key)
) strict;

-- What is next, what is under way, and how many there are of each.
create index bulk_items_by_state on bulk_items (bulk_key, state, number);

-- Written to find out whether the store can be written to.
create table pulse (
    id    integer primary key check (id = 1),
    beats integer not null
) strict;

insert into pulse (id, beats) values (1, 0);

-- What only outgoing requests may have. Encrypted by the host; the key is not here.
create table secrets (
    name       text    primary key,
    -- The first bytes say by which key; the name is sealed in, so that rows cannot be swapped.
    ciphertext blob    not null,
    created_ms integer not null,
    updated_ms integer not null
) strict;

-- 0015_deferred: events that only a change of the deployment can fix.
--
-- Why:    an event that lacks a partition, a column or a grant, while others of its function
--         are committed, must neither die nor hold the floor of its stream: it is stored
--         here and run again after the change.
-- Locks:  creates only; waits for nobody.
-- Growth: one row per deferred event and cluster; a source pauses at 100,000 rows or 1 GiB,
--         and a row is deleted when its event is committed, dead or dropped.
-- Undo:   drop the table, if it is empty.

create table tandem.deferred_event (
    key             uuid        not null,
    cluster         text        not null,
    function        text        not null,
    source          text        not null,
    id              text        not null,
    type            text        not null,
    subject         text        not null,
    position        bigint      generated always as identity,
    stream          text        not null,
    epoch           text        not null,
    sequence        numeric(20) not null,
    arrived_at      timestamptz not null,
    version         text        not null,
    fingerprint     text        not null,
    reason          text        not null,
    held            boolean     not null,
    attempts        integer     not null,
    first_failed_at timestamptz not null,
    last_failed_at  timestamptz not null default now(),
    next_run_at     timestamptz,
    event           bytea       not null,

    constraint deferred_event_pkey primary key (key, cluster)
);

create index deferred_event_fingerprint_idx on tandem.deferred_event (function, cluster, fingerprint, position);
create index deferred_event_run_idx on tandem.deferred_event (function, cluster, next_run_at) where next_run_at is not null;
create index deferred_event_id_idx on tandem.deferred_event (hashtextextended(id, 0));

comment on table tandem.deferred_event is
    'events that wait for a change of the deployment, one row per event, function and cluster; they never expire';
comment on column tandem.deferred_event.key is
    'the event''s key in the ledger, which keeps the row of the key while this one exists';
comment on column tandem.deferred_event.fingerprint is
    'what is missing: the SQLSTATE, and the table with the column or the constraint';
comment on column tandem.deferred_event.version is
    'the version of the function that could not commit the event, and has committed others meanwhile';
comment on column tandem.deferred_event.held is
    'the event is run only by tandem deferred run: its effects depend on the order of events, and no order is kept';
comment on column tandem.deferred_event.next_run_at is
    'when the event is run next; null: after the one of its fingerprint that has a time was committed';
comment on column tandem.deferred_event.event is
    'the CloudEvent in JSON, as bytes: it may hold characters that a text cannot';

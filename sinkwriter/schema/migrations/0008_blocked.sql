-- 0008_blocked: events that wait behind a dead letter of their subject.
--
-- Why:    with TANDEM_ORDERING=subject, what comes after a dead letter must wait for the
--         verdict on it. In the stream it would hold the floor, and with it the
--         retention of every event; a row here may wait for as long as it takes.
-- Locks:  creates only; waits for nobody.
-- Growth: one row per waiting event and cluster; a source stores at most 100,000 or 1 GiB,
--         and deletes each when it is committed or dead.
-- Undo:   drop the table, if it is empty.

create table tandem.blocked_event (
    function   text        not null,
    cluster    text        not null,
    source     text        not null,
    id         text        not null,
    position   bigint      generated always as identity,
    subject    text        not null,
    stream     text        not null,
    sequence   numeric(20) not null,
    arrived_at timestamptz not null,
    event      bytea       not null,
    stored_at  timestamptz not null default now(),

    constraint blocked_event_pkey primary key (function, cluster, source, id)
);

create index blocked_event_subject_idx on tandem.blocked_event (function, cluster, subject, position);
create index blocked_event_key_idx on tandem.blocked_event (tandem.key(function, source, id));

comment on table tandem.blocked_event is
    'events that wait behind a dead letter of their subject, one row per event, function and cluster';
comment on column tandem.blocked_event.position is
    'the order in which the events of a subject are delivered: that of the stream';
comment on column tandem.blocked_event.event is
    'the CloudEvent in JSON, as bytes: it may hold characters that a text cannot';

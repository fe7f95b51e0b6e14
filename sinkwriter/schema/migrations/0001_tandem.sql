-- 0001_tandem: the ledger that decides who wins, and what belongs to it.
--
-- Why:    the primary key of the ledger is what makes the first commit of an
--         event win. What else an event leaves behind (outputs that wait to be
--         published, dead letters, how far each cluster has come) rides in the
--         same database, so that a failover takes all of it or none.
-- Locks:  creates only; waits for nobody and nobody waits for it.
-- Growth: ledger one row an event and function, outbox as large as the backlog,
--         dead_letter one row a dead event and cluster, the others a handful.
-- Undo:   none. Dropping the ledger forgets what has been handled, and the next
--         redelivery would be applied and emitted again.

create table tandem.writer (
    writer     bigint      not null,
    cluster    text        not null,
    function   text        not null,
    version    text        not null,
    first_seen timestamptz not null default now(),

    constraint writer_pkey       primary key (writer),
    constraint writer_names_key  unique (cluster, function, version)
);

comment on table tandem.writer is
    'one row for each cluster, function and version that ever committed; the ledger refers to it';
comment on column tandem.writer.writer is
    'first 8 bytes of SHA-256 of cluster, function and version, each behind its length: the same wherever it is computed';

create table tandem.ledger (
    committed_at timestamptz not null default now(),
    writer       bigint      not null,
    key          uuid        not null,
    digest       bytea       not null,

    constraint ledger_pkey primary key (key)
);

comment on table tandem.ledger is
    'one row an event and function: who comes first here has won (select * from tandem.handled(function, source, id))';
comment on column tandem.ledger.key is
    'tandem.key(function, source, id)';
comment on column tandem.ledger.digest is
    'first 16 bytes of SHA-256 of the effects in canonical form, to find a loser that computed something else';
comment on column tandem.ledger.committed_at is
    'start of the transaction by the server''s clock; for people, nothing compares it';

create table tandem.outbox (
    id     bigint      generated always as identity,
    due    timestamptz not null default now() + interval '30 seconds',
    events text        not null,

    constraint outbox_pkey primary key (id)
);

comment on table tandem.outbox is
    'one row a batch: output events that are committed and not yet known to be published';
comment on column tandem.outbox.due is
    'from then on a relay takes the row over: its winner has not come back';
comment on column tandem.outbox.events is
    'CloudEvents in the JSON batch format; as text, since to check what we wrote ourselves costs a fifth of a commit (see tandem.outbox_event)';

-- The server's own compression takes longer than everything else about a row.
do $$
begin
    alter table tandem.outbox alter column events set compression lz4;
exception when feature_not_supported then -- a server built without it
    alter table tandem.outbox alter column events set storage external;
end
$$;

create view tandem.outbox_event as
select o.id, o.due, e ->> 'type' as type, e ->> 'source' as event_source, e ->> 'id' as event_id, e as event
from tandem.outbox o, json_array_elements(o.events::json) e;

comment on view tandem.outbox_event is
    'one row an event of the outbox';

create index outbox_due_idx on tandem.outbox (due);

create table tandem.dead_letter (
    function  text        not null,
    source    text        not null,
    id        text        not null,
    cluster   text        not null,
    type      text        not null,
    code      integer     not null,
    reason    text        not null,
    times     bigint      not null default 1,
    first_at  timestamptz not null default now(),
    last_at   timestamptz not null default now(),
    event     json        not null,

    constraint dead_letter_pkey primary key (function, source, id, cluster)
);

comment on table tandem.dead_letter is
    'events that a cluster could not get through a function; one row an event, function and cluster';
comment on column tandem.dead_letter.code is
    'the HTTP status that the function answered; 0 if it was not told';
comment on column tandem.dead_letter.times is
    'how often it was handed in';

create table tandem.progress (
    cluster  text        not null,
    function text        not null,
    stream   text        not null,
    epoch    text        not null,
    floor    numeric(20) not null,
    saved_at timestamptz not null default now(),

    constraint progress_pkey primary key (cluster, function, stream)
);

comment on table tandem.progress is
    'how far the source of each cluster has come in each stream';
comment on column tandem.progress.epoch is
    'tells one making of the stream from the next: its sequence numbers begin anew';
comment on column tandem.progress.floor is
    'every message with a lower sequence number is acknowledged';

-- The order of an id that has one: rules in functions.Order. Null without.
create function tandem.id_order(id text) returns bigint
    language sql immutable strict parallel safe
    as $$
select case
    when id collate "C" ~ '^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-7[0-9A-Fa-f]{3}-[89ABab][0-9A-Fa-f]{3}-[0-9A-Fa-f]{12}$'
        then ('x' || lpad(replace(left(id, 13), '-', ''), 16, '0'))::bit(64)::bigint
    when id collate "C" ~ '^[0-9]+-[0-9a-f]{16}$'
        then right(split_part(id, '-', 1), 14)::bigint
    when id collate "C" ~ '[0-9]$'
        then right(substring(id collate "C" from '[0-9]+$'), 14)::bigint
end
$$;

create function tandem.key(function text, source text, id text) returns uuid
    language sql immutable strict parallel safe
    as $$
select encode(coalesce(substr(int8send(tandem.id_order(id)), 3), substr(h, 11, 6)) || substr(h, 1, 10), 'hex')::uuid
from sha256('\x01'::bytea
    || int4send(octet_length(function)) || convert_to(function, 'UTF8')
    || int4send(octet_length(source)) || convert_to(source, 'UTF8')
    || int4send(octet_length(id)) || convert_to(id, 'UTF8')) as h
$$;

comment on function tandem.key(text, text, text) is
    'the ledger''s key of an event for a function; the same as sinkwriter.NewKey in Go';

create function tandem.handled(function text, source text, id text)
    returns table (cluster text, version text, committed_at timestamptz)
    language sql stable strict
    as $$
select w.cluster, w.version, l.committed_at
from tandem.ledger l left join tandem.writer w on w.writer = l.writer
where l.key = tandem.key(handled.function, handled.source, handled.id)
$$;

comment on function tandem.handled(text, text, text) is
    'whether an event was handled by a function, by which cluster and when; no row: it was not';

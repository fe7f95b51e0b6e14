-- 0002_memory: what losers computed otherwise, and how the ledger forgets.
--
-- Why:    a loser whose effects differ from the winner's is the only sign that
--         a function is not deterministic; somebody has to be able to look at
--         what it wanted. And the ledger cannot grow for ever: before a row
--         goes, it must be sure that no source delivers its event again.
-- Locks:  creates tables; adds columns with constant defaults to progress and
--         outbox, which waits for writers in flight and takes a moment.
-- Growth: divergence at most 1,000 rows a function and version; floor_sample one
--         row a stream and quarter of an hour, for as long as the retention.
-- Undo:   drop what it creates; nothing else refers to it.

create table tandem.divergence (
    function     text        not null,
    version      text        not null,
    source       text        not null,
    id           text        not null,
    lost_cluster text        not null,
    won_cluster  text        not null,
    lost_digest  bytea       not null,
    won_digest   bytea       not null,
    wanted       json        not null,
    found_at     timestamptz not null default now(),

    constraint divergence_pkey primary key (function, version, source, id, lost_cluster)
);

comment on table tandem.divergence is
    'events for which a loser computed something else than the winner, with the same version of the function; at most 1,000 a function and version';
comment on column tandem.divergence.wanted is
    'the effects that the loser computed; what the winner committed stands';

create table tandem.divergence_count (
    function     text        not null,
    lost_version text        not null,
    won_version  text        not null,
    lost_cluster text        not null,
    events       bigint      not null,
    last_at      timestamptz not null default now(),

    constraint divergence_count_pkey primary key (function, lost_version, won_version, lost_cluster)
);

comment on table tandem.divergence_count is
    'how often losers computed something else, also where the versions differ, as they do during a rollout';

alter table tandem.progress add column head numeric(20) not null default 0;

comment on column tandem.progress.head is
    'no message with this sequence number or a higher one had been delivered';

create table tandem.floor_sample (
    function text        not null,
    stream   text        not null,
    epoch    text        not null,
    taken_at timestamptz not null default now(),
    head     numeric(20) not null,

    constraint floor_sample_pkey primary key (function, stream, epoch, taken_at)
);

comment on table tandem.floor_sample is
    'how far the foremost cluster had come at a time: what was committed before belongs to messages below head';

create table tandem.horizon (
    function text        not null,
    stream   text        not null,
    epoch    text        not null,
    floor    numeric(20) not null,
    moved_at timestamptz not null default now(),

    constraint horizon_pkey primary key (function, stream, epoch)
);

comment on table tandem.horizon is
    'the ledger may have forgotten messages below floor: every cluster had acknowledged them, and no source delivers them';

-- The ledger's rows of events whose dead letter still exists stay.
create index dead_letter_key_idx on tandem.dead_letter (tandem.key(function, source, id));

-- The ledger shrinks and grows at the same pace for ever: clean up in small
-- portions, so that it does not swell to a fifth more in between.
alter table tandem.ledger set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.1);
alter table tandem.outbox set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- 0003_sources: what the sources of a function's clusters have to know of each
-- other, and what a source has to remember of an event that breaks the function.
--
-- Why:    a cluster may stand by only while another one does not; a source that
--         meets another timeline than the one it saved its progress on has lost
--         what came after; and how long an event has been tried must not begin
--         anew whenever the source does.
-- Locks:  adds columns with constant defaults to progress, which takes a moment;
--         creates the rest.
-- Growth: tries one row an event that breaks the function, until it is through or
--         dead; as many as a source has outstanding at most.
-- Undo:   drop what it creates; nothing else refers to it.

alter table tandem.progress
    add column hedge    text not null default '0',
    add column timeline text not null default '';

comment on column tandem.progress.hedge is
    'how much redundancy the cluster wants: 0 (race), a delay as 300ms (hedge), or standby';
comment on column tandem.progress.timeline is
    'tandem.timeline() when the row was saved; empty if that is not known';

create function tandem.timeline() returns text
    language plpgsql stable
    as $$
begin
    return (select system_identifier from pg_catalog.pg_control_system()) || '/'
        || pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8);
exception when insufficient_privilege or feature_not_supported or undefined_function then
    return ''; -- a service that hides it: floors have to do
end
$$;

comment on function tandem.timeline() is
    'which server this is and which of its histories it follows: another one after a failover, so that what was committed last may be gone';

create table tandem.tries (
    cluster  text        not null,
    function text        not null,
    stream   text        not null,
    epoch    text        not null,
    sequence numeric(20) not null,
    tries    integer     not null,
    tried_ms bigint      not null,
    saved_at timestamptz not null default now(),

    constraint tries_pkey primary key (cluster, function, stream, sequence)
);

comment on table tandem.tries is
    'events that break the function and are tried again; one row an event and cluster';
comment on column tandem.tries.tries is
    'how often the function answered 500';
comment on column tandem.tries.tried_ms is
    'for how many milliseconds it did so, without the times in which it answered otherwise or nobody asked';

-- 0013_source_lease: which replica of a source is active.
--
-- Why:    of several source processes with one cluster name and function, one delivers
--         at a time; the others take over when it ends. Two sites that use one cluster
--         name by mistake would each get half of the events.
-- Locks:  creates a table.
-- Growth: one row per cluster and function, updated once a second.
-- Undo:   drop it.

create table tandem.source_lease (
    cluster    text        not null,
    function   text        not null,
    site       text        not null,
    replica    text        not null,
    epoch      bigint      not null,
    renewed_at timestamptz not null,
    until      timestamptz not null,

    constraint source_lease_pkey primary key (cluster, function)
) with (fillfactor = 50);

comment on table tandem.source_lease is
    'the replica of a source that delivers; another one may take the lease after until, by the clock of this server';
comment on column tandem.source_lease.site is
    'where the replica runs: of two sites with one cluster name, the second is refused';
comment on column tandem.source_lease.epoch is
    'one more with each acquisition; what was begun in an earlier epoch stores nothing';

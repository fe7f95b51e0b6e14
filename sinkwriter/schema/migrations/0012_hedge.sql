-- 0012_hedge: how much redundancy was set for functions at run time.
--
-- Why:    it was in a bucket of JetStream, which only clusters on JetStream can read and
--         which may be out of reach while the database is not. Every source reads the
--         database, whatever its streams are.
-- Locks:  creates only; waits for nobody.
-- Growth: one row per function, and one per function and cluster that differs.
-- Undo:   drop the table; sources of this version keep what they read last, and deliver
--         nothing after a restart.

create table tandem.hedge (
    function text        not null,
    cluster  text        not null,
    value    text        not null,
    set_at   timestamptz not null default now(),

    constraint hedge_pkey primary key (function, cluster)
);

comment on table tandem.hedge is
    'how much redundancy was set for functions at run time, by tandem hedge; without a row TANDEM_HEDGE of each source counts';
comment on column tandem.hedge.cluster is
    'the cluster that the row is for, or empty for all clusters; the row of one cluster wins';
comment on column tandem.hedge.value is
    '0 (race), a delay as 300ms (hedge), share, or standby';
comment on column tandem.progress.hedge is
    'how much redundancy the source last reported: 0 (race), a delay as 300ms (hedge), share, or standby; tandem.standby decides which clusters stand by';

-- 0007_standby: which clusters stand by.
--
-- Why:    progress.hedge is what a source reports with each checkpoint. A checkpoint
--         that was computed before the cluster stood by and is saved after it said
--         "works" again, and the next cluster was allowed to stand by too. A row
--         here is inserted and deleted explicitly and by nothing else.
-- Locks:  creates only; waits for nobody.
-- Growth: one row per function and cluster that stands by.
-- Undo:   drop the table; sources of this version then cannot stand by.

create table tandem.standby (
    function text        not null,
    cluster  text        not null,
    since    timestamptz not null default now(),

    constraint standby_pkey primary key (function, cluster)
);

comment on table tandem.standby is
    'clusters that stand by for a function: they deliver no events. A row is inserted only while another cluster is at work';
comment on column tandem.progress.hedge is
    'how much redundancy the source last reported: 0 (race), a delay as 300ms (hedge), or standby; tandem.standby decides which clusters stand by';

-- 0001_seen: the events that the scenarios sent, as the function was given them.
--
-- Why:    what a scenario expects is compared with what stands here.
-- Locks:  creates only.
-- Growth: a row per event; emptied before each scenario.
-- Undo:   drop the table.

create table seen (
    source     text  not null,
    id         text  not null,
    attributes text  not null,
    data       bytea,

    constraint seen_pkey primary key (source, id)
);

comment on column seen.attributes is 'name to value, in JSON';
comment on column seen.data is 'null for an event without data';

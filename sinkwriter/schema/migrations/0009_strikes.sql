-- 0009_strikes: events on which the process of a function ends.
--
-- Why:    an event that ends the process is a dead letter after three strikes, however
--         often its source restarts; and one cluster at a time finds out which event
--         it is, so that they are not all down.
-- Locks:  adds a column with a constant default to tries, which takes a moment; creates
--         a table.
-- Growth: suspect_lease one row per function at most.
-- Undo:   drop both.

alter table tandem.tries add column strikes integer not null default 0;

comment on column tandem.tries.strikes is
    'how often the process of the function ended while it computed the event alone';

create table tandem.suspect_lease (
    function text        not null,
    cluster  text        not null,
    until    timestamptz not null,

    constraint suspect_lease_pkey primary key (function)
);

comment on table tandem.suspect_lease is
    'the cluster that tries the events that may have ended the process of a function; the others wait until it has released the lease, or until it expires';

-- 0010_strikes: events on which the process of a function ends.
--
-- Why:    an event that ends the process is a dead letter after three strikes, however
--         often its source restarts; and one cluster at a time tries it, so that they
--         are not all down.
-- Locks:  adds a column with a constant default to tries, which takes a moment; creates
--         a table.
-- Growth: suspect_lease one row per event that is tried; an hour after it expired it is
--         deleted with the next.
-- Undo:   drop both.

alter table tandem.tries add column strikes integer not null default 0;

comment on column tandem.tries.strikes is
    'how often the process of the function ended while it computed the event alone';

create table tandem.suspect_lease (
    key     uuid        not null,
    cluster text        not null,
    until   timestamptz not null,

    constraint suspect_lease_pkey primary key (key)
);

comment on table tandem.suspect_lease is
    'which cluster tries an event that may have ended the process of its function; the others wait until it has released the lease, or until it expires';

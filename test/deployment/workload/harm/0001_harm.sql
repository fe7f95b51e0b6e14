-- 0001_harm: the events that did no harm.
--
-- Why:    committed_at shows how late each of them was.
-- Locks:  creates only; waits for nobody and nobody waits for it.
-- Growth: one row an event.
-- Undo:   drop it.

create table harm_events (
    id           text        not null,
    sent_at      timestamptz not null,
    committed_at timestamptz not null default clock_timestamp(),

    constraint harm_events_pkey primary key (id)
);

-- 0001_flights: the flights that departed, and totals of each airport.
--
-- Why:    flights answers questions about one departure, airports about all of an
--         airport without reading them. Both are written in one transaction, so
--         the totals are the sums of the rows, always.
-- Locks:  creates only; waits for nobody and nobody waits for it.
-- Growth: flights one row an event, never updated; airports one row an airport,
--         updated by each of its flights.
-- Undo:   drop both tables. The ledger still knows the events, so they do not
--         come again.

create table flights (
    source      text      not null,
    flight_id   text      not null,
    departed_at timestamp not null,
    origin      text      not null,
    destination text      not null,
    distance    integer   not null,
    delay       integer   not null,

    constraint flights_pkey primary key (flight_id, source)
);

comment on table flights is
    'one row a departure; the first event with its source and id wins';
comment on column flights.source is
    'source of the event: an id alone may be used by another source, too';
comment on column flights.flight_id is
    'id of the event';
comment on column flights.departed_at is
    'local time at the origin, as the event has it; the time zone is not known';
comment on column flights.distance is
    'miles';
comment on column flights.delay is
    'minutes; negative is early';

create table airports (
    airport       text   not null,
    flights       bigint not null default 0,
    delay_minutes bigint not null default 0,

    constraint airports_pkey primary key (airport)
);

comment on table airports is
    'one row an airport that something departed from, with the totals of its flights';
comment on column airports.delay_minutes is
    'sum of the delays; early departures count against late ones';

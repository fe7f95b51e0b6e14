package consume

// The effects of a flight in one statement, which every peer executes for a new
// event.
const effectsSQL = `with flight as (
	insert into flights (source, flight_id, departed_at, origin, destination, distance, delay)
	values ($1, $2, $3, $4, $5, $6, $7)
	on conflict (flight_id, source) do update set departed_at = excluded.departed_at, origin = excluded.origin,
		destination = excluded.destination, distance = excluded.distance, delay = excluded.delay
)
insert into airports (airport, flights, delay_minutes) values ($4, 1, $7)
on conflict (airport) do update set flights = airports.flights + 1,
	delay_minutes = airports.delay_minutes + excluded.delay_minutes`

// claimedEffectsSQL executes them only if the event has not been processed.
const claimedEffectsSQL = `with claim as (
	insert into processed (source, id) values ($1::text, $2::text) on conflict do nothing returning 1
), flight as (
	insert into flights (source, flight_id, departed_at, origin, destination, distance, delay)
	select $1::text, $2::text, $3::timestamp, $4::text, $5::text, $6::integer, $7::integer from claim
	on conflict (flight_id, source) do update set departed_at = excluded.departed_at, origin = excluded.origin,
		destination = excluded.destination, distance = excluded.distance, delay = excluded.delay
)
insert into airports (airport, flights, delay_minutes) select $4::text, 1, $7::integer from claim
on conflict (airport) do update set flights = airports.flights + 1,
	delay_minutes = airports.delay_minutes + excluded.delay_minutes`

// claimedAllSQL also puts the output, if there is one, into the outbox.
const claimedAllSQL = `with claim as (
	insert into processed (source, id) values ($1::text, $2::text) on conflict do nothing returning 1
), flight as (
	insert into flights (source, flight_id, departed_at, origin, destination, distance, delay)
	select $1::text, $2::text, $3::timestamp, $4::text, $5::text, $6::integer, $7::integer from claim
	on conflict (flight_id, source) do update set departed_at = excluded.departed_at, origin = excluded.origin,
		destination = excluded.destination, distance = excluded.distance, delay = excluded.delay
), emitted as (
	insert into outbound (event_id, subject, data) select $8::text, $4::text, $9::json from claim where $8::text <> ''
)
insert into airports (airport, flights, delay_minutes) select $4::text, 1, $7::integer from claim
on conflict (airport) do update set flights = airports.flights + 1,
	delay_minutes = airports.delay_minutes + excluded.delay_minutes`

// args returns the parameters of the effects.
func (d *departure) args() []any {
	return []any{d.Source, d.ID, d.DepartedAt, d.Origin, d.Destination, d.Distance, d.Delay}
}

// Tables are the tables of the consumers by hand: the processed events
// (Watermill's inbox, too), and the outbox.
const Tables = `create table processed (
	source       text        not null,
	id           text        not null,
	processed_at timestamptz not null default now(),
	primary key (source, id)
);
create table outbound (
	id       bigint generated always as identity primary key,
	event_id text   not null,
	subject  text   not null,
	data     json   not null
);`

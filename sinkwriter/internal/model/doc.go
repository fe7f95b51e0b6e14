// Package model is a reference model of sinkwriter: it predicts rows and outputs
// with plain maps, and generates events with random effects.
//
// Every event is generated from the seed and its number alone, so that nothing is
// stored and every run can be repeated. Because events are unordered, there are
// two kinds of tables. Some have a single result for every order: counters,
// newest-wins, rows that only one event writes. In the others each row must be the
// result of some order of the events.
package model

// Schema creates the tables and their initial rows. It needs the extension
// citext.
const Schema = `
create table counters (k text primary key, n bigint, m numeric);
create table counters_ci (k citext primary key, n bigint not null);
create table counters_pad (k char(8) primary key, n int not null);
create table counters_num (k numeric, l float8, n bigint not null, primary key (k, l));

create table newest (k text primary key, version bigint, a bigint, b text, deleted boolean not null default false);
insert into newest (k, a, b) select 'hot-' || i, 1, 'before' from generate_series(0, 4) i;

create table oldest (k text primary key, version bigint, a bigint, b text);
create table extremes (k text primary key, high bigint, word text, low bigint, least text) partition by hash (k);
create table extremes_0 partition of extremes for values with (modulus 2, remainder 0);
create table extremes_1 partition of extremes for values with (modulus 2, remainder 1);

create table amounts (k text primary key, i smallint, n numeric(14, 2), p numeric, m money);

create table accounts (k text primary key, owner text not null, version bigint, note text, n bigint not null, check (note <> owner), check (n > -1000000000));
insert into accounts (k, owner, n) select 'hot-' || i, 'owner', 7 from generate_series(0, 4) i;

create table levels (k text primary key, owner text not null, n bigint not null, constraint levels_n_check check (n >= 0));
insert into levels select 'level-' || i, 'owner', 20 from generate_series(0, 3) i;
create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no rows are added'; end $$;
create trigger refuse before insert on levels for each row execute function refuse();

create table last (k int primary key, a bigint, b text);
create table parts (k text primary key, a bigint, b bigint, c bigint);

create table parents (id text primary key, children bigint not null default 0);
create table children (id text primary key, parent text not null, note text,
    constraint children_parent_fkey foreign key (parent) references parents);

create table users (id text primary key, email text not null, constraint users_email_key unique (email));

create table audited (id text primary key, n int, constraint audited_n_check check (n < 1000));
create table audit (id text not null, n int);
create function audit() returns trigger language plpgsql as $$
begin
    if new.n < 0 then
        raise exception 'n is negative';
    end if;
    insert into audit values (new.id, new.n);
    return new;
end $$;
create trigger audit after insert on audited for each row execute function audit();

create table own (event text, slot int, a bigint, b text, version bigint, deleted boolean not null default false, primary key (event, slot));
create table base (event text, slot int, a bigint, b text, version bigint, deleted boolean not null default false, primary key (event, slot));
create table leaf (event text, slot int, of int, a bigint, primary key (event, slot), foreign key (event, of) references base (event, slot));

create table typed (id text primary key, n numeric, tz timestamptz, ts timestamp, d date, u uuid, j jsonb, ints int[], texts text[], f float8, by bytea, e boolean);

create table stock (item text primary key, remaining bigint not null check (remaining >= 0));
create table takings (event text, item text, n bigint, primary key (event, item));
create table members (room int, member int, primary key (room, member));
insert into members select room, member from generate_series(0, 4) room, generate_series(1, room) member;
create table inbox (event text, room int, member int, primary key (event, room, member));`

// Migrations returns statements that change the tables while events are written. They can
// be executed in a loop. No event must be affected.
func Migrations() []string {
	return []string{
		"alter table counters add column extra text",
		"alter table amounts alter i type int",
		"alter table newest add column extra int not null default 7",
		"create index newest_a on newest (a)",
		"alter table accounts add constraint accounts_n_check1 check (n < 1000000000)",
		"create function pass() returns trigger language plpgsql as $$ begin return new; end $$",
		"create trigger pass before insert or update on oldest for each row execute function pass()",
		"alter table extremes add column extra text",
		"alter table last alter b type varchar(200)",
		"alter table own add column extra text",
		"alter table levels add constraint levels_owner_check check (owner <> '')",
		"alter table counters drop column extra",
		"alter table amounts alter i type bigint",
		"alter table newest drop column extra",
		"drop index newest_a",
		"alter table accounts drop constraint accounts_n_check1",
		"drop trigger pass on oldest",
		"drop function pass()",
		"alter table extremes drop column extra",
		"alter table last alter b type text",
		"alter table own drop column extra",
		"alter table levels drop constraint levels_owner_check",
	}
}

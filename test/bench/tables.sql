-- The tables that the benchmark writes to: one row per event in orders, or 100 rows in total
-- in counters or revenues; processed and outbound are for a handler written by hand.
-- Explicitly in public, because a role called tandem would by default create
-- them in the schema with its own name.

create table public.orders (
    order_id  text        not null,
    customer  text        not null,
    amount    bigint      not null,
    placed_at timestamptz not null,
    note      text        not null,

    constraint orders_pkey primary key (order_id)
);

create table public.counters (
    counter text   not null,
    events  bigint not null,
    amount  bigint not null,

    constraint counters_pkey primary key (counter)
);

create table public.revenues (
    counter text           not null,
    events  bigint         not null,
    amount  numeric(14, 2) not null,

    constraint revenues_pkey primary key (counter)
);

create table public.processed (
    source       text        not null,
    id           text        not null,
    processed_at timestamptz not null default now(),

    constraint processed_pkey primary key (source, id)
);

create table public.outbound (
    id       bigint generated always as identity,
    source   text   not null,
    event_id text   not null,
    type     text   not null,
    data     json   not null,

    constraint outbound_pkey primary key (id)
);

-- What was ordered, and what each customer has spent.
--
-- The tables exist where another service has written them before.

create table if not exists orders (
    id       text   primary key,
    customer text   not null,
    amount   bigint not null
);

create table if not exists customers (
    customer text   primary key,
    orders   bigint not null default 0,
    spent    bigint not null default 0
);

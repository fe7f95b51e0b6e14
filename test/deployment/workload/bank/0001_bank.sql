-- 0001_bank: accounts and the transfers between them.
--
-- Why:    the sum of all balances is zero after every transaction, so any look
--         at them shows whether one was applied by half or twice.
-- Locks:  creates only; waits for nobody and nobody waits for it.
-- Growth: transfers one row an event, accounts as many as there are.
-- Undo:   drop both.

create table transfers (
    source   text   not null,
    id       text   not null,
    sender   text   not null,
    receiver text   not null,
    amount   bigint not null,

    constraint transfers_pkey primary key (id, source)
);

create table accounts (
    account   text   not null,
    balance   bigint not null default 0,
    transfers bigint not null default 0,

    constraint accounts_pkey primary key (account)
);

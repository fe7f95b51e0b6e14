-- 0009_outputs: outputs that their stream or sink rejects for good.
--
-- Why:    an output that is refused whatever is done about the surroundings stayed in
--         the outbox and was published again every 30 s. It is set aside here, where it
--         can be looked at, and leaves the outbox in the same transaction.
-- Locks:  creates only; waits for nobody.
-- Growth: one row per rejected output, until it is replayed or dropped.
-- Undo:   drop the table; functions and sources of this version then keep rejected
--         outputs in the outbox.

create table tandem.rejected_output (
    source   text        not null,
    id       text        not null,
    type     text        not null,
    code     integer     not null,
    reason   text        not null,
    times    bigint      not null default 1,
    first_at timestamptz not null default now(),
    last_at  timestamptz not null default now(),
    event    json        not null,

    constraint rejected_output_pkey primary key (source, id)
);

comment on table tandem.rejected_output is
    'outputs of committed events that their stream or sink rejected for good; one row per output';
comment on column tandem.rejected_output.code is
    'the HTTP status of the answer; 413 for an output that is too large for the stream';
comment on column tandem.rejected_output.times is
    'how often the output was rejected: more than once if it was published again before it was set aside';

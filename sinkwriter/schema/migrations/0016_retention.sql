-- 0016_retention: each function's source sets how long its own events are remembered.
--
-- Why:    one source's setting decided for the events of all functions. A source now notes
--         its setting beside its checkpoint, so that whichever process forgets old rows
--         knows that of each function.
-- Locks:  adds a column without a default to progress, which takes a moment.
-- Growth: none.
-- Undo:   drop the column.

alter table tandem.progress add column keep interval;

comment on column tandem.progress.keep is
    'how long the ledger remembers an event of the function after its commit, as the source of this cluster has it; null if the source has not noted it';

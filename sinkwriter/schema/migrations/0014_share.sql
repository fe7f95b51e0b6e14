-- 0014_share: clusters that share the events of a function know of each other.
--
-- Why:    which cluster goes first with an event follows from those that are fit to: they
--         do not lag, and their function answers. How long the others wait depends on how
--         long commits take. A source saves both with its checkpoint.
-- Locks:  adds columns with constant defaults to progress, which takes a moment.
-- Growth: 5 bytes a row of progress; with share it is updated every second.
-- Undo:   drop the columns; sources of this version cannot save their checkpoints then.

alter table tandem.progress
    add column fit       boolean not null default false,
    add column commit_ms integer not null default 0;

comment on column tandem.progress.fit is
    'whether the cluster may go first with events that clusters share: it does not lag, and its function answers';
comment on column tandem.progress.commit_ms is
    'within how many milliseconds of their receipt 99 of 100 events were committed; 0 if that is not known';

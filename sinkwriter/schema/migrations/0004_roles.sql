-- 0004_roles: what the role that writes needs to be given.
--
-- Why:    the role that migrates owns the tables, another one writes to them. So
--         that the second can be given what it needs and nothing else, also of
--         what later migrations make, it must be known who it is and which tables
--         the functions' migrations have made.
-- Locks:  adds a column without a default to migration, which nobody but migrators
--         writes and writers read only when they start.
-- Growth: one row a role that writes.
-- Undo:   drop both; what was granted stays granted.

create table tandem.writing_role (
    role       text        not null,
    granted_at timestamptz not null default now(),

    constraint writing_role_pkey primary key (role)
);

comment on table tandem.writing_role is
    'the roles that every migration gives what they need to write; a role that is not there any more is passed over';

alter table tandem.migration add column made text[];

comment on column tandem.migration.made is
    'the tables, views and sequences that it made, with their schemas; null for those of set tandem, and where it was not noted';

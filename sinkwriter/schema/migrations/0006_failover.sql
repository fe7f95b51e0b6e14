-- 0006_failover: what a source goes by after a failover that lost commits.
--
-- Why:    a service that hides which history the server follows left only the
--         floors to go by, and these miss what was acknowledged after the last
--         save. When the server was started is open to everybody, and another one
--         after a failover.
-- Locks:  replaces a function and comments; waits for nobody.
-- Growth: none.
-- Undo:   put back the function of 0003.

create or replace function tandem.timeline() returns text
    language plpgsql stable
    as $$
begin
    if pg_catalog.pg_is_in_recovery() then
        raise exception 'this server is a standby, which may be behind' using errcode = 'read_only_sql_transaction',
            hint = 'let the URL lead to the primary, as with target_session_attrs=read-write';
    end if;
    return (select system_identifier from pg_catalog.pg_control_system()) || '/'
        || pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8);
exception when insufficient_privilege or feature_not_supported or undefined_function then
    return 'started/' || pg_catalog.trunc(extract(epoch from pg_catalog.pg_postmaster_start_time()) * 1000000)::text;
end
$$;

comment on function tandem.timeline() is
    'which server this is and which of its histories it follows, or when it was started where that is hidden: another one after a failover, so that what was committed last may be gone. An error on a standby';
comment on column tandem.progress.head is
    'no message with this sequence number or a higher one had been delivered; never less than it was, also after the stream was rewound';
comment on column tandem.progress.timeline is
    'tandem.timeline() when the row was saved; empty while the stream is about to be rewound to floor';
comment on column tandem.outbox.id is
    'random, chosen by who writes: a sequence would give numbers again after a failover to a standby that lags';

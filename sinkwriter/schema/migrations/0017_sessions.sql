-- 0017_sessions: a role may end hanging sessions of other functions' roles, and no others.
--
-- Why:    a writer that hangs in the middle of a message holds its locks for as long as it
--         hangs. Whoever waits for them ended sessions of its own role: innocent ones too, and
--         none of another function that writes to the same table under another role. Now
--         transactions carry a mark (sinkwriter/internal/mark), and with this function a
--         session with the mark is ended that blocks a session of the caller, whatever
--         role it has, if the role that migrates may end it.
-- Locks:  creates only.
-- Growth: none.
-- Undo:   drop the function; sessions of one's own role are ended without it.

create function tandem.end_session(session integer, number bigint, after_ms bigint) returns bigint
    language plpgsql volatile security definer
    set search_path = pg_catalog, pg_temp
    as $$
declare
    this oid := (select d.oid from pg_database d where d.datname = current_database());
    seen record;
    remaining bigint;
begin
    -- The caller waits, with this number, for the session, or for one that waits for it. And
    -- the session has the mark.
    if not exists (
        with recursive waiting as (
            select l.pid from pg_locks l join pg_stat_activity a on a.pid = l.pid
            where l.locktype = 'advisory' and l.classid = 1413566020 and l.objid = number::oid and l.objsubid = 2 and l.database = this
            and number > 0 and a.usesysid = (select r.oid from pg_roles r where r.rolname = session_user)
        ), blocking (pid) as (
            select unnest(pg_blocking_pids(w.pid)) from waiting w
            union
            select unnest(pg_blocking_pids(b.pid)) from blocking b
        )
        select from blocking b join pg_locks l on l.pid = b.pid
        where b.pid = session and l.locktype = 'advisory' and l.classid = 1413566020 and l.objsubid = 2 and l.database = this
    ) then
        return null;
    end if;
    select a.state, a.wait_event,
        ceil(extract(epoch from a.state_change - clock_timestamp()) * 1000)::bigint + greatest(after_ms, 10) as remaining
    into seen from pg_stat_activity a where a.pid = session;
    if not found then
        return null;
    elsif seen.state is null then
        return -1; -- not shown: the owner of this function has not the role's rights
    elsif seen.wait_event is null or seen.wait_event not in ('ClientRead', 'ClientWrite') then
        return null;
    elsif seen.remaining > 0 then
        return seen.remaining;
    end if;
    perform pg_terminate_backend(session);
    return 0;
exception when insufficient_privilege then
    return -1;
end
$$;

comment on function tandem.end_session(integer, bigint, bigint) is
    'ends a session that holds a lock which the caller''s transaction with this number waits for, if it is Tandem''s own and has been waiting for its client for so long; returns the milliseconds until then, 0 if it was ended, -1 if the owner of the function may not, null if it is not to be ended';

revoke all on function tandem.end_session(integer, bigint, bigint) from public;

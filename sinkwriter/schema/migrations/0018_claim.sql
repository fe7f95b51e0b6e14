-- 0018_claim: most keys are claimed by a plain insertion.
--
-- Why:    "on conflict do nothing" looks each key up, inserts it speculatively and confirms
--         that, which takes twice the time of a plain insertion and a fifth more WAL. Once
--         the first key of a batch is won, the others mostly are. So they are inserted
--         plainly, and only if that fails with "on conflict". The error is caught here: it is
--         neither a rollback nor in the server's log.
-- Locks:  creates only.
-- Growth: none. A batch whose keys are won in part leaves dead rows of the first insertion.
-- Undo:   drop the function once no process calls it.

-- Claims keys, which are sorted, if the transaction has an id, as one that has won the first key
-- of its batch. Returns how many it has won.
create function tandem.claim(keys uuid[], digests bytea[], writers bigint[]) returns bigint
    language plpgsql volatile
    as $$
declare
    won bigint;
begin
    if pg_catalog.pg_current_xact_id_if_assigned() is null then
        return 0;
    end if;
    begin
        insert into tandem.ledger (key, digest, writer)
        select pg_catalog.unnest(keys), pg_catalog.unnest(digests), pg_catalog.unnest(writers);
    exception when unique_violation then
        insert into tandem.ledger (key, digest, writer)
        select pg_catalog.unnest(keys), pg_catalog.unnest(digests), pg_catalog.unnest(writers)
        on conflict (key) do nothing;
    end;
    get diagnostics won = row_count;
    return won;
end
$$;

comment on function tandem.claim(uuid[], bytea[], bigint[]) is
    'claims keys in a transaction that has won another one before, and returns how many it has won';

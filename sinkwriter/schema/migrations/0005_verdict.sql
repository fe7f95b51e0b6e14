-- 0005_verdict: what to think of an event that is dead somewhere.
--
-- Why:    an event that one cluster refused and another one handled is a sick
--         cluster's; one that all of them refused is the event's own fault. And
--         how often an event was offered before it was given up was not kept.
-- Locks:  adds a column with a constant default to dead_letter, which takes a
--         moment; creates a view.
-- Growth: none.
-- Undo:   drop both.

alter table tandem.dead_letter add column attempts integer not null default 0;

comment on column tandem.dead_letter.attempts is
    'how often the event was offered to the function before it was handed in; 0 if it was not told';

create view tandem.verdict as
with active as (
    select p.function, p.cluster from tandem.progress p
    where p.hedge <> 'standby' and p.saved_at > now() - interval '1 hour'
    group by p.function, p.cluster
), dead as (
    select d.function, d.source, d.id,
        (array_agg(d.type order by d.last_at desc, d.cluster))[1] as type,
        array_agg(d.cluster order by d.cluster) as clusters,
        (array_agg(d.code order by d.last_at desc, d.cluster))[1] as code,
        (array_agg(d.reason order by d.last_at desc, d.cluster))[1] as reason,
        sum(d.attempts)::bigint as attempts,
        sum(d.times)::bigint as times,
        min(d.first_at) as first_at,
        max(d.last_at) as last_at
    from tandem.dead_letter d
    group by d.function, d.source, d.id
)
select d.function, d.source, d.id, d.type, d.clusters, d.code, d.reason, d.attempts, d.times, d.first_at, d.last_at,
    case
        when l.key is not null then 'sick cluster'
        when exists (select from active a where a.function = d.function)
            and not exists (select from active a where a.function = d.function and a.cluster <> all (d.clusters)) then 'poison'
        else 'undecided'
    end as verdict
from dead d left join tandem.ledger l on l.key = tandem.key(d.function, d.source, d.id);

comment on view tandem.verdict is
    'one row an event and function with a dead letter. poison: refused by every cluster that is at work, and not handled. sick cluster: refused by some, yet handled. undecided: neither, as when others have not come to it yet';
comment on column tandem.verdict.code is
    'as the last of the clusters was answered, and so are reason and type';

-- 0011_long_subjects: events with long subjects wait behind dead letters too.
--
-- Why:    an index row has at most about 2,700 bytes, so an event with a longer subject
--         could not be stored, and its subject held the floor of the stream. The index is
--         on a hash of the subject; queries compare the subject too.
-- Locks:  no writes of blocked_event while the index is built: 100,000 rows take a moment.
-- Growth: 8 bytes an event instead of its subject.
-- Undo:   create the index of 0008_blocked again, if no subject is too long, and drop this one.

drop index tandem.blocked_event_subject_idx;
create index blocked_event_subject_idx on tandem.blocked_event (function, cluster, hashtextextended(subject, 0), position);

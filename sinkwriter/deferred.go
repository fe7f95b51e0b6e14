package sinkwriter

import (
	"github.com/jackc/pgx/v5/pgtype"
)

// Deletes the deferred events of all clusters in the transaction that commits their event.
// It does not wait for a source that changes one of the rows at this moment: the event is
// lost for that source, which deletes the row itself.
const endDeferredSQL = `delete from tandem.deferred_event where ctid = any(array(
select ctid from tandem.deferred_event where key = any($1::uuid[]) for update skip locked))`

// endDeferred returns the step that deletes the deferred events of offers that were won.
func (s *session) endDeferred(won []*offer) []step {
	var ended []*offer
	for _, o := range won {
		if o.deferred {
			ended = append(ended, o)
		}
	}
	if len(ended) == 0 {
		return nil
	}
	return []step{{
		sql: endDeferredSQL, oids: []uint32{pgtype.UUIDArrayOID}, params: [][]byte{s.keys(ended)}, table: "tandem.deferred_event",
	}}
}

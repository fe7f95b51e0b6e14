package sinkwriter

import (
	"encoding/binary"

	"github.com/tandem-fn/tandem/sinkwriter/internal/keyhash"
)

// writerKnown is a function and version with their id, cached because
// consecutive offers usually share them.
type writerKnown struct {
	function, version string
	id                int64
	counters          *functionCounters
}

// writerOf returns the id of this cluster's function and version, and the
// counters of the function's offers.
func (w *Writer) writerOf(function, version string) *writerKnown {
	if k := w.known.Load(); k != nil && k.function == function && k.version == version {
		return k
	}
	k := &writerKnown{function, version, writerID(w.config.Cluster, function, version), w.countersOf(function)}
	w.known.Store(k)
	return k
}

// writerID returns the number that identifies a cluster, function and version in
// the ledger.
func writerID(cluster, function, version string) int64 {
	h := keyhash.Sum(3, cluster, function, version)
	return int64(binary.BigEndian.Uint64(h[:8]))
}

package sinkwriter_test

import (
	"encoding/hex"
	"testing"

	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
)

// Skipped, with a message, where PostGIS is not installed.
func TestGeometriesAreStoredAsTextAndAsBytes(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	admin := sinktest.NewPool(t, pgtest.SuperuserURL(t, pool.Config().ConnString()))
	if sinktest.Query[int](t, admin, `select count(*) from pg_available_extensions where name = 'postgis'`) == 0 {
		t.Log("not tried: the server has no PostGIS (Debian's package is postgresql-15-postgis-3)")
		return
	}
	sinktest.Execute(t, admin, `create extension postgis`)
	sinktest.Execute(t, pool, `create table places (id text primary key, at geometry(Point, 4326), area geography, path geometry[])`)
	point := sinktest.Query[string](t, pool, `select 'SRID=4326;POINT(1.5 -2)'::geometry::text`) // EWKB in hexadecimal digits
	raw, err := hex.DecodeString(point)
	if err != nil {
		t.Fatal(err)
	}
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	for id, v := range map[string]any{"text": "SRID=4326;POINT(1.5 -2)", "digits": point, "bytes": raw} {
		row := functions.Row{"id": id, "at": v, "area": v, "path": []any{v, nil}}
		if _, err := w.Commit(t.Context(), write(id, effects(insert("places", row)))); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	if got := sinktest.Query[string](t, pool, `select count(*) || ' ' || bool_and(at = $1::text::geometry and area::text = $1 and path::text = format('{%s:NULL}', $1)) from places`, point); got != "3 true" {
		t.Errorf("places: %s", got)
	}
	_, err = w.Commit(t.Context(), write("line", effects(insert("places", functions.Row{"id": "line", "at": "SRID=4326;LINESTRING(0 0, 1 1)"}))))
	if got := (outcome{err: err}).fault(); got != "event" {
		t.Errorf("a line in a column of points: fault %q, %v", got, err)
	}
}

package sinkwriter_test

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/functions"
	"github.com/tandem-fn/tandem/sinkwriter"
)

// An offer that can be refused before the claim is not claimed, and does not roll back the
// other claims of its batch.
func TestWhatCannotBeWrittenIsRefusedBeforeAnythingIsClaimed(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	w := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east", Connections: 1})
	kinds := []struct {
		name   string
		change func(*functions.Effects)
		want   sinkwriter.Fault
	}{
		{"unknown column", func(fx *functions.Effects) { fx.Writes[0].Row["colour"] = "red" }, sinkwriter.FaultDeployment},
		{"unknown table", func(fx *functions.Effects) { fx.Writes[0].Table = "nowhere" }, sinkwriter.FaultDeployment},
		{"no number", func(fx *functions.Effects) { fx.Writes[0].Row["amount"] = "many" }, sinkwriter.FaultEvent},
		{"a fraction", func(fx *functions.Effects) { fx.Writes[0].Row["amount"] = 1.5 }, sinkwriter.FaultEvent},
		{"zero byte", func(fx *functions.Effects) { fx.Writes[0].Row["id"] = "a\x00" }, sinkwriter.FaultEvent},
		{"no JSON", func(fx *functions.Effects) { fx.Writes[0].Row["note"] = []byte("{") }, sinkwriter.FaultEvent},
		{"NULL in the key", func(fx *functions.Effects) { fx.Writes[0].Row["id"] = nil }, sinkwriter.FaultEvent},
		{"no form", func(fx *functions.Effects) { fx.Writes[0].Row["note"] = func() {} }, sinkwriter.FaultFunction},
		{"argument of a statement", func(fx *functions.Effects) {
			fx.Exec(functions.Statement{Name: "s", SQL: "update totals set orders = orders where amount = $1"}, 1.5)
		}, sinkwriter.FaultEvent},
		{"arguments of a statement", func(fx *functions.Effects) {
			fx.Exec(functions.Statement{Name: "s", SQL: "update totals set orders = orders where amount = $1"})
		}, sinkwriter.FaultFunction},
	}
	const good, bad = 40, 20 // of each kind
	var offers []sinkwriter.Offer
	var want []sinkwriter.Fault
	for i := range good {
		offers, want = append(offers, sinktest.Order(fmt.Sprint("good ", i), 1)), append(want, 0)
	}
	for _, k := range kinds {
		for i := range bad {
			o := sinktest.Order(fmt.Sprint(k.name, " ", i), 1)
			k.change(&o.Effects)
			offers, want = append(offers, o), append(want, k.want)
		}
	}
	for i, o := range w.CommitAll(t.Context(), offers) {
		var refused *sinkwriter.Error
		if want[i] == 0 && !o.Receipt.Won || want[i] != 0 && (!errors.As(o.Err, &refused) || refused.Fault != want[i]) {
			t.Errorf("%s: %+v, %v, want fault %s", offers[i].Event.ID(), o.Receipt, o.Err, want[i])
		}
	}
	// Rolled-back rows would occupy the first positions of the table.
	if got := sinktest.Query[string](t, pool, `select format('%s rows up to %s', count(*), max(ctid)) from tandem.ledger`); got != fmt.Sprintf("%d rows up to (0,%d)", good, good) {
		t.Errorf("the ledger has %s", got)
	}
	if got := sinktest.Query[string](t, pool, `select format('%s %s', orders, amount) from totals`); got != fmt.Sprintf("%d %d", good, good) {
		t.Errorf("totals: %s", got)
	}
}

// An event that this cluster cannot write, and another cluster has committed, is lost
// like any other.
func TestWhatAnotherClusterHasCommittedIsNotRefused(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	east := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "east"})
	west := sinktest.NewWriter(t, pool, sinkwriter.Config{Cluster: "west"})
	if _, err := east.Commit(t.Context(), sinktest.Order("o", 1)); err != nil {
		t.Fatal(err)
	}
	for _, column := range []string{"amount", "colour"} {
		offers := []sinkwriter.Offer{sinktest.Order("o", 1), sinktest.Order("new with "+column, 1), sinktest.Order("other beside "+column, 1)}
		for i := range offers[:2] {
			offers[i].Effects.Writes[0].Row[column] = "many"
		}
		got := west.CommitAll(t.Context(), offers)
		if got[0].Err != nil || got[0].Receipt.Won || !got[0].Receipt.Diverged {
			t.Errorf("%s: committed elsewhere, with other effects: %+v, %v", column, got[0].Receipt, got[0].Err)
		}
		if got[1].Err == nil || !got[2].Receipt.Won {
			t.Errorf("%s: %v, want an error; %+v, want it won", column, got[1].Err, got[2].Receipt)
		}
	}
}

// A role, a database or a connection string may have other settings. They change neither the
// stored values nor the winner of a tie.
func TestValuesDoNotDependOnTheSettingsOfTheSession(t *testing.T) {
	t.Parallel()

	pool := sinktest.NewDatabase(t)
	doc := "xml"
	if !hasXML(t, pool) {
		doc = "text"
	}
	sinktest.Execute(t, pool, `create table settings (id text primary key, at timestamptz, day date, span interval, f double precision, raw bytea, list text[], price money, doc `+doc+`);
		create table ties (id text primary key, version int, f double precision, span interval, raw bytea, at timestamptz);`)
	plain := pool.Config().ConnString()
	odd := pgtest.Role(t, plain)
	name := pool.Config().ConnConfig.User
	admin := sinktest.NewPool(t, pgtest.SuperuserURL(t, plain))
	u, err := url.Parse(odd)
	if err != nil {
		t.Fatal(err)
	}
	sinktest.Execute(t, admin, "grant "+name+" to "+u.User.Username())
	for setting, value := range map[string]string{
		"datestyle": "SQL, DMY", "intervalstyle": "sql_standard", "extra_float_digits": "-10", "timezone": "America/New_York", "bytea_output": "escape",
		"array_nulls": "off", "xmloption": "document", "standard_conforming_strings": "off", "client_encoding": "LATIN1", "search_path": "nowhere, public",
	} {
		sinktest.Execute(t, admin, fmt.Sprintf("alter role %s set %s = %s", u.User.Username(), setting, "'"+strings.ReplaceAll(value, ", ", "', '")+"'"))
	}
	sessions := map[string]string{"plain": plain, "odd": odd, "odd behind PgBouncer": startPgbouncer(t, odd, 2)}

	row := func(id string) functions.Row {
		return functions.Row{
			"id": id, "at": "2024-05-01 10:00:00", "day": "2024-02-03", "span": "-1 days +02:03:00", "f": 0.1 + 0.2, "raw": []byte{0, 'a', 0xff},
			"list": "{a,NULL,é}", "price": 1234.5, "doc": "no document",
		}
	}
	tie := func(id string, f float64, span string, last byte, at string) functions.Effects {
		return effects(func(fx *functions.Effects) {
			fx.Upsert("ties", functions.Row{"id": id, "version": 1, "f": f, "span": span, "raw": []byte{last}, "at": at}, functions.NewestWins("version"))
		})
	}
	var ties []functions.Effects
	for _, pair := range [][2]functions.Effects{
		{tie("f", 0.3, "1 day", 1, "2024-01-01"), tie("f", 0.1+0.2, "1 day", 1, "2024-01-01")},
		{tie("span", 1, "-1 days", 1, "2024-01-01"), tie("span", 1, "1 day", 1, "2024-01-01")},
		{tie("raw", 1, "1 day", 'a', "2024-01-01"), tie("raw", 1, "1 day", 0xe0, "2024-01-01")},
		{tie("at", 1, "1 day", 1, "2024-02-01"), tie("at", 1, "1 day", 1, "2023-03-01")},
	} {
		ties = append(ties, pair[0], pair[1])
	}
	var stored, won []string
	for name, session := range sessions {
		w := sinktest.NewWriter(t, sinktest.NewPool(t, session), sinkwriter.Config{Cluster: "east", Connections: 1})
		if _, err := w.Commit(t.Context(), write("row in "+name, effects(insert("settings", row(name))))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for backward := range 2 {
			sinktest.Execute(t, pool, "truncate ties")
			order := slices.Clone(ties)
			if backward == 1 {
				slices.Reverse(order)
			}
			for i, fx := range order {
				if _, err := w.Commit(t.Context(), write(fmt.Sprint("tie ", i, backward, " in ", name), fx)); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			won = append(won, sinktest.Query[string](t, pool, `select string_agg(ties::text, ' ' order by id) from ties`))
		}
		stored = append(stored, sinktest.Query[string](t, pool, `select row(at, day, span, f, raw, list, price, doc)::text from settings where id = $1`, name))
	}
	for _, list := range [][]string{stored, won} {
		if len(slices.Compact(slices.Sorted(slices.Values(list)))) != 1 {
			t.Errorf("with different settings there are different rows:\n%q", list)
		}
	}
}

package snapshot

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/sinkwriter/schema"
)

func TestEveryStatementSuitsTheSchema(t *testing.T) {
	t.Parallel()

	url := pgtest.Copy(t, "tandem alone", func(ctx context.Context, url string) error { return schema.Migrate(ctx, url) })
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	table := Table{Name: "tandem.progress", Key: []string{"cluster", "function", "stream"}}
	for name, sql := range map[string]string{
		"floors": floorsSQL, "horizons": horizonsSQL, "letters": lettersSQL, "committed": committedSQL, "ledger": ledgerSQL,
		"outbox": outboxSQL, "commits": commitsSQL, "letters of an event": eventLettersSQL, "divergences": divergencesSQL,
		"clock": clockSQL, "count": countSinceSQL, "begun": begunSinceSQL, "exact": exactSinceSQL, "processed": processedSQL,
		"waiting": waitingSQL, "blockers": blockersSQL, "progress": progressSQL, "columns": columnsSQL, "compare": table.compareSQL([]string{"floor", "head"}), "compare keys": table.compareSQL(nil),
	} {
		if _, err := conn.Prepare(t.Context(), name, sql); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

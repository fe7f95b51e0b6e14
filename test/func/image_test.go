package func_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tandem-fn/tandem"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/hack/publish/proxy"
)

var departures = events{
	eventType: "com.example.flight.departed",
	data:      `{"date":"2001/01/01 00:47","delay":6,"distance":1750,"origin":"DTW","destination":"LAS"}`,
	ids:       "select flight_id from flights",
	total:     "select coalesce(sum(flights), 0)::bigint from airports",
}

func TestTheImageOfThisRepositoryLosesNothingWhenItIsStopped(t *testing.T) {
	t.Parallel()

	// func writes into the folder.
	folder := filepath.Join(t.TempDir(), "tandem")
	copyModule(t, folder)
	program := build(t, folder, append(os.Environ(), "GOFLAGS=-mod=mod -trimpath", "GOWORK=off"))

	departures.stopUnderLoad(t, program, pgtest.URL(t), "TANDEM_FUNCTIONS=flights")

	// The same program, with func's main package around it, also runs commands.
	databaseURL := pgtest.URL(t)
	env := append(os.Environ(), "LISTEN_ADDRESS=127.0.0.1:0", "TANDEM_FUNCTIONS=flights", "DATABASE_URL="+databaseURL)
	if said := run(t, t.TempDir(), append(env, "TANDEM_COMMAND=describe"), program); !strings.Contains(said, `{"functions":[{"name":"flights",`) {
		t.Errorf("describe: %s", said)
	}
	run(t, t.TempDir(), append(env, "TANDEM_COMMAND=migrate"), program)
	if n := query[int](t, databaseURL, "select count(*) from pg_tables where tablename in ('ledger', 'flights', 'airports')"); n != 3 {
		t.Errorf("migrate has created %d of 3 tables", n)
	}
}

func TestEveryFuncYAMLIsWhatFuncReads(t *testing.T) {
	t.Parallel()

	var folders []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && slices.Contains(proxy.Made, entry.Name()) {
			return fs.SkipDir
		}
		if entry.Name() == "func.yaml" {
			folders = append(folders, filepath.Dir(path))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if said, err := scaffold(t, folders...); err != nil {
		t.Errorf("%v: %s", err, said)
	}

	// The settings are the same as in config/.
	settings, err := os.ReadFile(filepath.Join(root, "config", "base", "env", "function.env"))
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range folders {
		for line := range strings.Lines(string(settings)) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			if !regexp.MustCompile(`- name: ` + name + `\n\s+value: "?` + regexp.QuoteMeta(value) + `"?\n`).MatchString(read(t, folder)) {
				t.Errorf("%s/func.yaml does not set %s to %s, as config/base/env/function.env does", folder, name, value)
			}
		}
		for _, want := range []string{"key: app.kubernetes.io/component\n      value: function\n", "key: networking.knative.dev/visibility\n      value: cluster-local\n", "serviceAccountName: function\n"} {
			if !strings.Contains(read(t, folder), want) {
				t.Errorf("%s/func.yaml does not say %q, as config/functions/flights/function.yaml does", folder, want)
			}
		}
	}

	// Each function has a func.yaml of its own.
	for _, f := range tandem.Functions() {
		folder := filepath.Join(root, "functions", f.Name)
		if !slices.Contains(folders, folder) {
			t.Errorf("%s/func.yaml is missing", folder)
			continue
		}
		for _, want := range []string{"\nname: " + f.Name + "\n", "- name: TANDEM_FUNCTIONS\n      value: " + f.Name + "\n"} {
			if !strings.Contains(read(t, folder), want) {
				t.Errorf("%s/func.yaml does not say %q", folder, want)
			}
		}
	}
}

// read returns the func.yaml of a folder.
func read(t *testing.T, folder string) string {
	t.Helper()

	text, err := os.ReadFile(filepath.Join(folder, "func.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

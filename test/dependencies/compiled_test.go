package dependencies_test

import (
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// forbidden are import paths that must not be compiled into a user's function.
var forbidden = map[string]*regexp.Regexp{
	"a NATS server":  regexp.MustCompile(`^github\.com/nats-io/nats-server/`),
	"a Kafka server": regexp.MustCompile(`/kfake(/|$)|kafka.*(server|broker)`),
	"websockets":     regexp.MustCompile(`(^|/)websocket(/|$)`),
	"TPM code":       regexp.MustCompile(`(^|/)go-tpm(/|$)`),
	"a command line": regexp.MustCompile(`^github\.com/spf13/`),
	"test tools": regexp.MustCompile(`^testing(/|$)|/httptest$|^github\.com/(google/go-cmp|stretchr/testify)/` +
		`|^github\.com/tandem-fn/tandem/(test|hack|eventing/devcluster|eventing/streamtest|functions/functionstest)(/|$)`),
}

func TestAUsersFunctionCompilesNoServerAndNoTestTools(t *testing.T) {
	t.Parallel()

	compiled := dependencies(t, "./functions", "./sinkwriter", "./eventing/process", "./eventing/program")
	for _, want := range []string{"github.com/jackc/pgx/v5", "github.com/nats-io/nats.go", "net/http"} {
		if !slices.Contains(compiled, want) {
			t.Errorf("%s is missing: does go list read the right packages?", want)
		}
	}
	for name, paths := range matches(compiled) {
		t.Errorf("functions, sinkwriter, eventing/process or eventing/program compiles %s: %s", name, strings.Join(paths, ", "))
	}
}

func TestAServerAndTestToolsAreRecognized(t *testing.T) {
	t.Parallel()

	found := matches(dependencies(t, "github.com/nats-io/nats-server/v2/server", "net/http/httptest", "testing"))
	for _, name := range []string{"a NATS server", "test tools"} {
		if found[name] == nil {
			t.Errorf("%s is not found where it is", name)
		}
	}
	paths := []string{"github.com/coder/websocket", "github.com/gorilla/websocket", "golang.org/x/net/websocket", "github.com/twmb/franz-go/pkg/kfake", "github.com/google/go-tpm/tpm2"}
	want := map[string][]string{"websockets": paths[:3], "a Kafka server": paths[3:4], "TPM code": paths[4:]}
	if diff := cmp.Diff(want, matches(paths)); diff != "" {
		t.Errorf("matches (-want +got):\n%s", diff)
	}
}

// matches returns the forbidden paths, by reason.
func matches(paths []string) map[string][]string {
	found := map[string][]string{}
	for name, pattern := range forbidden {
		for _, path := range paths {
			if pattern.MatchString(path) {
				found[name] = append(found[name], path)
			}
		}
	}
	return found
}

// dependencies returns the packages and all direct and indirect imports.
func dependencies(t *testing.T, packages ...string) []string {
	t.Helper()

	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-deps"}, packages...)...)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list -deps: %v", err)
	}
	return strings.Fields(string(out))
}

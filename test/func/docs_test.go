package func_test

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
)

var orders = events{
	eventType: "com.example.order.placed",
	data:      `{"customer":"ada","cents":1250}`,
	ids:       "select id from orders where source = '/load'",
	total:     "select coalesce(sum(orders), 0)::bigint from customers where customer = 'ada'",
}

// block is a code block of a document.
type block struct {
	language string
	file     string // the second word behind the fence: the name of the file
	text     string
}

var fence = regexp.MustCompile("(?ms)^```([a-z]+) ?([^\n]*)\n(.*?)^```$")

func blocks(t *testing.T, document string) []block {
	t.Helper()

	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	var all []block
	for _, match := range fence.FindAllStringSubmatch(string(text), -1) {
		all = append(all, block{language: match[1], file: match[2], text: match[3]})
	}
	return all
}

// reader follows a document, one block after the other.
type reader struct {
	dir string
	env []string
	at  string // the address of the function, in place of the one in the document

	function *process
}

// addressInDocs is the address of the function in a document.
const addressInDocs = "127.0.0.1:8090"

func TestANewcomerCanWriteAFunctionAsTheDocumentSays(t *testing.T) {
	t.Parallel()

	databaseURL := pgtest.URL(t)
	path := os.Getenv("PATH")
	if command := funcCommand(); command != "" {
		path = filepath.Dir(command) + string(filepath.ListSeparator) + path
	}
	module := publish(t)
	r := &reader{dir: t.TempDir(), at: freeAddress(t)}
	r.env = append(module.env, "DATABASE_URL="+databaseURL, "PATH="+path)
	said := r.follow(t, blocks(t, filepath.Join(root, "docs", "write-a-function.md")))

	for _, want := range []string{"204 No Content", "Tandem-Receipt: lost", " /shop  | 1  | ada      |  1250", " ada      |      1 |  1250"} {
		if !strings.Contains(said, want) {
			t.Errorf("the output of the commands lacks %q:\n%s", want, said)
		}
	}
	if r.function == nil {
		t.Fatal("the document does not run the function")
	}
	if got := query[int](t, databaseURL, "select count(*) from tandem.ledger"); got != 1 {
		t.Errorf("%d events are in the ledger, want 1", got)
	}
	if text, err := os.ReadFile(filepath.Join(r.dir, "testdata", "orders.golden")); err != nil || !strings.Contains(string(text), "com.example.order.large") {
		t.Errorf("the golden file is %s, error %v", text, err)
	}

	// The block would deploy it; the test only builds it, which covers as much.
	program := build(t, r.dir, r.env)
	orders.stopUnderLoad(t, program, pgtest.URL(t))
}

// follow writes the files and runs the commands of the blocks, and returns the
// commands' output. It skips console blocks, which need a cluster.
func (r *reader) follow(t *testing.T, blocks []block) string {
	t.Helper()

	var said strings.Builder
	for _, b := range blocks {
		text := strings.ReplaceAll(b.text, addressInDocs, r.at)
		switch {
		case b.file != "":
			name := filepath.Join(r.dir, filepath.FromSlash(b.file))
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		case b.language != "sh":
		case strings.Contains(text, "func run "):
			r.function = start(t, r.funcRun(t, text), r.at)
		case strings.HasPrefix(text, "func invoke ") && funcCommand() == "":
			r.invoke(t, text)
		default:
			said.WriteString(r.shell(t, text))
		}
	}
	return said.String()
}

// shell runs commands, which may change the folder for later ones.
func (r *reader) shell(t *testing.T, commands string) string {
	t.Helper()

	state := filepath.Join(t.TempDir(), "pwd")
	said := run(t, r.dir, r.env, "sh", "-euc", commands+"\npwd >'"+state+"'")
	dir, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	r.dir = strings.TrimSpace(string(dir))
	return said
}

// funcRun returns the command func run, or a replacement if func is missing.
func (r *reader) funcRun(t *testing.T, commands string) *exec.Cmd {
	t.Helper()

	if funcCommand() != "" {
		cmd := exec.CommandContext(t.Context(), "sh", "-euc", commands)
		cmd.Dir, cmd.Env = r.dir, r.env
		return cmd
	}
	scaffolding := filepath.Join(t.TempDir(), "run")
	if said, err := scaffold(t, "-o", scaffolding, r.dir); err != nil {
		t.Fatalf("write scaffolding: %v\n%s", err, said)
	}
	run(t, scaffolding, r.env, "go", "mod", "tidy")
	run(t, scaffolding, r.env, "go", "build", "-o", "f.bin")
	cmd := exec.CommandContext(t.Context(), filepath.Join(scaffolding, "f.bin"))
	cmd.Dir, cmd.Env = r.dir, []string{"LISTEN_ADDRESS=" + r.at, "PWD=" + r.dir}
	return cmd
}

var flag = regexp.MustCompile(`--([a-z-]+) ('[^']*'|\S+)`)

// invoke sends the same event as func invoke.
func (r *reader) invoke(t *testing.T, command string) {
	t.Helper()

	value := make(map[string]string)
	for _, match := range flag.FindAllStringSubmatch(command, -1) {
		value[match[1]] = strings.Trim(match[2], "'")
	}
	status, body, err := post(t.Context(), http.DefaultClient, value["target"], value["type"], value["source"], value["id"], value["data"])
	for err == nil && status == http.StatusServiceUnavailable { // a busy machine: retry
		status, body, err = post(t.Context(), http.DefaultClient, value["target"], value["type"], value["source"], value["id"], value["data"])
	}
	if err != nil || status != http.StatusNoContent {
		t.Errorf("%s is answered %d %s, error %v", command, status, body, err)
	}
}

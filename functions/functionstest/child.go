package functionstest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	_ "time/tzdata" // the zones exist wherever the test runs
)

// Variables that instruct a process, and marks in the log of the variables that a
// test binary reads (-test.testlogfile, which go test itself uses).
const (
	nameVariable   = "TANDEM_FUNCTIONSTEST_NAME"
	resultVariable = "TANDEM_FUNCTIONSTEST_RESULT"
	orderVariable  = "TANDEM_FUNCTIONSTEST_ORDER"
	timesVariable  = "TANDEM_FUNCTIONSTEST_TIMES"
	hostVariable   = "TANDEM_FUNCTIONSTEST_HOST"
	ownVariables   = "TANDEM_FUNCTIONSTEST_"
	beginMark      = ownVariables + "BEGIN"
	endMark        = ownVariables + "END"
)

// job is the work of a second process.
type job struct {
	name      string // of the call of Check
	result    string // the file for the answer
	backwards bool
	times     int    // how often each event is computed in a row
	host      string // set before; empty for none
}

// answer is the result of a job.
type answer struct {
	Series     series
	Goroutines []uint64
}

// calls counts the calls of Check in each running test.
var calls struct {
	sync.Mutex
	of map[string]int
}

// name returns a name for this call of Check by which another process identifies
// it.
func name(tb testing.TB) string {
	tb.Helper()
	calls.Lock()
	defer calls.Unlock()
	if calls.of == nil {
		calls.of = map[string]int{}
	}
	test := tb.Name()
	if calls.of[test] == 0 {
		tb.Cleanup(func() {
			calls.Lock()
			defer calls.Unlock()
			delete(calls.of, test)
		})
	}
	calls.of[test]++
	return test + " " + strconv.Itoa(calls.of[test])
}

// readJob reads the job for which this process was started, if there is one.
func readJob() (job, bool) {
	times, err := strconv.Atoi(os.Getenv(timesVariable))
	j := job{
		times:     times,
		name:      os.Getenv(nameVariable),
		result:    os.Getenv(resultVariable),
		backwards: os.Getenv(orderVariable) == "backwards",
		host:      os.Getenv(hostVariable),
	}
	return j, j.name != "" && err == nil
}

// runIn runs the job and ends the test, if the job is for this call of Check.
func (j job) runIn(tb testing.TB, c *checker, me string) {
	tb.Helper()
	if me != j.name {
		return
	}
	if j.host != "" {
		if err := beHost(j.host); err != nil {
			tb.Fatalf("set the host name: %v", err)
		}
	}
	order := c.forwards()
	if j.backwards {
		order = c.backwards()
	}
	a := answer{Series: c.inOrder(tb.Context(), order, j.times)}
	a.Goroutines = c.countGoroutines(tb.Context())
	var text bytes.Buffer
	if err := gob.NewEncoder(&text).Encode(a); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(j.result, text.Bytes(), 0o600); err != nil {
		tb.Fatal(err)
	}
	tb.SkipNow()
}

// place is a process with one difference.
type place struct {
	when   string
	likely string
	series series
}

// process is a process that is started for a job.
type process struct {
	job
	env  []string // the whole environment
	prep func(*exec.Cmd)
	log  string // file for the log of variables, empty for none
}

// computeElsewhere computes the same as computeHere in other processes, and adds the
// results to r.
func computeElsewhere(tb testing.TB, me string, r *runs) error {
	tb.Helper()
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	folder := tb.TempDir()
	log := filepath.Join(folder, "log")
	results := 0
	run := func(p process) (answer, error) {
		return p.runBinary(tb.Context(), binary, tb.Name())
	}
	with := func(env []string) process {
		results++
		return process{job: job{name: me, times: few, result: filepath.Join(folder, strconv.Itoa(results))}, env: env}
	}

	first := with(os.Environ())
	first.log, first.times = log, many
	a, err := run(first)
	if err != nil {
		return err
	}
	r.first, r.goroutines = a.Series, a.Goroutines
	if r.variables, err = variablesIn(log); err != nil {
		return err
	}

	type task struct {
		process
		take func(series)
	}
	var tasks []task
	add := func(p process, take func(series)) { tasks = append(tasks, task{p, take}) }
	second := with(os.Environ())
	second.times = many
	add(second, func(s series) { r.second = s })
	back := with(os.Environ())
	back.backwards = true
	add(back, func(s series) { r.backwards = s })
	var mu sync.Mutex
	at := func(when, likely string) func(series) {
		return func(s series) { r.places = append(r.places, place{when, likely, s}) }
	}
	for _, zone := range [...]string{"Etc/GMT+12", "Pacific/Kiritimati"} {
		add(with(changed(os.Environ(), "TZ="+zone)), at("in time zone "+zone, causeZone))
	}
	add(with(changed(os.Environ(), "LANG=tr_TR.UTF-8", "LANGUAGE=tr", "LC_ALL=tr_TR.UTF-8")), at("in the locale tr_TR", causeLocale))
	add(with(elsewhereEnvironment(os.Environ(), r.variables)), at("with another environment", causeEnvironment))
	for _, cluster := range [...]string{"east", "west"} {
		add(with(inCluster(os.Environ(), cluster)), at("in a cluster named "+cluster, causeEnvironment))
	}
	host := with(os.Environ())
	host.host, host.prep = "tandem-functionstest", withOwnHost
	if err := ownHostPossible(tb.Context(), binary); err != nil {
		tb.Logf("another host name was not tried: %v", err)
	} else {
		add(host, at("on another host", causeHost))
	}

	errs := make([]error, len(tasks))
	takes := make([]func(), len(tasks))
	var done sync.WaitGroup
	free := make(chan struct{}, max(2, runtime.GOMAXPROCS(0)))
	for i, t := range tasks {
		done.Go(func() {
			free <- struct{}{}
			defer func() { <-free }()
			a, err := run(t.process)
			mu.Lock()
			defer mu.Unlock()
			errs[i], takes[i] = err, func() { t.take(a.Series) }
		})
	}
	done.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, take := range takes {
		take()
	}
	return nil
}

// runBinary runs the test binary until it has completed the job.
func (p process) runBinary(ctx context.Context, binary, test string) (answer, error) {
	const timeout = 5 * time.Minute
	var pattern []string
	for part := range strings.SplitSeq(test, "/") {
		pattern = append(pattern, "^"+regexp.QuoteMeta(part)+"$")
	}
	args := []string{"-test.run=" + strings.Join(pattern, "/"), "-test.count=1", "-test.timeout=" + timeout.String()}
	if p.log != "" {
		args = append(args, "-test.testlogfile="+p.log)
	}
	order := "forwards"
	if p.backwards {
		order = "backwards"
	}
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.WaitDelay = 10 * time.Second
	// With -race a process would wait a second for other reports at its end.
	race := "GORACE=" + strings.TrimSpace(os.Getenv("GORACE")+" atexit_sleep_ms=0")
	cmd.Env = changed(p.env, race, nameVariable+"="+p.name, resultVariable+"="+p.result, orderVariable+"="+order, timesVariable+"="+strconv.Itoa(p.times), hostVariable+"="+p.host)
	if p.prep != nil {
		p.prep(cmd)
	}
	output, runErr := cmd.CombinedOutput()

	var a answer
	text, err := os.ReadFile(p.result)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		const last = 4 << 10
		output = output[max(0, len(output)-last):]
		return a, fmt.Errorf("another process of this test (-test.run of its name) did not reach this call of Check, which needs a test with little else in it: %w\n%s", orDone(runErr), output)
	case err != nil:
		return a, err
	}
	if err := gob.NewDecoder(bytes.NewReader(text)).Decode(&a); err != nil {
		return a, fmt.Errorf("read the results of another process: %w", err)
	}
	return a, nil
}

func orDone(err error) error {
	if err == nil {
		return errors.New("it ended without an error")
	}
	return err
}

// variablesIn returns the variables that functions read, according to the log of a
// test binary.
func variablesIn(log string) ([]string, error) {
	f, err := os.Open(log)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read from
	var names []string
	inside := false
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		variable, ok := strings.CutPrefix(lines.Text(), "getenv ")
		switch {
		case !ok:
		case variable == beginMark:
			inside = true
		case variable == endMark:
			inside = false
		case inside && !slices.Contains(names, variable):
			names = append(names, variable)
		}
	}
	return names, lines.Err()
}

// changed returns env with these variables set.
func changed(env []string, settings ...string) []string {
	out := slices.Clone(env)
	for _, setting := range settings {
		name, _, _ := strings.Cut(setting, "=")
		out = slices.DeleteFunc(out, func(s string) bool { return strings.HasPrefix(s, name+"=") })
		out = append(out, setting)
	}
	return out
}

// kept are variables without which a process may not start, or not find its
// files.
var kept = []string{
	"PATH", "HOME", "TMPDIR", "TMP", "TEMP", "USERPROFILE", "LOCALAPPDATA", "SYSTEMROOT",
	"LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "GOCOVERDIR", "GORACE", "GODEBUG", "TZ", "LANG", "LC_ALL",
}

// clusters are names of variables that usually differ between clusters, for
// code that reads them before it can be observed.
var clusters = []string{
	"HOSTNAME", "HOST", "CLUSTER", "CLUSTER_NAME", "REGION", "ZONE", "AWS_REGION", "AZ", "DATACENTER", "ENVIRONMENT", "STAGE",
	"TANDEM_CLUSTER", "POD_NAME", "POD_NAMESPACE", "POD_IP", "NODE_NAME", "NAMESPACE",
	"K_SERVICE", "K_REVISION", "K_CONFIGURATION", "USER", "LOGNAME", "PORT", "DEBUG", "LOG_LEVEL",
}

// inCluster returns an environment in which every variable that describes the
// location has the value cluster.
func inCluster(env []string, cluster string) []string {
	for _, name := range clusters {
		env = changed(env, name+"="+cluster)
	}
	return env
}

// elsewhereEnvironment returns an environment that shares nothing with env
// except the variables that a process needs. Variables that functions read have
// other values.
func elsewhereEnvironment(env, read []string) []string {
	var out []string
	for _, setting := range env {
		name, _, _ := strings.Cut(setting, "=")
		if slices.Contains(kept, strings.ToUpper(name)) {
			out = append(out, setting)
		}
	}
	for _, name := range clusters {
		out = changed(out, name+"=tandem-functionstest")
	}
	for _, name := range read {
		// A number, a text and a true value.
		value := "1"
		if os.Getenv(name) == value {
			value = "2"
		}
		out = changed(out, name+"="+value)
	}
	return changed(out, "GOMAXPROCS=3")
}

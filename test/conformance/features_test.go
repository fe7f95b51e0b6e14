package conformance_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/cucumber/godog"
	"github.com/google/go-cmp/cmp"
)

// scenario is the state of a scenario.
type scenario struct {
	endpoint *endpoint
	request  []byte
	passed   int
}

func (s *scenario) supported() error { return nil }

func (s *scenario) given(text *godog.DocString) error {
	// Header lines end as HTTP requires, those of the body stay unchanged.
	head, body, ok := strings.Cut(text.Content, "\n\n")
	if !ok {
		return errors.New("the request has no empty line before its body")
	}
	s.request = []byte(strings.ReplaceAll(head, "\n", "\r\n") + "\r\n\r\n" + body)
	return nil
}

// parsed sends the request to the endpoint, unchanged except for the path: the
// endpoint is the resource, and it is at /.
func (s *scenario) parsed(ctx context.Context) error {
	if err := s.endpoint.forget(ctx); err != nil {
		return err
	}
	method, rest, _ := bytes.Cut(s.request, []byte(" "))
	_, rest, _ = bytes.Cut(rest, []byte(" "))
	request := append(append(method, " / "...), rest...)

	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.endpoint.address)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // there is nothing to save
	if _, err := conn.Write(request); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // only read from
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("the answer to\n%s\nis %s %s", request, resp.Status, text)
	}
	return nil
}

func (s *scenario) attributes(ctx context.Context, table *godog.Table) error {
	want := map[string]string{}
	for _, row := range table.Rows[1:] {
		want[row.Cells[0].Value] = row.Cells[1].Value
	}
	got, _, err := s.endpoint.seen(ctx)
	if err != nil {
		return err
	}
	if diff := cmp.Diff(want, got); diff != "" {
		return fmt.Errorf("attributes (-want +got):\n%s", diff)
	}
	return nil
}

func (s *scenario) data(ctx context.Context, text *godog.DocString) error {
	_, data, err := s.endpoint.seen(ctx)
	if err != nil {
		return err
	}
	var want, got any
	if err := json.Unmarshal([]byte(text.Content), &want); err != nil {
		return fmt.Errorf("the scenario's data: %w", err)
	}
	if err := json.Unmarshal([]byte(data), &got); err != nil {
		return fmt.Errorf("data is %q: %w", data, err)
	}
	if !reflect.DeepEqual(want, got) {
		return fmt.Errorf("data is %s, want %s", data, text.Content)
	}
	s.passed++
	return nil
}

func TestEveryScenarioOfTheHTTPBinding(t *testing.T) {
	t.Parallel()

	var features, names []string
	for _, file := range files(t, "features/*.feature") {
		names = append(names, filepath.Base(file))
		if filepath.Base(file) != "kafka-protocol-binding.feature" {
			features = append(features, file)
		}
	}
	// A new feature is run, and a missing one is detected.
	if diff := cmp.Diff([]string{"http-protocol-binding.feature", "kafka-protocol-binding.feature"}, names); diff != "" {
		t.Errorf("features (-known +there):\n%s", diff)
	}
	s := &scenario{endpoint: start(t)}
	suite := godog.TestSuite{
		Name: "CloudEvents",
		ScenarioInitializer: func(sc *godog.ScenarioContext) {
			sc.Step(`^HTTP Protocol Binding is supported$`, s.supported)
			sc.Step(`^an HTTP request$`, s.given)
			sc.Step(`^parsed as HTTP request$`, s.parsed)
			sc.Step(`^the attributes are:$`, s.attributes)
			sc.Step(`^the data is equal to the following JSON:$`, s.data)
		},
		Options: &godog.Options{Format: "pretty", Output: t.Output(), NoColors: true, Paths: features, Strict: true, Concurrency: 1, TestingT: t, DefaultContext: t.Context()},
	}
	if status := suite.Run(); status != 0 {
		t.Errorf("the suite ended with %d", status)
	}
	if s.passed != 4 {
		t.Errorf("%d scenarios passed, want 4", s.passed)
	}
}

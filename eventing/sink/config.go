package sink

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/tandem-fn/tandem/functions/cloudevent"
)

// Config is what belongs to the address of a sink when Knative binds a program
// to one, as SinkBinding and ContainerSource do. The zero SinkConfig adds nothing.
type Config struct {
	// CACerts are certificates in PEM of authorities that are trusted beside the
	// system's (K_CA_CERTS).
	CACerts string

	// TokenFile is the path of a file with a token for the sink, sent as
	// Authorization: Bearer. As it is replaced before it expires, it is read again every
	// few seconds, and after an answer 401. Only requests to the sink's own hosts have it.
	// While there is no such file none is sent. Empty sends none.
	TokenFile string

	// Overrides are extension attributes that every event gets before it is
	// sent, in place of its own of that name (K_CE_OVERRIDES). They must be the
	// same in every cluster: a function may compute something from them.
	Overrides map[string]string
}

// ParseOverrides reads what Knative writes to K_CE_OVERRIDES, as
// {"extensions":{"tenant":"acme"}}. Empty text has no overrides. The error says
// what is wrong with it.
func ParseOverrides(text string) (map[string]string, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	var overrides struct {
		Extensions map[string]string `json:"extensions"`
	}
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&overrides); err != nil {
		return nil, fmt.Errorf(`want {"extensions":{"NAME":"VALUE"}}: %w`, err)
	}
	return overrides.Extensions, nil
}

// TokenFile is where Knative puts the token for a sink that wants one.
const TokenFile = "/oidc/token"

// ForOutputs is the address that outputs go to over HTTP, if any, with what belongs
// to it: the one that was named for them; or else the one that Knative has bound a
// program to that sends nothing else. Empty if there is neither.
func ForOutputs(named, bound string, belonging Config) (sink string, cfg Config) {
	switch {
	case named == "" && bound == "":
		return "", Config{}
	case named == "":
		return bound, belonging
	}
	// The token and the overrides are for where the program is bound to.
	return named, Config{CACerts: belonging.CACerts}
}

// Validate returns an error that names the first setting that is wrong.
func (c Config) Validate() error {
	names := make([]string, 0, len(c.Overrides))
	for name := range c.Overrides {
		names = append(names, name)
	}
	slices.Sort(names) // the same complaint every time
	probe := event.New()
	for _, name := range names {
		if err := override(&probe, name, c.Overrides[name]); err != nil {
			return fmt.Errorf("override of %q: %w", name, err)
		}
	}
	if c.CACerts != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(c.CACerts)) {
		return errors.New("CA certificates: want PEM, beginning with -----BEGIN CERTIFICATE-----")
	}
	return nil
}

// override sets an extension attribute. The error says why it is none.
func override(e *event.Event, name, value string) error {
	switch name {
	case "id", "source", "specversion", "type", "data", "data_base64", "datacontenttype", "dataschema", "subject", "time":
		return errors.New("only extension attributes can be set")
	}
	if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		return errors.New("want lower-case letters and digits")
	}
	if err := cloudevent.CheckText(value); err != nil {
		return err
	}
	return e.Context.SetExtension(name, value)
}

// Apply gives the event as the sink gets it.
func (c Config) Apply(e event.Event) event.Event {
	if len(c.Overrides) == 0 {
		return e
	}
	e = e.Clone()
	for name, value := range c.Overrides {
		_ = override(&e, name, value) // validate has seen to it
	}
	return e
}

// Transport makes the transport to a sink at one or several URLs, which keeps up to idle
// connections to a host.
func (c Config) Transport(idle int, sink ...*url.URL) (http.RoundTripper, error) {
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConns:        0, // no limit but the one below
		MaxIdleConnsPerHost: idle,
		// Under the 30 s after which func's server closes an idle connection:
		// later, and requests meet connections that are just being closed.
		IdleConnTimeout:    20 * time.Second,
		DisableCompression: true,
	}
	if c.CACerts != "" {
		pool, err := x509.SystemCertPool()
		if err != nil {
			return nil, fmt.Errorf("read the system's CA certificates: %w", err)
		}
		pool.AppendCertsFromPEM([]byte(c.CACerts))
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	if c.TokenFile == "" {
		return transport, nil
	}
	origins := make([]string, len(sink))
	for i, u := range sink {
		origins[i] = Origin(u)
	}
	return &withToken{next: transport, file: c.TokenFile, origins: origins}, nil
}

// client makes the HTTP client to sink. It follows no redirects: these are another
// address.
func (c Config) client(sink *url.URL, idle int) (*http.Client, error) {
	transport, err := c.Transport(idle, sink)
	if err != nil {
		return nil, err
	}
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// idleConnections is how many idle connections a client keeps to its sink.
const idleConnections = 256

// Client gives an HTTP client for requests to sink, an absolute URL. The error says
// what is wrong with it or with c.
func (c Config) Client(sink string) (*http.Client, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("set up client: %w", err)
	}
	u, _, err := ParseURL(sink)
	if err != nil {
		return nil, fmt.Errorf("set up client: URL of the sink: %w", err)
	}
	client, err := c.client(u, idleConnections)
	if err != nil {
		return nil, fmt.Errorf("set up client: %w", err)
	}
	return client, nil
}

// ParseURL reads the URL of a sink, and gives it as it may be shown, too.
func ParseURL(address string) (u *url.URL, public string, err error) {
	u, err = url.Parse(address)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		// Not the parser's error: it repeats the URL, password and all.
		return nil, "", errors.New("want http://HOST/PATH or https://HOST/PATH")
	}
	shown := *u
	shown.User = nil
	return u, shown.String(), nil
}

// Origin returns the scheme and host of a URL.
func Origin(u *url.URL) string { return u.Scheme + "://" + u.Host }

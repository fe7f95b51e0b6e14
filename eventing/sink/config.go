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

// Config is the configuration of a sink's address, without the URL, as Knative's
// SinkBinding and ContainerSource state it. The zero Config adds nothing.
type Config struct {
	// CACerts are certificates in PEM of authorities that are trusted in addition to
	// the system's (K_CA_CERTS).
	CACerts string

	// TokenFile is the path of a file with a token for the sink, sent as Authorization:
	// Bearer. Because the token is replaced before it expires, the file is read again
	// every few seconds, and after an answer of 401. Only requests to the sink's own hosts
	// carry the token. While the file does not exist, no token is sent. Empty means no
	// token.
	TokenFile string

	// Overrides are extension attributes that replace those of every event before it is
	// sent (K_CE_OVERRIDES). They must be the same in every cluster, because a function
	// may compute effects from them.
	Overrides map[string]string
}

// ParseOverrides parses Knative's K_CE_OVERRIDES, for example
// {"extensions":{"tenant":"acme"}}. Empty text means no overrides. The error describes
// the invalid part.
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

// TokenFile is the path at which Knative mounts the token for a sink that requires one.
const TokenFile = "/oidc/token"

// ForOutputs returns the address for outputs over HTTP, if any, with its configuration:
// the address named for them, or else the address that Knative has bound to a program
// that sends nothing else. Sink is empty if there is neither.
func ForOutputs(named, bound string, belonging Config) (sink string, cfg Config) {
	switch {
	case named == "" && bound == "":
		return "", Config{}
	case named == "":
		return bound, belonging
	}
	// The token and the overrides belong to the bound address.
	return named, Config{CACerts: belonging.CACerts}
}

// Validate returns an error for the first invalid setting.
func (c Config) Validate() error {
	names := make([]string, 0, len(c.Overrides))
	for name := range c.Overrides {
		names = append(names, name)
	}
	slices.Sort(names) // the same error every time
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

// override sets an extension attribute. The error means that it is not one.
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

// Apply returns the event with the overrides.
func (c Config) Apply(e event.Event) event.Event {
	if len(c.Overrides) == 0 {
		return e
	}
	e = e.Clone()
	for name, value := range c.Overrides {
		_ = override(&e, name, value) // validate has checked it
	}
	return e
}

// Transport returns a transport to a sink at one or several URLs that keeps up to idle
// connections to each host.
func (c Config) Transport(idle int, sink ...*url.URL) (http.RoundTripper, error) {
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConns:        0, // only the limit per host applies
		MaxIdleConnsPerHost: idle,
		// Below the 30 s after which func's server closes an idle connection: otherwise
		// requests would meet connections that are being closed.
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

// client returns the HTTP client for sink. It follows no redirects, because they lead
// to another address.
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

// idleConnections is the number of idle connections that a client keeps to its sink.
const idleConnections = 256

// Client returns an HTTP client for requests to sink, an absolute URL. The error
// describes an invalid URL or field of c.
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

// ParseURL parses the URL of a sink. Public is the URL without the password.
func ParseURL(address string) (u *url.URL, public string, err error) {
	u, err = url.Parse(address)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		// The parser's error would contain the URL with the password.
		return nil, "", errors.New("want http://HOST/PATH or https://HOST/PATH")
	}
	shown := *u
	shown.User = nil
	return u, shown.String(), nil
}

// Origin returns the scheme and host of a URL.
func Origin(u *url.URL) string { return u.Scheme + "://" + u.Host }

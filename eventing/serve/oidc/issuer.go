package oidc

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

// Bounds of an issuer's answers.
const (
	maxAnswer = 1 << 20 // bytes
	maxKeys   = 256
)

// fetchKeys requests the address of the issuer's keys, and fetches them.
func (c Config) fetchKeys(ctx context.Context) ([]key, error) {
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	defer client.CloseIdleConnections()
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, client), c.Issuer)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", c.Issuer, withoutURL(err))
	}
	var metadata struct {
		KeysURL string `json:"jwks_uri"`
	}
	if err := provider.Claims(&metadata); err != nil {
		return nil, fmt.Errorf("ask %s: %w", c.Issuer, err)
	}
	u, err := url.Parse(metadata.KeysURL)
	if err != nil || u.Scheme != "https" && (u.Scheme != "http" || c.TokenFile != "") {
		return nil, fmt.Errorf("ask %s: the address of its keys is %q, want https", c.Issuer, clip(metadata.KeysURL))
	}
	list, err := getKeys(ctx, client, metadata.KeysURL)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", clip(metadata.KeysURL), withoutURL(err))
	}
	return list, nil
}

// withoutURL removes the URL that net/http puts in front of its errors.
func withoutURL(err error) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		return u.Err
	}
	return err
}

func getKeys(ctx context.Context, client *http.Client, from string) ([]key, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // only read from
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer is %s", resp.Status)
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return readKeys(text)
}

// readKeys parses a set of keys (RFC 7517, section 5), without those that cannot verify
// tokens.
func readKeys(text []byte) ([]key, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	var list []key
	for _, text := range set.Keys {
		var k jose.JSONWebKey
		if err := json.Unmarshal(text, &k); err != nil || k.Use == "enc" {
			continue
		}
		switch k.Key.(type) {
		case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey:
			list = append(list, key{id: k.KeyID, public: k.Key})
		}
	}
	if len(list) == 0 || len(list) > maxKeys {
		return nil, fmt.Errorf("read keys: %d are usable, want 1 to %d", len(list), maxKeys)
	}
	return list, nil
}

// client returns a client for one fetch, so that certificates and token may change.
func (c Config) client() (*http.Client, error) {
	roots, err := c.roots()
	if err != nil {
		return nil, err
	}
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &transport{
		token: token,
		base: &http.Transport{
			Proxy:             http.ProxyFromEnvironment,
			TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2: true,
		},
	}}
	if token != "" {
		// The token is for the issuer, and must not be sent to a server to which it
		// redirects.
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	return client, nil
}

// transport sends a token and bounds answers.
type transport struct {
	base  *http.Transport
	token string
}

// RoundTrip implements [http.RoundTripper].
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if t.token != "" {
		req = req.Clone(req.Context())
		req.Header.Set("Authorization", "Bearer "+t.token)
	}
	resp, err := t.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
	return resp, nil
}

// CloseIdleConnections is called by [http.Client.CloseIdleConnections].
func (t *transport) CloseIdleConnections() { t.base.CloseIdleConnections() }

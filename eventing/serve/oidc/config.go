package oidc

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"
)

// Files that a pod needs for requests to the API server.
const (
	accountCA    = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
	accountToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"
)

// Config is the configuration of an [Authorizer]. Issuer and Audience are required.
type Config struct {
	// Issuer is the issuer's URL, equal to "iss" in tokens. Its keys are found by its
	// /.well-known/openid-configuration. With http instead of https, a man in the
	// middle can forge tokens.
	Issuer string

	// Audience must be among the "aud" of a token.
	Audience string

	// Subjects are the senders that are accepted, by "sub" of their tokens: for a
	// service account system:serviceaccount:NAMESPACE:NAME. One that ends in "*" is a
	// prefix. If there are none, every sender with a token is accepted.
	Subjects []string

	// CAFile holds the certificates, in PEM, with which the issuer is verified. It is
	// read for each fetch. Defaults to the cluster's for the API server as the issuer
	// (kubernetes.default.svc), otherwise to the system's.
	CAFile string

	// TokenFile holds a token for the issuer. It is read for each fetch. Defaults to the
	// service account's for the API server, which requires one, otherwise to none.
	TokenFile string

	// Now is the clock for the expiry of tokens. Defaults to time.Now.
	Now func() time.Time
}

func (c Config) withDefaults() Config {
	if u, err := url.Parse(c.Issuer); err == nil && isAPIServer(u.Hostname()) {
		c.CAFile = cmp.Or(c.CAFile, accountCA)
		c.TokenFile = cmp.Or(c.TokenFile, accountToken)
	}
	if c.Now == nil {
		c.Now = time.Now //nolint:forbidigo // the default of Config.Now
	}
	return c
}

func isAPIServer(host string) bool {
	const name = "kubernetes.default.svc"
	return host == name || strings.HasPrefix(host, name+".")
}

func (c Config) validate() error {
	var errs []error
	u, err := url.Parse(c.Issuer)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.RawQuery != "" || u.Fragment != "":
		errs = append(errs, fmt.Errorf("issuer %q: want a URL like https://issuer.example.com", c.Issuer))
	case u.Scheme == "http" && c.TokenFile != "":
		errs = append(errs, fmt.Errorf("issuer %q: want https, because a token is sent to it", c.Issuer))
	}
	if c.Audience == "" {
		errs = append(errs, errors.New("audience: missing"))
	}
	for _, subject := range c.Subjects {
		if prefix := strings.TrimSuffix(subject, "*"); prefix == "" || strings.Contains(prefix, "*") {
			errs = append(errs, fmt.Errorf("subject %q: want one like system:serviceaccount:NAMESPACE:NAME, * only at its end", subject))
		}
	}
	if _, err := c.roots(); err != nil {
		errs = append(errs, err)
	}
	if _, err := c.token(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// roots returns the certificates in CAFile; nil means the system's.
func (c Config) roots() (*x509.CertPool, error) {
	if c.CAFile == "" {
		return nil, nil
	}
	text, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("certificates of the issuer: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("certificates of the issuer: %s holds none in PEM", c.CAFile)
	}
	return pool, nil
}

// token returns the text of TokenFile.
func (c Config) token() (string, error) {
	if c.TokenFile == "" {
		return "", nil
	}
	text, err := os.ReadFile(c.TokenFile)
	if err != nil {
		return "", fmt.Errorf("token for the issuer: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

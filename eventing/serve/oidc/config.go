package oidc

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"
)

// Where Kubernetes puts what a pod needs to talk to the API server.
const (
	accountCA    = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
	accountToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"
)

// Config sets up a [Gate]. Issuer and Audience are required.
type Config struct {
	// Issuer is the issuer's URL, as it stands in tokens under "iss". Its
	// /.well-known/openid-configuration says where the keys are. With http instead
	// of https anybody on the way can let himself in.
	Issuer string

	// Audience is whom tokens have to be for: one of their "aud".
	Audience string

	// Subjects are who may send: "sub", for a service account
	// system:serviceaccount:NAMESPACE:NAME. One that ends in "*" stands for all
	// that begin so. None means everybody who has a token.
	Subjects []string

	// CAFile has the certificates, in PEM, by which the issuer and where its keys
	// are is known; read anew each time. Defaults to the cluster's for the API
	// server as the issuer (kubernetes.default.svc), otherwise to the system's.
	CAFile string

	// TokenFile has a token that is shown to the issuer, likewise read anew.
	// Defaults to the service account's for the API server, which wants one,
	// otherwise to none.
	TokenFile string

	// Now is the clock by which tokens expire. Defaults to time.Now.
	Now func() time.Time
}

func (c Config) withDefaults() Config {
	if u, err := url.Parse(c.Issuer); err == nil && isAPIServer(u.Hostname()) {
		if c.CAFile == "" {
			c.CAFile = accountCA
		}
		if c.TokenFile == "" {
			c.TokenFile = accountToken
		}
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
		errs = append(errs, fmt.Errorf("issuer %q: want https, as it is shown a token", c.Issuer))
	}
	if c.Audience == "" {
		errs = append(errs, errors.New("audience: missing"))
	}
	for _, subject := range c.Subjects {
		if prefix := strings.TrimSuffix(subject, "*"); prefix == "" || strings.Contains(prefix, "*") {
			errs = append(errs, fmt.Errorf("subject %q: want one like system:serviceaccount:NAMESPACE:NAME, with * at its end or none", subject))
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

// roots are the certificates in CAFile; nil for the system's.
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
		return nil, fmt.Errorf("certificates of the issuer: %s has none in PEM", c.CAFile)
	}
	return pool, nil
}

// token is what stands in TokenFile.
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

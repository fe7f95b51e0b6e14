package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/tandem-fn/tandem/eventing/serve"
	"github.com/tandem-fn/tandem/eventing/serve/oidc"
)

// newGate makes what says who may send; nil if everybody may.
func newGate(c config) (serve.Gate, error) {
	if c.OIDCIssuer == "" {
		if c.OIDCAudience != "" || len(c.OIDCSubjects) > 0 || c.OIDCCAFile != "" || c.OIDCTokenFile != "" {
			return nil, errors.New("TANDEM_OIDC_ISSUER: missing, so nobody's token would be looked at; set it, or no other TANDEM_OIDC_ variable")
		}
		return nil, nil
	}
	if c.OIDCAudience == "" {
		return nil, errors.New("TANDEM_OIDC_AUDIENCE: missing, so tokens for others would be good here; Knative gives a Service serving.knative.dev/service/NAMESPACE/NAME")
	}
	gate, err := oidc.New(oidc.Config{Issuer: c.OIDCIssuer, Audience: c.OIDCAudience, Subjects: c.OIDCSubjects, CAFile: c.OIDCCAFile, TokenFile: c.OIDCTokenFile})
	if err != nil {
		return nil, fmt.Errorf("TANDEM_OIDC_ISSUER and its like: %w", err)
	}
	return gate, nil
}

// saySenders says at start who may send: what goes wrong here is not seen later.
func (c config) saySenders(ctx context.Context, log *slog.Logger) {
	switch {
	case c.OIDCIssuer == "":
		log.LogAttrs(ctx, slog.LevelWarn, "everybody who can reach this address may send events and dead letters: let the network see to it, or set TANDEM_OIDC_ISSUER")
	case len(c.OIDCSubjects) == 0:
		log.LogAttrs(ctx, slog.LevelWarn, "everybody to whom the issuer gives a token may send events and dead letters, which in a cluster is every service account: set TANDEM_OIDC_SUBJECTS",
			slog.String("issuer", c.OIDCIssuer), slog.String("audience", c.OIDCAudience))
	default:
		log.LogAttrs(ctx, slog.LevelInfo, "only these may send events and dead letters", slog.Any("subjects", c.OIDCSubjects),
			slog.String("issuer", c.OIDCIssuer), slog.String("audience", c.OIDCAudience))
	}
	if strings.HasPrefix(c.OIDCIssuer, "http:") {
		log.LogAttrs(ctx, slog.LevelWarn, "whoever is between here and the issuer can let himself in, as it is asked over http", slog.String("issuer", c.OIDCIssuer))
	}
}

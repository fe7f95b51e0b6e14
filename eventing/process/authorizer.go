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

// newAuthorizer returns the authorizer of senders; nil if every sender is accepted.
func newAuthorizer(c config) (serve.Authorizer, error) {
	if c.OIDCIssuer == "" {
		if c.OIDCAudience != "" || len(c.OIDCSubjects) > 0 || c.OIDCCAFile != "" || c.OIDCTokenFile != "" {
			return nil, errors.New("TANDEM_OIDC_ISSUER: missing, so no token would be verified; set it, or no other TANDEM_OIDC_ variable")
		}
		return nil, nil
	}
	if c.OIDCAudience == "" {
		return nil, errors.New("TANDEM_OIDC_AUDIENCE: missing, so tokens for other services would be accepted; that of a Knative Service is serving.knative.dev/service/NAMESPACE/NAME")
	}
	authorizer, err := oidc.New(oidc.Config{Issuer: c.OIDCIssuer, Audience: c.OIDCAudience, Subjects: c.OIDCSubjects, CAFile: c.OIDCCAFile, TokenFile: c.OIDCTokenFile})
	if err != nil {
		return nil, fmt.Errorf("TANDEM_OIDC_ISSUER, TANDEM_OIDC_SUBJECTS, TANDEM_OIDC_CA_FILE or TANDEM_OIDC_TOKEN_FILE: %w", err)
	}
	return authorizer, nil
}

// logSenders logs at start which senders are accepted, because a wrong setting has no
// visible effect later.
func (c config) logSenders(ctx context.Context, log *slog.Logger) {
	switch {
	case c.OIDCIssuer == "":
		log.LogAttrs(ctx, slog.LevelWarn, "events and dead letters are accepted from every sender that reaches this address: restrict the network, or set TANDEM_OIDC_ISSUER")
	case len(c.OIDCSubjects) == 0:
		log.LogAttrs(ctx, slog.LevelWarn, "events and dead letters are accepted from every holder of a token, in a cluster every service account: set TANDEM_OIDC_SUBJECTS",
			slog.String("issuer", c.OIDCIssuer), slog.String("audience", c.OIDCAudience))
	default:
		log.LogAttrs(ctx, slog.LevelInfo, "events and dead letters are accepted from these subjects", slog.Any("subjects", c.OIDCSubjects),
			slog.String("issuer", c.OIDCIssuer), slog.String("audience", c.OIDCAudience))
	}
	if strings.HasPrefix(c.OIDCIssuer, "http:") {
		log.LogAttrs(ctx, slog.LevelWarn, "the issuer is reached over http, which lets a man in the middle forge tokens: use https", slog.String("issuer", c.OIDCIssuer))
	}
}

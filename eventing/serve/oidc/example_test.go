package oidc_test

import (
	"log"

	"github.com/tandem-fn/tandem/eventing/serve"
	"github.com/tandem-fn/tandem/eventing/serve/oidc"
)

// Only the service account of a Knative Trigger may send events.
func ExampleNew() {
	authorizer, err := oidc.New(oidc.Config{
		Issuer:   "https://kubernetes.default.svc",
		Audience: "serving.knative.dev/service/default/orders",
		Subjects: []string{"system:serviceaccount:default:orders-trigger"},
	})
	if err != nil {
		log.Fatal(err)
	}
	_ = serve.Config{Authorizer: authorizer}
}

// Package config checks the manifests of config/. It builds every kustomization, and
// checks every object against the types, the validation and the schemas of its
// consumers, in the versions that [Versions] lists. An unknown field fails, and so
// does an object that a webhook would reject.
//
// It is a module of its own, because Tandem does not depend on Knative's and
// Kubernetes' types.
package config

// Package config checks the manifests of config/: every kustomization is built, and
// every object is held against the types, the validation and the schemas of those
// who will read it, in the versions that [Versions] names. A field that does not
// exist fails, and so does what a webhook would refuse.
//
// It is a module of its own: Knative's and Kubernetes' types are nothing that Tandem
// runs with.
package config

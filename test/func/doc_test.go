// Package func tests functions as func ships them: it makes programs of them with
// func's own scaffolding, starts these, sends events and stops them under load.
//
// The func command is used if it is there: in bin/, where hack/install.sh func puts
// it, or in PATH in the version that is wanted. Building it takes minutes, so where
// it is missing its package pkg/scaffolding does, followed by go build.
package func_test

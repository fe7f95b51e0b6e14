// Package docs holds the documentation against the code.
package docs

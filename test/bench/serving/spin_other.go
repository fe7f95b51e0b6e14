//go:build !linux

package serving

import "context"

// spin is run: how not to sleep is known for Linux only.
func (l *load) spin(ctx context.Context) (outcome, error) { return l.run(ctx) }

//go:build !linux

package serving

import "context"

// spin is run: only the Linux version avoids sleeping.
func (l *load) spin(ctx context.Context) (outcome, error) { return l.run(ctx) }

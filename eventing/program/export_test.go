package program

import "context"

// Binary returns the path of the program that Build created.
func (p *Program) Binary(ctx context.Context) string { return p.command(ctx, nil).Path }

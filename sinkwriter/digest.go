package sinkwriter

import (
	"crypto/sha256"
	"fmt"
	"sync"

	"github.com/tandem-fn/tandem/functions"
)

// Digest is the first half of the SHA-256 of effects in their canonical form. It
// is zero if divergence detection is disabled; the ledger stores that as an empty
// value.
type digest [16]byte

func (d *digest) stored() []byte {
	if *d == (digest{}) {
		return nil
	}
	return d[:]
}

// maxPooledBuffer bounds the buffers that are kept for later events.
const maxPooledBuffer = 1 << 20

// digestBuffers hold canonical forms while they are hashed.
var digestBuffers = sync.Pool{New: func() any { return new([]byte) }}

// digestEffects returns the digest, the encoded outputs and the size of the
// canonical form.
func digestEffects(fx functions.Effects) (digest, []functions.EncodedOutput, int, error) {
	buf := digestBuffers.Get().(*[]byte)
	defer func() {
		if cap(*buf) <= maxPooledBuffer {
			digestBuffers.Put(buf)
		}
	}()
	var outputs []functions.EncodedOutput
	var err error
	if *buf, outputs, err = fx.AppendCanonical((*buf)[:0]); err != nil {
		return digest{}, nil, 0, err
	}
	sum := sha256.Sum256(*buf)
	return digest(sum[:16]), outputs, len(*buf), nil
}

// encodeOutputs encodes outputs if no digest is needed.
func encodeOutputs(outputs []functions.Output) ([]functions.EncodedOutput, error) {
	encoded := make([]functions.EncodedOutput, len(outputs))
	for i := range outputs {
		var err error
		if encoded[i], err = outputs[i].Encode(); err != nil {
			return nil, fmt.Errorf("output %d, type %q: %w", i, outputs[i].Type, err)
		}
	}
	return encoded, nil
}

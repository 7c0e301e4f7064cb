// Package transcript is what the program of a step said, as it is kept and shown: its
// end, in plain text, without the secrets that it was given. It is pure.
package transcript

import "bytes"

// Most is how many bytes of what one try of a step said are kept.
const Most = 16 << 10

// Tail keeps the end of what is written to it: at least Most bytes, and never more than
// four times that, however long a line is. Its zero value is ready.
type Tail struct {
	kept []byte
	cut  bool
}

// Write implements io.Writer. It never fails.
func (t *Tail) Write(p []byte) (int, error) {
	t.cut = t.cut || len(t.kept)+len(p) > 2*Most
	t.kept = append(t.kept, p[max(0, len(p)-2*Most):]...)
	if len(t.kept) > 2*Most {
		t.kept = append(t.kept[:0], t.kept[len(t.kept)-2*Most:]...)
	}
	return len(p), nil
}

// String is what is kept. It begins with a line, as half a secret is not known for one,
// but where that is longer than Most.
func (t *Tail) String() string {
	if i := bytes.IndexByte(t.kept[:min(len(t.kept), Most)], '\n'); t.cut && i >= 0 {
		return string(t.kept[i+1:])
	}
	return string(t.kept)
}

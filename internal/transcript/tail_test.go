package transcript

import (
	"strings"
	"testing"
)

// TestTail: the end is kept, whatever the pieces and however long a line is.
func TestTail(t *testing.T) {
	for _, piece := range []int{1, 7, 4096, 5 * Most} {
		var tail Tail
		text := strings.Repeat("a", 9*Most) + "\nthe end\n"
		for rest := text; rest != ""; {
			n := min(piece, len(rest))
			if wrote, err := tail.Write([]byte(rest[:n])); err != nil || wrote != n {
				t.Fatal(wrote, err)
			}
			rest = rest[n:]
		}
		if got := tail.String(); !strings.HasSuffix(text, got) || len(got) < Most || len(got) > 4*Most {
			t.Errorf("pieces of %d: %d bytes are kept, ending %q", piece, len(got), got[max(0, len(got)-20):])
		}
	}
	var lines Tail
	for range 5000 {
		_, _ = lines.Write([]byte("hunter2-and-more\n"))
	}
	if got := lines.String(); strings.Trim(strings.ReplaceAll(got, "hunter2-and-more", ""), "\n") != "" || len(got) < Most {
		t.Errorf("%d bytes are kept, beginning %q", len(got), got[:20])
	}
	var tail Tail
	if _, err := tail.Write([]byte("short")); err != nil || tail.String() != "short" {
		t.Error(tail.String(), err)
	}
}

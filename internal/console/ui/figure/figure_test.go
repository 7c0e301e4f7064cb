package figure

import (
	"testing"
	"time"
)

func TestFormats(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0.0 s", 1500 * time.Millisecond: "1.5 s", 90 * time.Second: "1 m 30 s", time.Hour: "1 h", 49 * time.Hour: "2 d 1 h", -time.Minute: "-1 m"} {
		if got := Duration(d); got != want {
			t.Errorf("%d is %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 5 << 20: "5.0 MiB", 3 << 40: "3.0 TiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("%d is %q", n, got)
		}
	}
}

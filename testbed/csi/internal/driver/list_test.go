package driver

import (
	"slices"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestPagesSurviveRemovalAndAddition(t *testing.T) {
	at := func(n int) place { return place{time.Unix(int64(n), 0), string(rune('a' + n))} }
	self := func(p place) place { return p }
	first, token, err := page([]place{at(1), at(2), at(3)}, self, "", 2)
	if err != nil || len(first) != 2 || token == "" {
		t.Fatalf("first page = %v, %q, %v", first, token, err)
	}
	// The last one of the first page goes, a new one comes.
	second, token, err := page([]place{at(1), at(3), at(4)}, self, token, 2)
	if err != nil || !slices.Equal(second, []place{at(3), at(4)}) || token != "" {
		t.Errorf("second page = %v, %q, %v; want entries 3 and 4 and no token", second, token, err)
	}
	if _, _, err := page(first, self, "nonsense", 0); status.Code(err) != codes.Aborted {
		t.Errorf("page with a foreign token: %v, want Aborted", err)
	}
}

func TestWantedBytes(t *testing.T) {
	const mi = 1 << 20
	for _, c := range []struct {
		name            string
		required, limit int64
		floor, want     int64
		code            codes.Code
	}{
		{name: "nothing asked", floor: 16 * mi, want: 1 << 30},
		{name: "rounded up", required: 100*mi + 1, floor: 16 * mi, want: 101 * mi},
		{name: "raised to the smallest", required: 1, floor: 300 * mi, want: 300 * mi},
		{name: "only a limit", limit: 100 * mi, floor: 16 * mi, want: 100 * mi},
		{name: "limit below the smallest", required: 1, limit: 10 * mi, floor: 300 * mi, code: codes.OutOfRange},
		{name: "limit below required", required: 20 * mi, limit: 10 * mi, code: codes.OutOfRange},
		{name: "negative", required: -1, code: codes.InvalidArgument},
	} {
		got, err := wantedBytes(&csi.CapacityRange{RequiredBytes: c.required, LimitBytes: c.limit}, c.floor)
		if status.Code(err) != c.code || got != c.want {
			t.Errorf("%s: wantedBytes() = %d, %v; want %d, %v", c.name, got, err, c.want, c.code)
		}
	}
}

func TestBusySet(t *testing.T) {
	var b busySet
	leave, err := b.enter("a", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.enter("b", ""); err != nil {
		t.Errorf("another volume without a source is refused: %v", err)
	}
	if _, err := b.enter("c", "a"); status.Code(err) != codes.Aborted {
		t.Errorf("a volume in use is let in: %v", err)
	}
	leave()
	if _, err := b.enter("a"); err != nil {
		t.Errorf("refused after leave: %v", err)
	}
}

package backup

import (
	"errors"
	"testing"
	"time"

	"davit.dev/davit/internal/vault"
)

func TestSurplus(t *testing.T) {
	now := time.Date(2026, 3, 31, 12, 0, 0, 0, time.UTC)
	var entries []Entry
	for i := range 30 * 24 { // hourly for 30 days
		entries = append(entries, Entry{Number: int64(i + 1), At: now.Add(-time.Duration(30*24-1-i) * time.Hour), whole: true})
	}
	entries[5].whole = false              // torn, long ago
	entries[len(entries)-2].whole = false // torn, or under way at another
	gone := map[int64]bool{}
	for _, e := range surplus(entries, now) {
		gone[e.Number] = true
	}
	kept := len(entries) - len(gone)
	if kept < keepNewest+keepDays-3 || kept > keepNewest+keepDays+1 || gone[entries[len(entries)-1].Number] || gone[entries[len(entries)-2].Number] || !gone[entries[5].Number] {
		t.Errorf("it keeps %d", kept)
	}
	for i := range keepNewest {
		if gone[entries[len(entries)-1-i].Number] {
			t.Errorf("the %d. newest goes", i+1)
		}
	}
	// A console that was stopped for a year keeps what it has.
	if all := surplus(entries[700:], now.AddDate(1, 0, 0)); len(all) > 1 {
		t.Errorf("%d of the newest go with age", len(all))
	}
}

// FuzzParse reads any bytes as a document: never a crash, and nothing passes
// whose parts are not the whole.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"formatVersion":1,"console":"c","database":"project","number":1,"size":3,"parts":[{"size":3,"sha256":"00"}]}`))
	f.Add([]byte(`{"formatVersion":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := parse(data)
		if err != nil {
			return
		}
		var size int64
		for _, p := range d.Parts {
			size += p.Size
		}
		if size != d.Size || d.Number < 1 {
			t.Errorf("%+v", d)
		}
	})
}

func TestParseRefuses(t *testing.T) {
	if _, err := parse([]byte(`{"formatVersion":2}`)); err == nil || errors.Is(err, vault.ErrDamaged) {
		t.Errorf("a newer format: %v", err)
	}
	for _, text := range []string{``, `{"formatVersion":1,"database":"console","number":0}`, `{"formatVersion":1,"database":"other","number":1}`, `{"formatVersion":1,"database":"console","number":1,"size":1}`} {
		if _, err := parse([]byte(text)); !errors.Is(err, vault.ErrDamaged) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

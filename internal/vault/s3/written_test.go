package s3

import (
	"testing"
	"time"
)

// TestWritten reads when a version was written from the ids that hold it, and
// leaves all others alone.
func TestWritten(t *testing.T) {
	hidden := time.Date(2026, 11, 27, 13, 0, 0, 0, time.UTC)
	for id, want := range map[string]time.Time{
		"01M8EG2C6F9TXZ0AAV5PPYZ0DM":           time.Date(2026, 11, 27, 12, 35, 47, 23e6, time.UTC),
		"null":                                 hidden,
		"3HL4kqtJvjVBH40Nrjfkd3HL4kqtJvjV":     hidden, // Amazon's
		"0a4e8ed7-90bd-4b0a-8f2e-5fd0e5a5a0ee": hidden,
		"01M8EG2C6F9TXZ0AAV5PPYZ0DU":           hidden, // no U in that alphabet
		"7ZZZZZZZZZ9TXZ0AAV5PPYZ0DM":           hidden, // after it was hidden
	} {
		if got := written(id, hidden); !got.Equal(want) {
			t.Errorf("written(%s) = %v, want %v", id, got, want)
		}
	}
}

// FuzzWritten takes whatever a server says.
func FuzzWritten(f *testing.F) {
	f.Add("01M8EG2C6F9TXZ0AAV5PPYZ0DM")
	f.Fuzz(func(t *testing.T, id string) {
		now := time.Unix(1e9, 0)
		if got := written(id, now); got.After(now.Add(time.Second)) {
			t.Errorf("written(%q) = %v, after it was hidden", id, got)
		}
	})
}

package scenario

import (
	"errors"
	"testing"
	"time"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func at(second int) time.Time { return noon.Add(time.Duration(second) * time.Second) }

// The judge must find each order that is missing, changed or doubled, and may miss
// only those that their site took with it.
func TestCompare(t *testing.T) {
	acks := []Ack{{ID: 1, At: at(1), Checksum: "a"}, {ID: 2, At: at(2), Checksum: "b"}, {ID: 2, At: at(9), Checksum: "c"}}
	lost := []span{{from: at(2), to: at(3)}}
	for name, tt := range map[string]struct {
		text string
		lost []span
		kept int
		want int64 // the order that is found missing
		bad  bool
	}{
		"all there":           {"BEGIN\n1 a 1\n2 c 1\nROLLBACK", lost, 2, 0, false},
		"no loss is allowed":  {"1 a 1\n2 c 1", nil, 0, 2, true},
		"the first is gone":   {"2 c 1", lost, 0, 1, true},
		"the last is gone":    {"1 a 1\n2 b 1", lost, 0, 2, true},
		"one is changed":      {"1 x 1\n2 c 1", lost, 0, 1, true},
		"one is there twice":  {"1 a 1\n1 a 1\n2 c 1", lost, 0, 0, true},
		"one is counted more": {"1 a 2\n2 c 1", lost, 0, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			rows, err := readRows(tt.text)
			if err != nil {
				t.Fatal(err)
			}
			v, err := compare(acks, rows, tt.lost)
			if (err != nil) != tt.bad {
				t.Fatalf("got %+v, %v", v, err)
			}
			var found *lostError
			if errors.As(err, &found); tt.want != 0 && (found == nil || found.order.ID != tt.want) {
				t.Errorf("found %v, want order %d", err, tt.want)
			}
			if err == nil && (v.kept != tt.kept || len(v.lost) != 1) {
				t.Errorf("got %+v", v)
			}
		})
	}
	if _, err := compare(nil, nil, nil); err == nil {
		t.Error("an empty ledger proves nothing, and was taken")
	}
}

// What is kept and what is lost are together what was acknowledged before the site died,
// whatever was lost before that, and is acknowledged since.
func TestTally(t *testing.T) {
	acks := []Ack{{ID: 1, At: at(1), Checksum: "a"}, {ID: 2, At: at(2), Checksum: "b"}, {ID: 3, At: at(3), Checksum: "c"}, {ID: 4, At: at(6), Checksum: "d"}, {ID: 5, At: at(7), Checksum: "e"}, {ID: 5, At: at(9), Checksum: "f"}}
	gaps := []span{{from: at(2), to: at(2)}, {from: at(6), to: at(8)}}
	rows, err := readRows("1 a 1\n3 c 1\n4 d 1\n5 f 1")
	if err != nil {
		t.Fatal(err)
	}
	v, err := compare(acks, rows, gaps)
	if err != nil {
		t.Fatal(err)
	}
	s := tally(acks, v, gaps[1])
	if want := (sums{before: 5, kept: 3, lost: 1, earlier: 1}); s != want || v.kept-s.kept != 1 {
		t.Errorf("%+v of %+v, want %+v", s, v, want)
	}
	if got := s.text(gaps[1]); got != "of 5 orders acknowledged before the site's death 3 are kept, and 1 lost, of its last 2.0 s, besides 1 that were lost earlier" {
		t.Error(got)
	}
}

// Steps that run side by side count once, and only until all was ready.
func TestCovered(t *testing.T) {
	var m moveReport
	add := func(kind string, from, to int) {
		s := moveStep{Kind: kind}
		s.Spans = append(s.Spans, struct {
			Begin time.Time `json:"begin"`
			End   time.Time `json:"end"`
		}{at(from), at(to)})
		m.Steps = append(m.Steps, s)
	}
	add("ready", 8, 20)
	add("restore", 1, 4)
	add("restore", 3, 6)
	add("apply", 6, 8)
	if got := m.covered(at(15), "restore"); got != 5*time.Second {
		t.Errorf("data took %s, want 5 s", got)
	}
	if got := m.covered(at(15), "restore", "ready"); got != 12*time.Second {
		t.Errorf("data and pods took %s, want 12 s", got)
	}
}

func TestSilence(t *testing.T) {
	acks := []Ack{{At: at(60)}, {At: at(1)}, {At: at(20)}, {At: at(8)}}
	if got := silence(acks, at(5), at(10)); got != 12*time.Second {
		t.Errorf("no order for %s, want 12 s", got)
	}
}

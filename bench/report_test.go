package main

import (
	"strings"
	"testing"
	"time"
)

// TestBars: which missed bars are an error is as asked for, and what is met never is.
func TestBars(t *testing.T) {
	fast, slow := lap{objects: 10, runs: 1, took: time.Second}, lap{objects: 10, runs: 1, took: 2 * time.Second}
	for _, c := range []struct {
		ours   lap
		bytes  int64
		wrong  map[string]bool // by what is enforced
		missed int
	}{
		{fast, 10, nil, 0},
		{slow, 10, map[string]bool{all: true}, 1},
		{fast, 100, map[string]bool{all: true, ofMemory: true}, 1},
		{slow, 100, map[string]bool{all: true, ofMemory: true}, 2},
	} {
		for _, enforce := range []string{"", ofMemory, all} {
			var out strings.Builder
			r := report{out: &out}
			r.rate("restore", c.ours, fast, 0.8)
			r.bytes("agent", c.bytes, 100)
			err := r.end(enforce)
			if (err != nil) != c.wrong[enforce] || strings.Count(out.String(), "MISSES the bar") != c.missed || strings.Count(out.String(), "missed") != c.missed {
				t.Errorf("enforced %q: %v\n%s", enforce, err, &out)
			}
		}
	}
}

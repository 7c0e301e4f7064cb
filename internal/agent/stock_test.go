package agent

import (
	"testing"
	"time"
)

func TestImagesAreDue(t *testing.T) {
	var s stock
	now := time.Unix(1000, 0)
	one, two := []string{"a"}, []string{"a", "b"}
	if s.due("p", nil, now) || !s.due("p", one, now) || s.due("q", one, now) {
		t.Error("one plan's images are pulled at a time, and only where there are any")
	}
	s.over()
	if s.due("p", one, now.Add(stockEvery-1)) || !s.due("p", two, now) {
		t.Error("they are pulled anew only where others are needed")
	}
	s.over()
	if !s.due("p", two, now.Add(stockEvery)) {
		t.Error("they are not looked for again in time")
	}
}

package dial

import (
	"errors"
	"testing"

	"davit.dev/davit/internal/uplink"
)

// The word that there is no more may come as often as it likes; documents may not.
func TestHeldWordsFillNoQueue(t *testing.T) {
	var d desk
	d.ready()
	if err := d.push(item{Document: uplink.Document{Revision: 1}}); err != nil {
		t.Fatal(err)
	}
	for n := range int64(3 * waitingMost) {
		if err := d.push(item{held: &uplink.Held{Revision: 2 + n}}); err != nil {
			t.Fatal(err)
		}
	}
	if i, _ := d.next(); i.held != nil || i.Revision != 1 {
		t.Errorf("first came %+v", i)
	}
	if i, _ := d.next(); i.held == nil || i.held.Revision != 1+3*waitingMost {
		t.Errorf("the last word is lost: %+v", i)
	}
	if _, ok := d.next(); ok {
		t.Error("older words still wait")
	}
	// What came after a document says nothing about what comes before one.
	for n := range int64(2) {
		if err := errors.Join(d.push(item{held: &uplink.Held{Revision: n}}), d.push(item{Document: uplink.Document{Revision: 10 + n}})); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if i, _ := d.next(); i.held == nil {
			t.Errorf("a document overtook the word before it: %+v", i)
		}
		if i, _ := d.next(); i.held != nil {
			t.Errorf("a word overtook a document: %+v", i)
		}
	}
	for range waitingMost {
		if err := d.push(item{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.push(item{}); !errors.Is(err, uplink.ErrFrame) {
		t.Errorf("more documents than may wait: %v", err)
	}
}

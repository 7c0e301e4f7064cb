package order

import (
	"testing"
	"time"
)

func TestOrderChecksItself(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.FixedZone("east", 3600))
	o := New(7, at)
	if !o.Valid() {
		t.Error("a fresh order is not valid")
	}
	if again := New(7, at); again != o {
		t.Errorf("New(7) twice: %v, then %v", o, again)
	}
	if later := New(7, at.Add(time.Second)); later.Checksum == o.Checksum {
		t.Error("an order placed again has the checksum of the lost one")
	}
	broken := o
	broken.Payload += "x"
	if broken.Valid() {
		t.Error("an order with another payload is valid")
	}
	moved := o
	moved.PlacedAt = o.PlacedAt.In(time.FixedZone("west", -3600))
	if !moved.Valid() {
		t.Error("the zone in which the time is told matters")
	}
}

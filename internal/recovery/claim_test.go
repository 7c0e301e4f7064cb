package recovery

import (
	"testing"
	"time"

	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/point"
)

// TestWhatIsGivenBackIsGivenBackWithoutWhatWasDoneSince: the source goes on from where it was. What the target
// captured while it had the epoch is of what the run was taken back with: offered as the newest, the next
// failover would bring that back, and lose what the source wrote since. The control is a claim of another kind.
func TestWhatIsGivenBackIsGivenBackWithoutWhatWasDoneSince(t *testing.T) {
	for name, back := range map[string]bool{"given back": true, "taken over": false} {
		w := newWorld(t)
		w.claim("east", 1)
		w.capture("shop-1", "east", 1, instant, point.Crash)
		c := Claiming{Project: w.project, Application: "shop", Number: 2, Self: lease.Identity{Site: "west"}, Holder: "h", Request: "r", At: instant}
		if _, err := Claim(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		w.capture("shop-2", "west", 2, instant.Add(time.Minute), point.Crash)
		var err error
		if c.Self.Site, c.Request = "east", "r"+lease.GivenBack; back {
			_, err = GiveBack(t.Context(), c, "r")
		} else {
			c.Number = 3
			_, err = Claim(t.Context(), c)
		}
		if err != nil {
			t.Fatal(err)
		}
		newest := func() string {
			known, err := readCatalog(t.Context(), w.project, "shop")
			if err != nil {
				t.Fatal(err)
			}
			p, _ := point.Newest(known.points, time.Time{})
			return p.ID
		}
		if want := map[bool]string{true: "shop-1", false: "shop-2"}[back]; newest() != want {
			t.Errorf("%s: %s is offered as the newest, want %s", name, newest(), want)
		}
		w.capture("shop-3", "east", 3, instant.Add(2*time.Minute), point.Crash)
		if newest() != "shop-3" {
			t.Errorf("%s: the source goes on, and %s is offered", name, newest())
		}
	}
}

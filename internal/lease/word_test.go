package lease

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/vault"
)

const (
	lostVault  = "0123456789abcdef0123456789abcdef"
	promotion  = "promotion-00112233445566778899aabbccddeeff"
	neverMoved = "nobody" // as claims of promotions name it
	stoppedBy  = "ann"
)

// nobodys is an epoch that a promotion claimed, in place of those of the lost vault.
func nobodys(n int64, lost, request string) Epoch {
	return Epoch{Number: n, Claim: Claim{Site: neverMoved, Cluster: lost, Request: request, Promotion: &Promotion{From: lost, Known: 4}}}
}

func ofSite(n int64, site string, seen int64) Epoch {
	e := Epoch{Number: n, Claim: Claim{Site: site, Cluster: "of-" + site, Request: fmt.Sprint("r", n)}}
	if seen > 0 {
		e.Claim.Promotion = &Promotion{From: lostVault, Seen: seen}
	}
	return e
}

// TestAWordIsAboutOnePromotion, and about all that was known of the lost vault when
// it was said, also once sites have claimed epochs above. One that was given for
// another promotion, for another lost vault, about another application, or before more
// was known of the lost vault does not count.
func TestAWordIsAboutOnePromotion(t *testing.T) {
	floor := []Epoch{nobodys(1, lostVault, promotion), nobodys(2, lostVault, promotion)}
	moved := append(floor[:2:2], ofSite(3, "east", 4), ofSite(4, "west", 0))
	other := "ffffffffffffffffffffffffffffffff"
	for name, c := range map[string]struct {
		history []Epoch
		app     string
		of      Epoch // what was said; number 0: nothing
		want    bool
	}{
		"said at once":                    {floor, "shop", floor[1], true},
		"said after sites moved over":     {moved, "shop", floor[1], true},
		"nothing was said":                {moved, "shop", Epoch{}, false},
		"for another promotion":           {moved, "shop", nobodys(2, lostVault, "promotion-"+other), false},
		"for another lost vault":          {moved, "shop", nobodys(2, other, promotion), false},
		"of another application":          {moved, "bank", floor[1], false},
		"before more was known":           {append(floor[:2:2], nobodys(3, lostVault, promotion)), "shop", floor[1], false},
		"before more was known, and gone": {append(floor[:2:2], nobodys(3, lostVault, promotion), ofSite(4, "west", 0)), "shop", floor[1], false},
		"given back to nobody since":      {append(moved[:4:4], Epoch{Number: 5, Claim: Claim{Site: neverMoved, Cluster: lostVault, Request: "r/back"}}), "shop", floor[1], true},
		"a cluster bears the name":        {append(moved[:4:4], ofSite(5, neverMoved, 0)), "shop", floor[1], false},
		"a cluster bore the name":         {append([]Epoch{ofSite(1, neverMoved, 0)}, nobodys(2, lostVault, promotion)), "shop", floor[1], false},
		"two lost vaults":                 {append([]Epoch{nobodys(1, other, promotion)}, nobodys(2, lostVault, promotion)), "shop", floor[1], false},
		"never promoted":                  {[]Epoch{ofSite(1, "east", 0), ofSite(2, "west", 0)}, "shop", floor[1], false},
	} {
		p := keptProject(t)
		if c.of.Number > 0 {
			for _, by := range []string{stoppedBy, "bob"} { // its answer may be lost
				if err := Say(t.Context(), p, c.app, c.of, by, time.Now()); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
		}
		w, said, err := Said(t.Context(), p, "shop", c.history)
		if err != nil || said != c.want || said && (w.Site != neverMoved || w.By != stoppedBy || w.Lost != lostVault) {
			t.Errorf("%s: %+v, %v, %v", name, w, said, err)
		}
	}
}

// TestAWordIsChecked: there is none about an epoch that a site holds, it is not taken
// for one about another promotion, and one that is damaged is none.
func TestAWordIsChecked(t *testing.T) {
	p := keptProject(t)
	for name, e := range map[string]Epoch{"held": ofSite(2, "east", 0), "brought over": ofSite(2, "east", 4), "none": {}} {
		if err := Say(t.Context(), p, "shop", e, stoppedBy, time.Now()); err == nil {
			t.Errorf("%s: it was said", name)
		}
	}
	e := nobodys(2, lostVault, promotion)
	if err := Say(t.Context(), p, "shop", e, "", time.Now()); err == nil {
		t.Error("nobody said it")
	}
	if err := Say(t.Context(), p, "shop", e, stoppedBy, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := Say(t.Context(), p, "shop", nobodys(2, lostVault, "promotion-of-another"), stoppedBy, time.Now()); !errors.Is(err, vault.ErrDamaged) {
		t.Errorf("another promotion's word is there: %v", err)
	}
	key := wordKey(p, "shop", 2)
	if err := p.Store().Put(t.Context(), key, strings.NewReader("not sealed"), 10); err != nil {
		t.Fatal(err)
	}
	history := []Epoch{nobodys(1, lostVault, promotion), e}
	said := func() bool {
		t.Helper()
		_, said, err := Said(t.Context(), p, "shop", history)
		if err != nil {
			t.Error(err)
		}
		return said
	}
	if said() {
		t.Error("one that is damaged counts")
	}
	if err := Say(t.Context(), p, "shop", e, stoppedBy, time.Now()); err != nil || !said() {
		t.Errorf("one that is damaged keeps people from saying it anew: %v", err)
	}
	if err := p.WriteSealed(t.Context(), key, []byte(`{"formatVersion":2,"by":"ann"}`)); err != nil {
		t.Fatal(err)
	}
	if said() {
		t.Error("one of a format that is not known counts")
	}
	if err := Say(t.Context(), p, "shop", e, stoppedBy, time.Now()); !errors.Is(err, ErrFormat) {
		t.Errorf("of a format that is not known: %v", err)
	}
}

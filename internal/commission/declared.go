package commission

import (
	"encoding/json"
	"maps"

	"davit.dev/davit/internal/failover"
)

// Declared is what an automatic declaration was about: the site that was lost, and
// the epochs by which it held the plan's applications.
type Declared struct {
	Source string           `json:"source"`
	Epochs map[string]int64 `json:"epochs"`
}

// String is Declared as an order bears it.
func (d Declared) String() string {
	data, _ := json.Marshal(d) // of such a struct it cannot fail
	return string(data)
}

// ReadDeclared reads what String wrote, and refuses all else.
func ReadDeclared(s string) (Declared, error) {
	var d Declared
	if err := json.Unmarshal([]byte(s), &d); err != nil || d.Source == "" || len(d.Epochs) == 0 {
		return Declared{}, Refuse("give `failover` by hand, if it is wanted", "the order does not say which site was declared lost")
	}
	return d, nil
}

// Still refuses a run whose applications are not exactly where they were when their
// site was declared lost: somebody saw to them since.
func (d Declared) Still(s *failover.Spec, facts *failover.Facts) error {
	now := Declared{Source: d.Source, Epochs: map[string]int64{}}
	for _, app := range s.Applications {
		held := facts.Epochs[app]
		if held.Site != d.Source {
			return Refuse("`status` shows it; give `failover` by hand, if it is wanted", "site %s was declared lost, and %s is at site %q since, by epoch %d", d.Source, app, held.Site, held.Number)
		}
		now.Epochs[app] = held.Number
	}
	if !maps.Equal(d.Epochs, now.Epochs) {
		return Refuse("`status` shows it; give `failover` by hand, if it is wanted", "site %s was declared lost as holder by the epochs %v, and holds by %v now", d.Source, d.Epochs, now.Epochs)
	}
	return nil
}

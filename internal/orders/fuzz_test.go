package orders

import (
	"errors"
	"testing"

	"davit.dev/davit/internal/vault"
)

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"formatVersion":1,"within":1000,"order":{"action":"act","run":"r","site":"east","token":{"Run":"r","Sequence":1,"Epochs":{"a":1}}}}`))
	f.Add([]byte(`{"formatVersion":1,"answer":{"outcome":"done"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if o, err := parseOrder(data); err == nil && o.FormatVersion != formatVersion {
			t.Errorf("read an order of format %d", o.FormatVersion)
		}
		if _, err := parseAnswer(data); err != nil && len(data) == 0 && !errors.Is(err, vault.ErrDamaged) {
			t.Errorf("nothing is %v", err)
		}
	})
}

package audit

import (
	"errors"
	"testing"
	"time"
)

func chain(t *testing.T) []Record {
	t.Helper()
	var all []Record
	var tail Tail
	for i, action := range []string{"login", "document.apply", "token.create", "logout"} {
		r, err := tail.Next(Record{At: time.Unix(int64(i), 123456789), By: "user/anna", Action: action})
		if err != nil {
			t.Fatal(err)
		}
		all, tail = append(all, r), r.Tail()
	}
	return all
}

func verify(all []Record) (err error) {
	var tail Tail
	for _, r := range all {
		if tail, err = tail.Follow(r); err != nil {
			return err
		}
	}
	return nil
}

// Whatever is done to a log, what follows says so. A log that nobody touched is whole.
func TestChain(t *testing.T) {
	if err := verify(chain(t)); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func([]Record) []Record{
		"changed":  func(all []Record) []Record { all[1].Action = "document.delete"; return all },
		"by":       func(all []Record) []Record { all[1].By = "user/bob"; return all },
		"left out": func(all []Record) []Record { return append(all[:1:1], all[2:]...) },
		"swapped":  func(all []Record) []Record { all[1], all[2] = all[2], all[1]; return all },
		"first":    func(all []Record) []Record { return all[1:] },
		"rehashed": func(all []Record) []Record {
			all[1].By = "user/bob"
			r, err := all[0].Tail().Next(all[1])
			if err != nil {
				t.Fatal(err)
			}
			all[1] = r
			return all
		},
		"put between": func(all []Record) []Record {
			r, err := all[0].Tail().Next(Record{By: "user/bob", Action: "login"})
			if err != nil {
				t.Fatal(err)
			}
			return append(append(all[:1:1], r), all[1:]...)
		},
	} {
		if err := verify(spoil(chain(t))); !errors.Is(err, ErrBroken) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

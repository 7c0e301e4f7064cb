package volume

import (
	"errors"
	"slices"
	"testing"

	"davit.dev/davit/internal/volume/changes"
)

// TestWhereFilesLayIsKnownThoughTheListIsDamaged: the snapshot's files are taken over then, by its root.
// What cannot be read at all is an error, not a snapshot that says nothing: it would be forgotten
// which files were stored by their storage's word.
func TestWhereFilesLayIsKnownThoughTheListIsDamaged(t *testing.T) {
	s := newTestStore()
	r := openTest(t, s)
	root := t.TempDir()
	put(t, root+"/db", random(1, 9<<20))
	of := write(t, r, root, func(o *WriteOptions) {
		o.Changes = &changes.Plan{Now: changes.NewBook(changes.Head{Snapshot: "snap-1", Size: 1 << 40})}
	})
	own := s.keys(testPrefix + "q")
	other := write(t, r, t.TempDir(), func(o *WriteOptions) { o.Source.Claim = "b" })
	for _, key := range s.keys(testPrefix + "q") {
		if !slices.Contains(own, key) {
			flipAll(t, s, key)
		}
	}
	r = openTest(t, s)
	if book, err := r.Blocks(t.Context(), of); err != nil || book == nil || book.Snapshot != "snap-1" || !book.Has("db") {
		t.Errorf("the list is damaged: %+v, %v", book, err)
	}
	if book, err := r.Blocks(t.Context(), other); book != nil || !errors.Is(err, ErrBlocks) {
		t.Errorf("a snapshot whose root is damaged: %+v, %v", book, err)
	}
	for _, key := range own {
		flipAll(t, s, key)
	}
	if book, err := openTest(t, s).Blocks(t.Context(), of); book != nil || !errors.Is(err, ErrBlocks) {
		t.Errorf("all is damaged: %+v, %v", book, err)
	}
}

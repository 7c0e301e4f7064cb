package volume

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

// shelf is a first vault and its copy, with blobs and inventories made by hand.
type shelf struct {
	t        *testing.T
	from, to *mem.Store
	at       time.Time
	may      func(context.Context) bool
}

func (s *shelf) put(key string, data []byte) {
	s.t.Helper()
	if err := s.from.Put(s.t.Context(), key, bytes.NewReader(data), int64(len(data))); err != nil {
		s.t.Fatal(err)
	}
}

func (s *shelf) lose(key string) {
	s.t.Helper()
	if err := s.from.Delete(s.t.Context(), key); err != nil {
		s.t.Fatal(err)
	}
}

func (s *shelf) record(op operation, id string) record {
	sum := sha256.Sum256([]byte(id))
	return record{Op: op, Blob: id, Size: int64(len(id)), SHA256: hex.EncodeToString(sum[:]), Time: s.at.Unix()}
}

// inventory stores one; its name tells when.
func (s *shelf) inventory(suffix string, records ...record) string {
	s.t.Helper()
	data, err := encodeInventory(records)
	if err != nil {
		s.t.Fatal(err)
	}
	key := "v/east-inventory/" + newSessionTime(s.at) + "-abc" + suffix
	s.put(key, data)
	return key
}

func (s *shelf) mirror(needs ...string) MirrorReport {
	s.t.Helper()
	opts := Options{Store: s.from, Prefix: "v/east/", Now: func() time.Time { return s.at }}
	report, err := Mirror(s.t.Context(), opts, MirrorOptions{To: s.to, MayDelete: s.may, Needs: needs})
	if err != nil {
		s.t.Fatal(err)
	}
	return report
}

func (s *shelf) copied() string {
	s.t.Helper()
	var ids []string
	err := s.to.List(s.t.Context(), "v/east/", func(o vault.ObjectInfo) error {
		ids = append(ids, strings.TrimPrefix(o.Key, "v/east/"))
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.Join(ids, " ")
}

func newShelf(t *testing.T) *shelf {
	return &shelf{
		t: t, from: mem.New(nil), to: mem.New(nil), at: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		may: func(context.Context) bool { return true },
	}
}

// TestMirrorDeletesByTheBookOnly is about a blob that went from the first
// vault: only a record, or a younger merged inventory without it, says that it
// was meant to.
func TestMirrorDeletesByTheBookOnly(t *testing.T) {
	for name, test := range map[string]struct {
		then func(*shelf, string)
		want string
	}{
		"deleted":     {func(s *shelf, _ string) { s.inventory("-000002", s.record(opDelete, "pgone")) }, "pkept"},
		"lost":        {func(*shelf, string) {}, "pgone pkept"},
		"merged away": {func(s *shelf, old string) { s.inventory(mergedSuffix, s.record(opPut, "pkept")); s.lose(old) }, "pkept"},
		"merged and still said": {func(s *shelf, old string) {
			s.inventory(mergedSuffix, s.record(opPut, "pkept"), s.record(opPut, "pgone"))
			s.lose(old)
		}, "pgone pkept"},
		"inventories lost too": {func(s *shelf, old string) { s.inventory("-000002", s.record(opPut, "pkept")); s.lose(old) }, "pgone pkept"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShelf(t)
			for _, id := range []string{"pgone", "pkept"} {
				s.put("v/east/"+id, []byte(id))
			}
			old := s.inventory("-000001", s.record(opPut, "pgone"), s.record(opPut, "pkept"))
			if r := s.mirror(old); len(r.Missing) > 0 || s.copied() != "pgone pkept" {
				t.Fatalf("%+v: the copy has %s", r, s.copied())
			}
			s.at = s.at.Add(72 * time.Hour)
			s.lose("v/east/pgone")
			test.then(s, old)
			s.mirror()
			if got := s.copied(); got != test.want {
				t.Errorf("the copy has %q, want %q", got, test.want)
			}
		})
	}
}

// TestMirrorAsksBeforeItDeletes, and only then.
func TestMirrorAsksBeforeItDeletes(t *testing.T) {
	s := newShelf(t)
	asked := 0
	s.may = func(context.Context) bool { asked++; return asked > 1 }
	s.put("v/east/pgone", []byte("pgone"))
	s.inventory("-000001", s.record(opPut, "pgone"))
	s.mirror()
	if asked != 0 {
		t.Error("asked although nothing is to be deleted")
	}
	s.lose("v/east/pgone")
	s.at = s.at.Add(time.Hour)
	s.inventory("-000002", s.record(opDelete, "pgone"))
	for _, want := range []string{"pgone", ""} {
		if s.mirror(); s.copied() != want {
			t.Errorf("asked %d times, the copy has %q, want %q", asked, s.copied(), want)
		}
	}
}

// TestMirrorSaysWhatIsMissing, and does not call such a copy whole by bringing
// the inventories over.
func TestMirrorSaysWhatIsMissing(t *testing.T) {
	for name, test := range map[string]struct {
		harm func(s *shelf, inventory string)
		want string
	}{
		"changed":        {func(s *shelf, _ string) { s.put("v/east/p1", []byte("px")) }, "p1"},
		"gone":           {func(s *shelf, _ string) { s.lose("v/east/p1") }, "p1"},
		"inventory gone": {func(s *shelf, key string) { s.lose(key) }, "inventory"},
		"inventory bad":  {func(s *shelf, key string) { s.put(key, []byte(inventoryHeader)) }, "inventory"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShelf(t)
			s.put("v/east/p1", []byte("p1"))
			key := s.inventory("-000001", s.record(opPut, "p1"))
			test.harm(s, key)
			r := s.mirror(key)
			if len(r.Missing) != 1 || !strings.Contains(r.Missing[0].String(), test.want) {
				t.Errorf("missing %v, want %s", r.Missing, test.want)
			}
			if got := s.copied(); got != "" {
				t.Errorf("the copy has %s", got)
			}
		})
	}
}

// TestMirrorReadsBackWhatAnInterruptedRunLeft: such a blob has the right size.
func TestMirrorReadsBackWhatAnInterruptedRunLeft(t *testing.T) {
	s := newShelf(t)
	s.put("v/east/p1", []byte("p1"))
	key := s.inventory("-000001", s.record(opPut, "p1"))
	if err := s.to.Put(t.Context(), "v/east/p1", strings.NewReader("px"), 2); err != nil {
		t.Fatal(err)
	}
	if r := s.mirror(key); r.Copied != 2 {
		t.Errorf("%+v", r)
	}
	if r := s.mirror(key); r.Copied != 0 {
		t.Errorf("again %+v", r)
	}
}

// busy is a store in which others write: it says what is read.
type busy struct {
	vault.Store
	before func(key string)
}

func (b *busy) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	b.before(key)
	return b.Store.Get(ctx, key, offset, length)
}

// TestMirrorOfWhatOthersChange: what is deleted, replaced or merged by the book after the
// run read the inventories is not missing, and the copy is whole. The control is what goes
// without a word.
func TestMirrorOfWhatOthersChange(t *testing.T) {
	other := func(s *shelf, op operation, id, content string) record {
		sum := sha256.Sum256([]byte(content))
		return record{Op: op, Blob: id, Size: int64(len(content)), SHA256: hex.EncodeToString(sum[:]), Time: s.at.Unix()}
	}
	for name, test := range map[string]struct {
		at      string // the key that is just about to be read
		happens func(s *shelf, inventory string)
		want    string // blobs of the copy
		missing string
	}{
		"deleted": {"v/east/p1", func(s *shelf, _ string) {
			s.inventory("-000002", s.record(opDelete, "p2"))
			s.lose("v/east/p2")
		}, "k p1", ""},
		"replaced": {"v/east/p1", func(s *shelf, _ string) {
			s.inventory("-000002", other(s, opPut, "k", "new"))
			s.put("v/east/k", []byte("new"))
		}, "k p1 p2", ""},
		"merged": {"v/east/k", func(s *shelf, key string) {
			s.at = s.at.Add(time.Hour)
			s.inventory(mergedSuffix, s.record(opPut, "p1"), s.record(opPut, "p2"), s.record(opPut, "k"))
			s.lose(key)
		}, "k p1 p2", ""},
		"gone": {"v/east/p1", func(s *shelf, _ string) { s.lose("v/east/p2") }, "k p1", "p2"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShelf(t)
			for _, id := range []string{"p1", "p2", "k"} {
				s.put("v/east/"+id, []byte(id))
			}
			key := s.inventory("-000001", s.record(opPut, "p1"), s.record(opPut, "p2"), s.record(opPut, "k"))
			var once sync.Once
			from := &busy{s.from, func(key2 string) {
				if key2 == test.at {
					once.Do(func() { test.happens(s, key) })
				}
			}}
			opts := Options{Store: from, Prefix: "v/east/", Parallel: 1, Now: func() time.Time { return s.at }}
			r, err := Mirror(t.Context(), opts, MirrorOptions{To: s.to, MayDelete: s.may})
			if err != nil {
				t.Fatal(err)
			}
			var missing []string
			for _, d := range r.Missing {
				missing = append(missing, d.Blob)
			}
			if got := s.copied(); got != test.want || strings.Join(missing, " ") != test.missing {
				t.Errorf("the copy has %s, want %s; missing %q, want %q", got, test.want, missing, test.missing)
			}
			if test.missing == "" {
				if again := s.mirror(); again.Copied > 0 || len(again.Missing) > 0 {
					t.Errorf("another run has to do %+v", again)
				}
				of := &Repository{opts: Options{Store: s.to, Prefix: "v/east/"}.withDefaults()}
				if whole, err := of.verifyBlobs(t.Context(), nil, VerifyOptions{}); err != nil || len(whole.Damaged)+len(whole.Unlisted) > 0 {
					t.Errorf("the copy is %+v, %v", whole, err)
				}
			}
		})
	}
}

// TestMirrorFollowsReplacedBlobs, whose name says nothing of their bytes.
func TestMirrorFollowsReplacedBlobs(t *testing.T) {
	s := newShelf(t)
	var records []record
	for _, data := range []string{"one", "two"} {
		sum := sha256.Sum256([]byte(data))
		records = append(records, record{Op: opPut, Blob: "kopia.repository", Size: 3, SHA256: hex.EncodeToString(sum[:]), Time: 1})
		s.put("v/east/kopia.repository", []byte(data))
		s.inventory(fmt.Sprintf("-%06d", len(records)), records...)
		s.mirror()
		body, err := s.to.Get(t.Context(), "v/east/kopia.repository", 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 3)
		if _, err := body.Read(got); err != nil || !slices.Equal(got, []byte(data)) {
			t.Errorf("the copy has %q, want %q", got, data)
		}
	}
}

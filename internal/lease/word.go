package lease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/internal/vault"
)

// wordFormat is the version of words that this version writes and reads.
const wordFormat = 1

// ErrFormat says that a word or a fact is of a format that this version does not know.
var ErrFormat = errors.New("use one version of davit at all sites")

// Word is what a person says once a promoted vault's sites have been moved over:
// that none of those which were not still writes the application, or will.
// Nothing can prove it: the epochs by which such a site writes were lost with the
// vault, and those that a promotion claimed as nobody's stand for them.
type Word struct {
	FormatVersion int    `json:"formatVersion"`
	Application   string `json:"application"`
	// Epoch is the newest that the promotion had claimed as nobody's. One that is
	// claimed later tells of more of the lost vault, and takes a word of its own.
	Epoch int64 `json:"epoch"`
	// Site is the name in its claim, Lost the id of the lost vault.
	Site string `json:"site"`
	Lost string `json:"lost"`
	// Request is that of its claim, which names the promotion.
	Request string    `json:"request"`
	By      string    `json:"by"`
	At      time.Time `json:"at"` // by the clock of whoever said it, for people
}

func wordKey(p *vault.Project, app string, n int64) string {
	return fmt.Sprintf("%sstopped/%s/%020d", p.Root(), app, n)
}

// Unheld returns the newest epoch that a promotion claimed as nobody's; false if
// there is none, or if a cluster bears the name in it: of that one a person's word
// says nothing.
func Unheld(history []Epoch) (newest Epoch, ok bool) {
	for _, e := range history {
		if word := e.Claim.Promotion; word != nil && word.Seen == 0 {
			newest, ok = e, true
		}
	}
	for _, e := range history {
		if ok && e.Claim.Site == newest.Claim.Site && e.Claim.Cluster != newest.Claim.Promotion.From {
			return Epoch{}, false
		}
	}
	return newest, ok
}

// Namesake returns the newest epoch that a promotion claimed as nobody's, if a cluster
// bears, or bore, the name in it: neither a word nor a proof tells the two apart.
func Namesake(history []Epoch) (newest Epoch, ok bool) {
	if _, free := Unheld(history); free {
		return Epoch{}, false
	}
	for _, e := range history {
		if word := e.Claim.Promotion; word != nil && word.Seen == 0 {
			newest, ok = e, true
		}
	}
	return newest, ok
}

// Claimed are the applications that were ever claimed, sorted.
func Claimed(ctx context.Context, p *vault.Project) ([]string, error) {
	prefix := p.Root() + "epochs/"
	var apps []string
	err := p.Store().List(ctx, prefix, func(o vault.ObjectInfo) error {
		app, _, ok := strings.Cut(strings.TrimPrefix(o.Key, prefix), "/")
		if ok && (len(apps) == 0 || apps[len(apps)-1] != app) { // in the order of the keys
			apps = append(apps, app)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list what was ever claimed: %w", err)
	}
	slices.Sort(apps)
	return slices.Compact(apps), nil
}

// Say writes a person's word about an epoch that Unheld returned. To say it again is
// as good as once: the first who did is named. One that is there and damaged, which
// counts for nothing, gives way to it: else nobody could ever say it.
func Say(ctx context.Context, p *vault.Project, app string, e Epoch, by string, at time.Time) error {
	if err := vault.CheckName(app); err != nil {
		return fmt.Errorf("say that %s has stopped: %w", app, err)
	}
	if e.Number < 1 || e.Claim.Promotion == nil || e.Claim.Promotion.Seen != 0 || by == "" {
		return fmt.Errorf("say that %s has stopped: epoch %d is not nobody's, or nobody says it", app, e.Number)
	}
	w := wordOf(app, e)
	w.FormatVersion, w.By, w.At = wordFormat, by, at.UTC()
	data, err := json.Marshal(w)
	if err != nil {
		return fmt.Errorf("encode word about %s: %w", app, err)
	}
	key := wordKey(p, app, e.Number)
	err = p.WriteSealedOnce(ctx, key, data)
	if errors.Is(err, vault.ErrExists) {
		there, read := readWord(ctx, p, app, e.Number)
		switch {
		case errors.Is(read, vault.ErrDamaged):
			err = p.WriteSealed(ctx, key, data)
		case read != nil:
			return read
		case there.about(app, e):
			return nil
		default:
			err = fmt.Errorf("%w: what is said of epoch %d is of another promotion", vault.ErrDamaged, e.Number)
		}
	}
	if err != nil {
		return fmt.Errorf("say that %s has stopped: %w", app, err)
	}
	return nil
}

// Said returns the word that counts for an application, by its whole history: about
// the newest of nobody's epochs, of the promotion that claimed it. One of another
// promotion or about fewer epochs does not count, nor does one that is damaged or of a
// newer version: runs then ask people, and Say tells those what is wrong with it. The
// error is that of a vault that does not answer.
func Said(ctx context.Context, p *vault.Project, app string, history []Epoch) (Word, bool, error) {
	e, ok := Unheld(history)
	if !ok {
		return Word{}, false, nil
	}
	w, err := readWord(ctx, p, app, e.Number)
	switch {
	case errors.Is(err, vault.ErrNotFound), errors.Is(err, vault.ErrDamaged), errors.Is(err, ErrFormat):
		return Word{}, false, nil
	case err != nil:
		return Word{}, false, err
	}
	return w, w.about(app, e), nil
}

// wordOf is what a word about an epoch says of that.
func wordOf(app string, e Epoch) Word {
	return Word{Application: app, Epoch: e.Number, Site: e.Claim.Site, Lost: e.Claim.Promotion.From, Request: e.Claim.Request}
}

func (w Word) about(app string, e Epoch) bool {
	w.FormatVersion, w.By, w.At = 0, "", time.Time{}
	return w == wordOf(app, e)
}

func readWord(ctx context.Context, p *vault.Project, app string, n int64) (Word, error) {
	var w Word
	data, err := p.ReadSealed(ctx, wordKey(p, app, n))
	if err != nil {
		return w, fmt.Errorf("read who said that %s has stopped: %w", app, err)
	}
	if err := json.Unmarshal(data, &w); err != nil {
		return w, fmt.Errorf("read who said that %s has stopped: %w: %w", app, vault.ErrDamaged, err)
	}
	if w.FormatVersion != wordFormat {
		return w, fmt.Errorf("read who said that %s has stopped: it has format %d, this davit knows %d: %w", app, w.FormatVersion, wordFormat, ErrFormat)
	}
	if w.By == "" {
		return w, fmt.Errorf("read who said that %s has stopped: %w: nobody did", app, vault.ErrDamaged)
	}
	return w, nil
}

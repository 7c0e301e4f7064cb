package register

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/vault"
)

// Abandoned says that a person gave a run up at a site: what it held there is let go.
type Abandoned struct {
	FormatVersion int       `json:"formatVersion"`
	Run           string    `json:"run"`
	Site          string    `json:"site"`
	By            string    `json:"by"`
	Reason        string    `json:"reason"`
	At            time.Time `json:"at"` // for people
	Applications  []string  `json:"applications"`
}

// ErrCarried says that somebody carries the run, or can.
var ErrCarried = errors.New("it is not given up")

func (r Register) gone(run, site string) string {
	return r.project.Root() + "abandoned/" + run + "/" + site
}

// Abandon notes that a run is given up at a site. ErrCarried says that it is under
// way, or may be: only one that is over, or of which the vault knows nothing, is given
// up. Where that cannot be seen, nothing is noted. Given again it changes nothing.
func (r Register) Abandon(ctx context.Context, a Abandoned) error {
	if err := errors.Join(vault.CheckName(a.Run), vault.CheckName(a.Site)); err != nil {
		return fmt.Errorf("give run %s up: %w", a.Run, err)
	}
	if a.By == "" || a.Reason == "" {
		return fmt.Errorf("give run %s up: nobody says who does and why", a.Run)
	}
	if err := r.Idle(ctx, a.Run); err != nil {
		return err
	}
	a.FormatVersion, a.At = formatVersion, a.At.UTC()
	data, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if err := r.project.WriteSealedOnce(ctx, r.gone(a.Run, a.Site), data); err != nil && !errors.Is(err, vault.ErrExists) {
		return fmt.Errorf("note that run %s is given up: %w", a.Run, err)
	}
	return nil
}

// Idle says why a run cannot be given up: somebody carries it, or may.
func (r Register) Idle(ctx context.Context, run string) error {
	if err := r.idle(ctx, run); err != nil {
		return fmt.Errorf("give run %s up: %w", run, err)
	}
	return nil
}

func (r Register) idle(ctx context.Context, run string) error {
	s, err := journal.Read(ctx, r.project, run)
	switch {
	case err == nil && s.Phase.Over():
		return nil
	case err == nil:
		return fmt.Errorf("%w: its journal is in the vault, and it is %s", ErrCarried, s.Phase)
	case !errors.Is(err, vault.ErrNotFound):
		return err
	}
	age, err := r.Age(ctx, run)
	if errors.Is(err, vault.ErrNotFound) {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("%w: it was noted as under way %s ago, and may begin", ErrCarried, age.Round(time.Second))
	}
	return err
}

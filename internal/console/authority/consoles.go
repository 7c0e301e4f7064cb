package authority

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"davit.dev/davit/internal/vault"
)

// Console is a console that was let into a project.
type Console struct {
	FormatVersion int       `json:"formatVersion"`
	Name          string    `json:"name"` // for people: the machine that it was made on
	Recipient     string    `json:"recipient"`
	Created       time.Time `json:"created"`
}

func consoles(p *vault.Project) string { return p.Root() + "consoles/" }

// Enroll notes whose key a console's is, before it is admitted: a key that
// belongs to nobody would be taken for a recovery key.
func Enroll(ctx context.Context, p *vault.Project, c Console) error {
	r, err := vault.ParseRecipient(c.Recipient)
	if err != nil {
		return fmt.Errorf("enroll console: %w", err)
	}
	c.FormatVersion = formatVersion
	data, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("enroll console: %w", err)
	}
	err = p.WriteSealedOnce(ctx, consoles(p)+r.Fingerprint(), data)
	if errors.Is(err, vault.ErrExists) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("enroll console: %w", err)
	}
	return nil
}

// Consoles returns the consoles that were let into a project.
func Consoles(ctx context.Context, p *vault.Project) ([]Console, error) {
	var keys []string
	err := p.Store().List(ctx, consoles(p), func(o vault.ObjectInfo) error {
		keys = append(keys, o.Key)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list consoles: %w", err)
	}
	var all []Console
	for _, key := range keys {
		plain, err := p.ReadSealed(ctx, key)
		if err != nil {
			return nil, fmt.Errorf("list consoles: %w", err)
		}
		var c Console
		err = json.Unmarshal(plain, &c)
		r, parseErr := vault.ParseRecipient(c.Recipient)
		if err = errors.Join(err, parseErr); err != nil || !strings.HasSuffix(key, "/"+r.Fingerprint()) {
			return nil, fmt.Errorf("read %s: %w", key, errors.Join(vault.ErrDamaged, err))
		}
		all = append(all, c)
	}
	return all, nil
}

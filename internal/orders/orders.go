// Package orders carries a run's orders to sites that its executor does not
// reach, and their answers back, through the vault
// (docs/formats/orders.md). It does not know what they mean.
package orders

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/vault"
)

// formatVersion is what this code writes, and the highest that it reads.
const formatVersion = 1

// lookEvery is how often a Sender looks for an answer.
const lookEvery = 500 * time.Millisecond

// tidyTimeout bounds the deletion of what is not needed any more.
const tidyTimeout = 5 * time.Second

// orderFile and answerFile are what is stored.
type orderFile struct {
	FormatVersion int           `json:"formatVersion"`
	Within        time.Duration `json:"within"`
	Order         execute.Order `json:"order"`
}

type answerFile struct {
	FormatVersion int            `json:"formatVersion"`
	Answer        execute.Answer `json:"answer"`
}

func orderKey(p *vault.Project, site, id string) string {
	return p.Root() + "orders/" + site + "/" + id
}

func answerKey(p *vault.Project, site, id string) string {
	return p.Root() + "answers/" + site + "/" + id
}

// Sender is the executor's end: an actuator for every site that has an agent.
type Sender struct{ Project *vault.Project }

// Do implements execute.Actuator: it returns the answer of the order's site, or
// NoAnswer when the context ends before there is one. The site forgets the order then,
// and ends what it is at.
func (s Sender) Do(ctx context.Context, o execute.Order) execute.Answer {
	if err := errors.Join(vault.CheckName(o.Site), vault.CheckName(o.Run)); err != nil {
		return execute.Refuse("send order: %v", err)
	}
	id := o.Run + "." + newID()
	file := orderFile{FormatVersion: formatVersion, Within: time.Hour, Order: o}
	if deadline, ok := ctx.Deadline(); ok {
		file.Within = time.Until(deadline)
	}
	if err := put(ctx, s.Project, orderKey(s.Project, o.Site, id), file); err != nil {
		tidy(ctx, s.Project, orderKey(s.Project, o.Site, id)) // it may have arrived all the same
		return execute.Unknown("send order to site %s: %v", o.Site, err)
	}
	answer, err := s.await(ctx, o.Site, id)
	tidy(ctx, s.Project, orderKey(s.Project, o.Site, id), answerKey(s.Project, o.Site, id))
	if err != nil {
		return execute.Unknown("site %s did not answer: %v", o.Site, err)
	}
	return answer
}

// await returns the answer, or the last reason why there was none.
func (s Sender) await(ctx context.Context, site, id string) (execute.Answer, error) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		data, err := s.Project.ReadSealed(ctx, answerKey(s.Project, site, id))
		if err == nil {
			return parseAnswer(data)
		}
		if errors.Is(err, vault.ErrDamaged) {
			return execute.Answer{}, err
		}
		if errors.Is(err, vault.ErrNotFound) {
			err = errors.New("no agent took the order up in time")
		}
		select {
		case <-ctx.Done():
			return execute.Answer{}, err
		case <-look.C:
		}
	}
}

func newID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func put(ctx context.Context, p *vault.Project, key string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	return p.WriteSealedOnce(ctx, key, data)
}

// tidy deletes what has been read, also when the run has been canceled. What stays
// because the vault is silent is old when somebody finds it.
func tidy(ctx context.Context, p *vault.Project, keys ...string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyTimeout)
	defer cancel()
	for _, key := range keys {
		_ = p.Store().Delete(ctx, key) // it changes nothing if it stays
	}
}

func parseOrder(data []byte) (orderFile, error) {
	var f orderFile
	if err := json.Unmarshal(data, &f); err != nil {
		return f, fmt.Errorf("read order: %w: %w", vault.ErrDamaged, err)
	}
	if f.FormatVersion != formatVersion {
		return f, fmt.Errorf("read order: it has format %d, this davit knows %d: use one version of davit at all sites", f.FormatVersion, formatVersion)
	}
	err := vault.CheckName(f.Order.Run)
	if app := f.Order.Step.Application; app != "" { // a step of people's may be about all of the run
		err = errors.Join(err, vault.CheckName(app))
	}
	if err != nil {
		return f, fmt.Errorf("read order: %w", err)
	}
	switch f.Order.Action {
	case failover.Look, failover.Act, failover.Undo:
		return f, nil
	default:
		return f, fmt.Errorf("read order: this davit does not know the action %q", f.Order.Action)
	}
}

func parseAnswer(data []byte) (execute.Answer, error) {
	var f answerFile
	if err := json.Unmarshal(data, &f); err != nil {
		return f.Answer, fmt.Errorf("read answer: %w: %w", vault.ErrDamaged, err)
	}
	if f.FormatVersion != formatVersion {
		return f.Answer, fmt.Errorf("read answer: it has format %d, this davit knows %d", f.FormatVersion, formatVersion)
	}
	return f.Answer, nil
}

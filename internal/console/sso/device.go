package sso

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/entry"
)

// ErrNoDevices says that the provider has no device flow.
var ErrNoDevices = errors.New("the login provider has no logins for command lines (device flow): use a local account, or a robot's token")

// ErrPending says that the person has not answered yet.
var ErrPending = errors.New("not yet")

// Prompt is what a person at a command line is told to do.
type Prompt struct {
	Handle string // secret: whoever has it gets the session
	URL    string
	Code   string
	Ends   time.Time
}

// mostDevices bounds the logins at command lines under way: each asks the provider
// every few seconds.
const mostDevices = 50

// mostOfOne bounds those from one place: nobody takes all of them alone.
const mostOfOne = 5

// device is a login at a command line that is under way.
type device struct {
	from string
	ends time.Time
	done chan struct{} // closed when it is decided
	id   entry.Vouched
	err  error
}

// BeginDevice begins a login at a command line. from is the place that it comes from.
func (p *Provider) BeginDevice(ctx context.Context, from string) (Prompt, error) {
	found, err := p.discover(ctx)
	if err != nil {
		return Prompt{}, err
	}
	config := p.oauth(found)
	if config.Endpoint.DeviceAuthURL == "" {
		return Prompt{}, ErrNoDevices
	}
	handle, _, err := account.NewSession()
	if err != nil {
		return Prompt{}, err
	}
	d := &device{from: from, done: make(chan struct{}), ends: p.now().Add(underway)}
	if err := p.admit(handle, d); err != nil {
		return Prompt{}, err
	}
	said, err := config.DeviceAuth(oidc.ClientContext(ctx, p.http))
	if err != nil {
		p.drop(handle)
		return Prompt{}, exchange(err)
	}
	limit := underway
	if until := time.Until(said.Expiry); !said.Expiry.IsZero() && until < limit {
		limit = until
	}
	p.mu.Lock()
	err = p.start(func(ctx context.Context) {
		defer close(d.done)
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		d.id, d.err = p.follow(ctx, found, config, said)
	})
	p.mu.Unlock()
	if err != nil {
		p.drop(handle)
		return Prompt{}, err
	}
	return Prompt{Handle: handle, URL: said.VerificationURI, Code: said.UserCode, Ends: p.now().Add(limit)}, nil
}

// follow asks the provider, as often as it wants, whether the person has answered.
func (p *Provider) follow(ctx context.Context, found *oidc.Provider, config *oauth2.Config, said *oauth2.DeviceAuthResponse) (entry.Vouched, error) {
	token, err := config.DeviceAccessToken(oidc.ClientContext(ctx, p.http), said)
	if err != nil {
		return entry.Vouched{}, exchange(err)
	}
	return p.vouched(ctx, found, token, "")
}

func (p *Provider) admit(handle string, d *device) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tidy()
	same := 0
	for _, other := range p.devices {
		if other.from == d.from {
			same++
		}
	}
	if len(p.devices) >= mostDevices || same >= mostOfOne {
		return ErrTooMany
	}
	p.devices[key(handle)] = d
	return nil
}

func (p *Provider) drop(handle string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.devices, key(handle))
}

func key(handle string) string { return hex.EncodeToString(account.HashToken(handle)) }

// FinishDevice waits for the person's answer while ctx lasts: ErrPending says that
// there is none yet. An answer is given once.
func (p *Provider) FinishDevice(ctx context.Context, handle string) (entry.Vouched, error) {
	p.mu.Lock()
	d := p.devices[key(handle)]
	p.mu.Unlock()
	if d == nil {
		return entry.Vouched{}, fmt.Errorf("%w: it is over", ErrRefused)
	}
	select {
	case <-d.done:
	case <-ctx.Done():
		return entry.Vouched{}, ErrPending
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.devices[key(handle)] != d {
		return entry.Vouched{}, fmt.Errorf("%w: it is over", ErrRefused)
	}
	delete(p.devices, key(handle))
	return d.id, d.err
}

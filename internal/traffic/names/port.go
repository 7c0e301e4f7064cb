package names

import (
	"context"
	"errors"
	"time"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/traffic"
)

// Server is what keeps a name: a name server, or the API of a service.
type Server interface {
	// Name is what people know it by.
	Name() string
	// Read asks where a name leads, and for its guard.
	Read(ctx context.Context, zone, name string) (traffic.Seen, error)
	// Swap replaces where the name leads, and its guard, if both are still as
	// they were read; else ErrChanged. After any other error that is not a
	// *RefusedError it may have happened.
	Swap(ctx context.Context, m traffic.Move, seen traffic.Seen, values []string, guard traffic.Guard) error
	// MayUpdate asks whether a Swap would be allowed, and changes nothing.
	MayUpdate(ctx context.Context, zone, name string) error
}

// Kept is a server of a record; one that is only watched is asked, and not told.
type Kept struct {
	Server
	Watch bool
}

// Service is all that keeps one record.
type Service struct {
	Servers []Kept
	// Guard is how well a Swap keeps off what has aged.
	Guard execute.Guard
	// Again is how long to wait between questions, where more would be refused;
	// zero: the usual.
	Again time.Duration
}

// Open finds what keeps a record, with the keys for it.
type Open func(ctx context.Context, r *plan.Record) (*Service, error)

// ErrChanged says that the name or its guard is no longer as it was read.
var ErrChanged = errors.New("the record was changed in between")

// RefusedError says that a server will not do it, however often it is asked.
type RefusedError struct {
	Server string
	What   string
	Do     string
}

// Error implements error.
func (e *RefusedError) Error() string { return e.Server + " " + e.What + ": " + e.Do }

// Package tree stores directory trees in a kopia repository and restores them,
// exactly: it walks them in one goroutine and moves their files in several,
// and keeps beside kopia's directories what those cannot hold. It opens no
// repository and commits nothing; package volume does.
package tree

import (
	"context"
	"errors"
	"fmt"
	"syscall"
)

// Errors that callers may decide on with errors.Is.
var (
	// ErrNoSpace says that the target has no room left.
	ErrNoSpace = errors.New("no space left on the target")
	// ErrDamaged says that stored data does not match what was written.
	ErrDamaged = errors.New("volume data damaged")
)

// IssueKind says what happened to one entry of a tree.
type IssueKind string

// What can happen to an entry.
const (
	// Unreadable entries are missing from the snapshot and count as errors.
	Unreadable IssueKind = "unreadable"
	// Vanished entries were listed and gone when opened: a live tree's
	// normal life, and a warning.
	Vanished IssueKind = "vanished"
	// Changed entries were modified while being read: a warning, and never
	// seen in a tree that was cut.
	Changed IssueKind = "changed"
	// Skipped entries are of a kind that is not kept: a warning.
	Skipped IssueKind = "skipped"
)

// Issue is something a person should know about one entry of a tree.
type Issue struct {
	Kind IssueKind
	Path string // relative to the root, slash-separated, bytes as in the file system
	Err  error  // the cause; nil where Kind says it all
}

// String is the issue for people.
func (i Issue) String() string {
	if i.Err == nil {
		return fmt.Sprintf("%s %q", i.Kind, i.Path)
	}
	return fmt.Sprintf("%s %q: %v", i.Kind, i.Path, i.Err)
}

// Pace waits until so many bytes of a volume may be read or written. Nil is no bound.
type Pace func(ctx context.Context, bytes int) error

func (p Pace) wait(ctx context.Context, bytes int) error {
	if p == nil {
		return nil
	}
	if err := p(ctx, bytes); err != nil {
		return fmt.Errorf("wait for the bound on the disk: %w", err)
	}
	return nil
}

// NoSpace marks errors of a full disk or quota as ErrNoSpace.
func NoSpace(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}

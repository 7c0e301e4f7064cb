package quiescer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"k8s.io/client-go/tools/remotecommand"

	"davit.dev/davit/internal/quiesce"
)

// maxLine bounds how much of a line is looked at for the marker.
const maxLine = 4 << 10

// session is a command that runs with its input open.
type session struct {
	marker, ask string
	in          *input
	out         output
	ended       chan struct{}
	err         error // how it ended; to be read once ended is closed

	mu    sync.Mutex
	line  []byte
	heard int // markers
	news  chan struct{}
}

// Hold implements quiesce.Runner.
func (r *Runner) Hold(ctx context.Context, t quiesce.Target, h quiesce.Hold) (quiesce.Session, error) {
	if _, err := r.same(ctx, t); err != nil {
		return nil, err
	}
	h = h.WithDefaults()
	return open(ctx, h, func(ctx context.Context, in io.Reader, out, stderr io.Writer) error {
		return r.stream(ctx, t, h.Command, remotecommand.StreamOptions{Stdin: in, Stdout: out, Stderr: stderr})
	}), nil
}

// open starts the command.
func open(ctx context.Context, h quiesce.Hold, run func(ctx context.Context, in io.Reader, out, stderr io.Writer) error) *session {
	s := &session{marker: h.Marker, ask: h.Ask, in: newInput(), ended: make(chan struct{}), news: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(ctx)
	context.AfterFunc(ctx, s.in.close)
	go func() {
		defer close(s.ended)
		defer cancel()
		err := run(ctx, s.in, (*listener)(s), &s.out)
		if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("the hold's limit of %s was over", h.Limit)
		}
		s.err = said(err, h.Command, &s.out)
	}()
	return s
}

// listener hears what the command prints.
type listener session

// Write implements io.Writer.
func (l *listener) Write(p []byte) (int, error) {
	_, _ = l.out.Write(p)
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.heard
	for _, b := range p {
		switch {
		case b == '\n':
			if strings.TrimSpace(string(l.line)) == l.marker {
				l.heard++
			}
			l.line = l.line[:0]
		case len(l.line) < maxLine:
			l.line = append(l.line, b)
		}
	}
	if l.heard > before {
		select {
		case l.news <- struct{}{}:
		default:
		}
	}
	return len(p), nil
}

func (s *session) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heard
}

// wait waits for the marker to be heard so many times.
func (s *session) wait(ctx context.Context, times int) error {
	for s.count() < times {
		select {
		case <-s.news:
		case <-s.ended:
			return s.end()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	select {
	case <-s.ended:
		return s.end()
	default:
		return nil
	}
}

// end says how it ended.
func (s *session) end() error {
	if s.err == nil {
		return errors.New("the command ended by itself")
	}
	return fmt.Errorf("the session ended: %w", s.err)
}

// Held implements quiesce.Session.
func (s *session) Held(ctx context.Context) error { return s.wait(ctx, 1) }

// Ask implements quiesce.Session.
func (s *session) Ask(ctx context.Context) error {
	if n := s.count(); n != 1 {
		return fmt.Errorf("the command said %q %d times before it was asked", s.marker, n)
	}
	s.in.send(s.ask + "\n")
	err := s.wait(ctx, 2)
	if ctx.Err() != nil && err != nil {
		return errors.New("the command did not answer")
	}
	return err
}

// Close implements quiesce.Session.
func (s *session) Close(ctx context.Context) error {
	s.in.close()
	select {
	case <-s.ended:
		return s.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Output implements quiesce.Session.
func (s *session) Output() string { return s.out.String() }

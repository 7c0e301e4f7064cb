package driver

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestPace(t *testing.T) {
	p := newPace()
	short := map[string]string{paceKey: "1ms"}
	leave, err := p.enter(t.Context(), short)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.enter(ctx, short); !errors.Is(err, context.Canceled) {
		t.Errorf("two were let through at once: %v", err)
	}
	if free, err := p.enter(ctx, nil); err != nil {
		t.Errorf("a class without a pace waits: %v", err)
	} else {
		free()
	}
	leave()
	if _, err := p.enter(ctx, map[string]string{paceKey: "10s"}); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody ended its wait: %v", err)
	}
	if leave, err = p.enter(t.Context(), short); err != nil {
		t.Fatalf("what was called off keeps its place: %v", err)
	}
	leave()
	if _, err := p.enter(t.Context(), map[string]string{fullKey: "true"}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("storage without room answered %v", err)
	}
	for _, bad := range []string{"", "soon", "-1s", "0s", "11s"} {
		if _, err := p.enter(t.Context(), map[string]string{paceKey: bad}); err == nil {
			t.Errorf("pace %q was taken", bad)
		}
	}
}

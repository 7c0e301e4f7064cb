package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"sigs.k8s.io/yaml"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/console/client"
)

// followEvery is how often it is looked for something new.
const followEvery = 2 * time.Second

// follow prints what look finds, again and again, until it is interrupted. A console
// that does not answer is asked again.
func follow[T any](ctx context.Context, h Host, look func(ctx context.Context) ([]T, error), line func(T) string) error {
	h.Progress().Done()
	silent := false
	for {
		all, err := look(ctx)
		switch {
		case errors.Is(context.Cause(ctx), exit.ErrInterrupted):
			return exit.Quietly(exit.OK) // that is how following ends
		case err != nil && ctx.Err() == nil && passing(err):
			if !silent {
				fmt.Fprintf(h.Err, "warning: %v; asking again\n", err)
			}
			silent = true
		case err != nil:
			return h.Explain(err)
		default:
			silent = false
		}
		for _, one := range all {
			if err := h.say(one, line(one)); err != nil {
				return err
			}
		}
		if len(all) > 0 { // there may be more
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(followEvery):
		}
	}
}

// passing tells whether it may be otherwise in a moment.
func passing(err error) bool {
	if errors.Is(err, client.ErrTrust) {
		return false
	}
	var said *client.Error
	if errors.As(err, &said) {
		return said.Code >= http.StatusInternalServerError || said.Code == http.StatusTooManyRequests
	}
	return errors.Is(err, client.ErrUnreachable)
}

// say prints one thing: for scripts as a line or document of its own.
func (h Host) say(one any, line string) error {
	text := []byte(line + "\n")
	var err error
	switch h.Format() {
	case output.JSON:
		if text, err = json.Marshal(one); err == nil {
			text = append(text, '\n')
		}
	case output.YAML:
		if text, err = yaml.Marshal(one); err == nil {
			text = append([]byte("---\n"), text...)
		}
	}
	if err == nil {
		_, err = h.Out.Write(text)
	}
	if err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}

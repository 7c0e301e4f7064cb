package console

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"davit.dev/davit/internal/uplink/beacon"
)

// What agents cannot read is said again as long as it is so, and not at every try.
func TestInsistGoesOnWarning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		begin, tries := time.Now(), 0
		insist(t.Context(), slog.New(slog.NewTextHandler(&said, nil)), func() error {
			if tries++; time.Since(begin) > 10*time.Minute {
				return nil
			}
			return beacon.ErrForged
		})
		warned := strings.Count(said.String(), beacon.ErrForged.Error())
		if warned < 9 || warned > 11 || tries <= warned {
			t.Errorf("%d warnings and %d tries in ten minutes", warned, tries)
		}
	})
}

// The control: what was said is said once, and of no fault.
func TestInsistEndsWhenItWasSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		tries := 0
		insist(t.Context(), slog.New(slog.NewTextHandler(&said, nil)), func() error {
			if tries++; tries == 1 {
				return errors.New("the vault is away")
			}
			return nil
		})
		if tries != 2 || strings.Count(said.String(), "the vault is away") != 1 {
			t.Errorf("%d tries: %s", tries, said.String())
		}
	})
}

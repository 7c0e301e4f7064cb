package node

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestTheBoundIsOfAllVolumesTogether, in the bubble's time.
func TestTheBoundIsOfAllVolumesTogether(t *testing.T) {
	const perSecond, seconds, volumes = 2 << 20, 30, 3
	for text, bounded := range map[string]bool{"2Mi": true, "": false} {
		synctest.Test(t, func(t *testing.T) {
			pace, err := paceOf(text)
			if err != nil || (pace != nil) != bounded {
				t.Fatalf("%q: bounded %v, %v", text, pace != nil, err)
			}
			if pace == nil {
				return
			}
			begun := time.Now()
			var all sync.WaitGroup
			for range volumes {
				all.Go(func() {
					for range seconds {
						if err := pace(t.Context(), perSecond); err != nil {
							t.Error(err)
						}
					}
				})
			}
			all.Wait()
			least := time.Duration(volumes*seconds)*time.Second - time.Second // what passes at once
			if took := time.Since(begun); took < least || took > least+time.Second {
				t.Errorf("%d volumes took %s, want %s", volumes, took, least)
			}
		})
	}
}

func TestABoundThatIsNone(t *testing.T) {
	for _, text := range []string{"fast", "0", "-1Mi", "63Ki"} {
		if _, err := paceOf(text); err == nil {
			t.Errorf("%q: accepted", text)
		}
	}
	pace, err := paceOf("64Ki")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := pace(ctx, 1<<30); err == nil {
		t.Error("it does not end with its task")
	}
}

package ahead

import (
	"bytes"
	"sync"
	"testing"
)

// TestPartsAreHeldWhileRead: memory that is used again never shows up in what
// another reader gets of the part that had it before.
func TestPartsAreHeldWhileRead(t *testing.T) {
	const size = 1 << 16
	var a Parts
	var readers sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				var out bytes.Buffer
				held, err := a.Section("p", 0, size, &out)
				if err != nil {
					t.Error(err)
				}
				if got := out.Bytes(); held && (len(got) != size || !bytes.Equal(got, bytes.Repeat(got[:1], size))) {
					t.Error("a reader got bytes of two parts")
				}
			}
		})
	}
	p := &part{data: make([]byte, size)}
	for i := range 500 {
		for j := range p.data {
			p.data[j] = byte(i)
		}
		a.hold("p", p)
		a.release("p", p)
	}
	close(stop)
	readers.Wait()
}

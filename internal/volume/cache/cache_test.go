package cache

import (
	"fmt"
	"testing"

	"github.com/kopia/kopia/repo/blob"
)

func TestDiskIsBounded(t *testing.T) {
	c, err := Open(t.TempDir(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		c.Put(blob.ID(fmt.Sprint("q", i)), make([]byte, 300))
	}
	if c.size > 1000 || c.Get("q0") != nil || len(c.Get("q9")) != 300 || c.Get("p1") != nil {
		t.Errorf("cache of %d bytes holds %v", c.size, c.files)
	}
}

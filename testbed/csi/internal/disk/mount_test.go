package disk

import (
	"slices"
	"strings"
	"testing"
)

func TestParseMounts(t *testing.T) {
	table := `36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 - ext4 /dev/loop3 rw,errors=continue
37 35 0:5 /loop7 /pods/x/dev rw - devtmpfs devtmpfs rw
bad line
`
	got, err := parseMounts(strings.NewReader(table))
	if err != nil {
		t.Fatal(err)
	}
	want := []Mount{
		{Root: "/mnt1", Target: "/mnt 2", FSType: "ext4", Source: "/dev/loop3"},
		{Root: "/loop7", Target: "/pods/x/dev", FSType: "devtmpfs", Source: "devtmpfs"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("parseMounts() = %v, want %v", got, want)
	}
	if !got[1].bindsNode("/dev/loop7") || got[1].bindsNode("/dev/loop70") || got[0].bindsNode("/dev/loop3") {
		t.Error("bindsNode() confuses devices")
	}
}

package mount

import "testing"

func TestParseMounts(t *testing.T) {
	got := parse("36 35 98:0 / /mnt/a\\040b rw,noatime shared:1 - ext4 /dev/loop3 rw\n\n37 36 0:5 / /proc rw - proc proc rw\n")
	want := []Mount{{"/mnt/a b", "ext4", "/dev/loop3"}, {"/proc", "proc", "proc"}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %v", got)
	}
}

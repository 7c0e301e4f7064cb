package host

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

func none(int) bool { return false }

func TestAllocateIsStableAndSkipsWhatIsUsed(t *testing.T) {
	var r Record
	a := must(r.Allocate("dev/east", none))(t)
	b := must(r.Allocate("dev/west", func(n int) bool { return n == firstIndex+1 }))(t)
	if a.Index != firstIndex || b.Index != firstIndex+2 {
		t.Errorf("got %d and %d", a.Index, b.Index)
	}
	// An address in use by the bed itself must not move the bed.
	if again := must(r.Allocate("dev/east", func(int) bool { return true }))(t); again != a {
		t.Errorf("moved from %v to %v", a, again)
	}
}

func TestAllocateSaysWhoHoldsWhat(t *testing.T) {
	var r Record
	for n := firstIndex; n <= lastIndex; n++ {
		must(r.Allocate(fmt.Sprintf("dev/s%d", n), none))(t)
	}
	_, err := r.Allocate("dev/more", none)
	if err == nil || !strings.Contains(err.Error(), "bed down") || !strings.Contains(err.Error(), "dev/s11") {
		t.Errorf("got %v", err)
	}
	delete(r.Subnets, "dev/s40")
	if got := must(r.Allocate("dev/more", none))(t); got.Index != 40 {
		t.Errorf("got %d, want the freed 40", got.Index)
	}
}

func TestSubnetsDoNotOverlap(t *testing.T) {
	var all []*net.IPNet
	for n := firstIndex; n <= lastIndex; n++ {
		s := Subnet{n}
		for _, cidr := range []string{s.Address() + "/24", s.PodCIDR(), s.ServiceCIDR()} {
			_, network, err := net.ParseCIDR(cidr)
			check(t, err)
			for _, other := range all {
				if other.Contains(network.IP) || network.Contains(other.IP) {
					t.Fatalf("%s overlaps %s", network, other)
				}
			}
			all = append(all, network)
		}
		if len(s.Veth()) > 15 {
			t.Errorf("%s is too long for an interface", s.Veth())
		}
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		check(t, err)
		return v
	}
}

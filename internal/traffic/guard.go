package traffic

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Guard is what stands beside a name that plans move, as docs/formats/dns-guard.md
// has it.
type Guard struct {
	Site     string
	Run      string
	Sequence int64
	Epochs   map[string]int64
	Was      []string
}

const guardFormat = "davit1"

// Strings are the guard as strings of a TXT record. What could not be read
// again is not written: the name would stay where it is for ever.
func (g Guard) Strings() ([]string, error) {
	if g.Run == "" || g.Sequence < 1 {
		return nil, fmt.Errorf("write guard: run %q, number %d: both are needed", g.Run, g.Sequence)
	}
	out := []string{guardFormat, "site=" + g.Site, "run=" + g.Run, "seq=" + strconv.FormatInt(g.Sequence, 10)}
	for _, app := range slices.Sorted(maps.Keys(g.Epochs)) {
		out = append(out, "epoch."+app+"="+strconv.FormatInt(g.Epochs[app], 10))
	}
	for _, v := range g.Was {
		out = append(out, "was="+v)
	}
	for _, s := range out {
		if len(s) > 255 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) {
			return nil, fmt.Errorf("write guard: %q does not fit into a TXT record: use a shorter name of plain letters", s)
		}
	}
	return out, nil
}

// ParseGuard reads the strings of a TXT record.
func ParseGuard(all []string) (*Guard, error) {
	if len(all) == 0 || all[0] != guardFormat {
		return nil, fmt.Errorf("read guard: %q is not Davit's: remove the TXT record if nothing needs it", strings.Join(all, " "))
	}
	g := &Guard{Epochs: map[string]int64{}}
	seen := map[string]bool{}
	for _, s := range all[1:] {
		i := strings.LastIndexByte(s, '=')
		if i < 0 {
			return nil, fmt.Errorf("read guard: %q is not key=value", s)
		}
		key, value := s[:i], s[i+1:]
		if seen[key] && key != "was" {
			return nil, fmt.Errorf("read guard: %s is there twice", key)
		}
		seen[key] = true
		if err := g.set(key, value); err != nil {
			return nil, err
		}
	}
	if !seen["site"] || g.Run == "" || g.Sequence == 0 {
		return nil, fmt.Errorf("read guard: site, run or seq is missing")
	}
	slices.Sort(g.Was)
	return g, nil
}

func (g *Guard) set(key, value string) error {
	app, isEpoch := strings.CutPrefix(key, "epoch.")
	switch {
	case key == "site":
		g.Site = value
	case key == "run":
		g.Run = value
	case key == "was":
		g.Was = append(g.Was, value)
	case key == "seq", isEpoch && app != "":
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n < 1 {
			return fmt.Errorf("read guard: %s is not a positive number: %q", key, value)
		}
		if isEpoch {
			g.Epochs[app] = n
		} else {
			g.Sequence = n
		}
	default:
		return fmt.Errorf("read guard: %q is not known: use a newer davit", key)
	}
	return nil
}

// newer is the first application of which the guard knows a newer epoch.
func (g *Guard) newer(epochs map[string]int64) (string, int64) {
	if g == nil {
		return "", 0
	}
	for _, app := range slices.Sorted(maps.Keys(epochs)) {
		if g.Epochs[app] > epochs[app] {
			return app, g.Epochs[app]
		}
	}
	return "", 0
}

// shows tells whether the guard has all of some epochs.
func (g *Guard) shows(epochs map[string]int64) bool {
	for app, n := range epochs {
		if g.Epochs[app] != n {
			return false
		}
	}
	return true
}

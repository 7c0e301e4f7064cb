package output

import (
	"fmt"
	"strings"
	"time"
	"unicode"
)

// Duration writes a duration for people with at most two units: "850ms",
// "4.2s", "3m20s", "5h12m", "9d4h". Negative ones keep their sign.
func Duration(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + Duration(-d)
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < 10*time.Second:
		return trimZero(fmt.Sprintf("%.1f", d.Seconds())) + "s"
	case d < time.Hour:
		return twoUnits(d.Round(time.Second), time.Minute, "m", time.Second, "s")
	case d < 24*time.Hour:
		return twoUnits(d.Round(time.Minute), time.Hour, "h", time.Minute, "m")
	default:
		return twoUnits(d.Round(time.Hour), 24*time.Hour, "d", time.Hour, "h")
	}
}

func trimZero(s string) string { return strings.TrimSuffix(s, ".0") }

func twoUnits(d, big time.Duration, bigName string, small time.Duration, smallName string) string {
	n, rest := d/big, (d%big)/small
	switch {
	case n == 0:
		return fmt.Sprintf("%d%s", rest, smallName)
	case rest == 0:
		return fmt.Sprintf("%d%s", n, bigName)
	default:
		return fmt.Sprintf("%d%s%d%s", n, bigName, rest, smallName)
	}
}

// Age is how long ago t was: "" for the zero time, "now" within a second, and
// "in 5s" for the future, as clocks differ.
func Age(t, now time.Time) string {
	age := now.Sub(t)
	switch {
	case t.IsZero():
		return ""
	case age <= -time.Second:
		return "in " + Duration((-age).Truncate(time.Second))
	case age < time.Second:
		return "now"
	default:
		return Duration(age.Truncate(time.Second))
	}
}

// Ago is an age as it stands in a sentence: "5s ago", and what Age says where that says
// no past.
func Ago(t, now time.Time) string {
	age := Age(t, now)
	if age == "" || age == "now" || strings.HasPrefix(age, "in ") {
		return age
	}
	return age + " ago"
}

// Time writes an instant in UTC, or "" for the zero time.
func Time(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

// Bytes writes a size in binary units: "512 B", "1.4 GiB".
func Bytes(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, names := float64(n)/unit, "KMGTPE"
	i := 0
	for value >= 1023.95 && i < len(names)-1 {
		value /= unit
		i++
	}
	return fmt.Sprintf("%s %ciB", trimZero(fmt.Sprintf("%.1f", value)), names[i])
}

// Plural counts things: "1 object", "3 objects". The plural ends in s unless
// it is given.
func Plural(n int64, one string, many ...string) string {
	name := one
	if n != 1 {
		name = one + "s"
		if len(many) > 0 {
			name = many[0]
		}
	}
	return fmt.Sprintf("%d %s", n, name)
}

// OneLine makes a text one line, and leaves nothing of it out but what a terminal would
// obey: notes and messages come from sites, and from programs there.
func OneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && !unicode.IsSpace(r) {
			return -1
		}
		return r
	}, s)
	return strings.Join(strings.Fields(s), " ")
}

// Short cuts a text to one line of at most n runes.
func Short(s string, n int) string {
	s = OneLine(s)
	if runes := []rune(s); len(runes) > n {
		return string(runes[:n-1]) + "…"
	}
	return s
}

package ui

import (
	"net/url"
	"strconv"
	"strings"
)

// What a page shows of a list that may have thousands: a page with several such lists
// has no more than 100 KiB. Cards and rows with evidence are larger than others, and
// tasks and runs under way stand above what else is looked for.
const (
	mostRows  = 50
	mostCards = 20
	mostTasks = 12
)

// span is the part of a list that a page shows. The list has its own place in the
// address, so that others stay where they are.
type span struct {
	List         string // its name in the address, and the id of its heading
	From, To, Of int    // From to To of Of; the first is 1
	// First and the others are addresses of other parts; empty: there is none.
	First, Before, After, Last string
}

// Several tells whether there is more than is shown.
func (s span) Several() bool { return s.To-s.From+1 < s.Of }

// cut is the part of a list that the address asks for, of so many at the most, and notes
// it for the page. A number that is too high is the last part: what it led to may be gone.
func cut[T any](v *visit, list string, most int, all []T) []T {
	last := max(1, (len(all)+most-1)/most)
	at, err := strconv.Atoi(v.r.URL.Query().Get(list))
	if err != nil {
		at = 1
	}
	at = min(max(1, at), last)
	from, to := (at-1)*most, min(at*most, len(all))
	s := span{List: list, From: from + 1, To: to, Of: len(all)}
	if at > 1 {
		s.First, s.Before = v.part(list, 1), v.part(list, at-1)
	}
	if at < last {
		s.After, s.Last = v.part(list, at+1), v.part(list, last)
	}
	if v.page.Spans == nil {
		v.page.Spans = map[string]span{}
	}
	v.page.Spans[list] = s
	return all[from:to]
}

// part is the address of this page with another part of a list: what was searched for,
// and how it is sorted, stay.
func (v *visit) part(list string, n int) string {
	q := v.r.URL.Query()
	q.Set(list, strconv.Itoa(n))
	return v.home + "?" + q.Encode() + "#" + list
}

// again is the address of this page with something else in place of one value.
func (v *visit) again(key, value string) string {
	q := url.Values{}
	for name, values := range v.r.URL.Query() {
		q[name] = values
	}
	q.Set(key, value)
	return "?" + q.Encode()
}

// finds tells whether one of some texts contains what is looked for, whatever its case.
func finds(query string, texts ...string) bool {
	return strings.Contains(strings.ToLower(strings.Join(texts, " ")), strings.ToLower(query))
}

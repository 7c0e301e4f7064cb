package ui

import (
	"context"
	"time"

	"davit.dev/davit/internal/journal"
)

// hearing is how long a page waits for what steps said: the rest of it needs no vault, and
// is wanted when that is silent.
const hearing = 3 * time.Second

// said is what the program of a step said, try by try.
type said struct {
	Step  string
	Tries []journal.Words
}

// said is what the steps of a run said; fault is why that cannot be told now: the rest of
// the page is worth showing.
func (v *visit) said(run string) (all []said, fault string) {
	ctx, cancel := context.WithTimeout(v.ctx(), hearing)
	defer cancel()
	words, err := v.Steer.Said(ctx, v.who, v.project, run, "")
	if err != nil {
		return nil, err.Error()
	}
	return bySteps(words), ""
}

// bySteps are words by step, in the order in which the steps spoke first.
func bySteps(words []journal.Words) (all []said) {
	at := map[string]int{}
	for _, w := range words {
		i, known := at[w.Step]
		if !known {
			i = len(all)
			at[w.Step] = i
			all = append(all, said{Step: w.Step})
		}
		all[i].Tries = append(all[i].Tries, w)
	}
	return all
}

package foresight

import (
	"context"
	"time"

	"davit.dev/davit/internal/declare"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/plan/document"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/shelf"
	"davit.dev/davit/internal/vantage"
)

// voices has a plan that is declared automatically be judged by who has spoken in the vault.
func (k *Known) voices(ctx context.Context, in *preflight.Input) {
	p := in.Plan
	if !p.Declaration.Automatic {
		return
	}
	in.Agree = declare.New(in.From, declare.Rule{Vantages: p.Declaration.Vantages, Agree: p.Declaration.Agree}).Need()
	all := map[string]preflight.Voice{}
	for _, name := range speakers(p) {
		v, known := k.heard[name]
		if !known {
			word, bad, err := vantage.Last(ctx, k.Project, name)
			if err != nil { // what is not known is said to be so
				return
			}
			v = preflight.Voice{Spoke: word != nil || bad != nil}
			if word != nil {
				v.At, v.Site = word.At, word.Cluster != ""
			}
			if bad != nil {
				v.Err = bad.Error()
			}
			k.heard[name] = v
		}
		all[name] = v
	}
	in.Voices, in.Early = all, k.early(ctx, p.Name)
}

// settled is how long a plan has to be in the vault until all who count on its account speak.
const settled = 5 * time.Minute

// early tells whether nobody need have spoken yet on a plan's account: agents are silent until
// a plan is in the vault that is declared automatically.
func (k *Known) early(ctx context.Context, name string) bool {
	sheet, err := shelf.New(k.Project).Get(ctx, name)
	if err != nil {
		return true
	}
	kept, err := document.Parse(sheet.Document)
	return err != nil || !kept.Declaration.Automatic || k.At.Sub(sheet.At) < settled
}

// speakers are those whose words decide: the plan's sites and vantage points.
func speakers(p *plan.Plan) []string {
	all := append([]string{}, p.Declaration.Vantages...)
	for _, s := range p.Sites {
		all = append(all, s.Name)
	}
	return all
}

package declare

// LetDecide lets fewer decide than more than half: for negative controls.
func (d *Decider) LetDecide(n int) { d.need = n }

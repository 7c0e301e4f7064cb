package agents

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"

	"davit.dev/davit/internal/uplink"
)

// specsOf is under which name it is kept what objects of a site say that the console did
// not make. It comes again from the agent, and is for when that is lost.
const specsOf = "agent.specs/"

// spoken is what one object says.
type spoken struct {
	uplink.Key
	Spec json.RawMessage `json:"spec"`
}

// specs are what was kept of a site.
func specs(data []byte) (map[uplink.Key]json.RawMessage, error) {
	if len(data) == 0 {
		return nil, nil //nolint:nilnil // there are none
	}
	var all []spoken
	err := json.Unmarshal(data, &all)
	says := make(map[uplink.Key]json.RawMessage, len(all))
	for _, one := range all {
		says[one.Key] = one.Spec
	}
	return says, err
}

// mirrored are the specs of a site, to be kept; none: there are none any more.
func (r *room) mirrored(site string) ([]byte, error) {
	r.mu.Lock()
	var says map[uplink.Key]json.RawMessage
	if p := r.agents[site]; p != nil {
		says = p.specs
	}
	r.mu.Unlock()
	if len(says) == 0 {
		return nil, nil
	}
	all := make([]spoken, 0, len(says))
	for k, spec := range says {
		all = append(all, spoken{k, spec})
	}
	return json.Marshal(all)
}

// checkSpec refuses what no agent says of an object.
func checkSpec(o uplink.Object) error {
	switch {
	case len(o.Spec) == 0:
		return nil
	case o.Kind != "Application" && o.Kind != "ProtectionPolicy" && o.Kind != "RecoveryPlan":
		return fmt.Errorf("%w: the spec of a %.64s is told", uplink.ErrFrame, o.Kind)
	case len(o.Spec) > uplink.MaxSpec || o.Spec[0] != '{':
		return fmt.Errorf("%w: what %.64s %.253s says is no object, or longer than %d bytes", uplink.ErrFrame, o.Kind, o.Name, uplink.MaxSpec)
	}
	return nil
}

// mirror puts what objects say in the place of what they said. The room's mu is held.
func (p *present) mirror(t *talk, says map[uplink.Key]json.RawMessage) error {
	size := 0
	for _, spec := range says {
		size += len(spec)
	}
	if size > uplink.MaxSpecs {
		return fmt.Errorf("%w: what objects say has more than %d bytes", uplink.ErrFrame, uplink.MaxSpecs)
	}
	if maps.EqualFunc(p.specs, says, func(a, b json.RawMessage) bool { return bytes.Equal(a, b) }) {
		return nil
	}
	p.specs, t.mirrored = says, true
	return nil
}

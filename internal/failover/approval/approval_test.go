package approval

import (
	"testing"

	"davit.dev/davit/internal/plan"
)

// What people agree to is counted so that no name is taken for a second person
// that may be the first one's: those of the realm in which the run was asked for
// count, and of the other one fewer than there are.
func TestPeopleAreCounted(t *testing.T) {
	const ann, bob, cas, robot = "ann@console/shop", "bob@console/shop", "cas@console/shop", "dan/ci@console/shop"
	for _, test := range []struct {
		asker  string
		agreed []string
		users  []string
		want   int
	}{
		{ann, nil, nil, 0},
		{ann, []string{bob}, nil, 1},
		{ann, []string{"kubernetes-admin"}, nil, 0}, // ann, maybe
		{ann, []string{"kubernetes-admin", "ops"}, nil, 1},
		{ann, []string{bob, "kubernetes-admin", "ops"}, nil, 1},
		{ann, []string{bob, cas, "ops"}, nil, 2},
		{"kubernetes-admin", []string{bob}, nil, 0},
		{"kubernetes-admin", []string{bob, cas}, nil, 1},
		{"kubernetes-admin", []string{"ops"}, nil, 1},
		{"kubernetes-admin", []string{"ops", bob}, nil, 1},
		{"davit: the plan's schedule", []string{bob}, nil, 1}, // nobody's name
		{"davit: the plan's schedule", []string{bob, "ops"}, nil, 1},
		{"declared automatically by west, witness", []string{"ops"}, nil, 1},
		{ann, []string{robot}, nil, 0},
		{ann, []string{robot}, []string{robot}, 1},
		{ann, []string{robot, bob}, []string{robot}, 1}, // bob is not named
	} {
		var agreed []Agreement
		for _, by := range test.agreed {
			agreed = append(agreed, Agreement{By: by})
		}
		if have, _ := people(test.asker, plan.Approval{Count: 1, Users: test.users}, agreed); have != test.want {
			t.Errorf("%s asked, %v agreed: %d people, want %d", test.asker, test.agreed, have, test.want)
		}
	}
}

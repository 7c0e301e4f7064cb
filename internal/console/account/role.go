// Package account is who may use the console: passwords and one-time codes of
// people, tokens of robots, roles and what they permit, and the limits on
// trying. It keeps nothing; package store does. Time is an argument.
package account

import (
	"fmt"
	"slices"
	"strings"
)

// Permission is one thing that may be done in a project.
type Permission string

// The permissions.
const (
	Read    Permission = "read"    // the fleet, recovery points, runs, documents
	Protect Permission = "protect" // applications and policies
	Recover Permission = "recover" // plans and restores
	Audit   Permission = "audit"   // the audit log
	Manage  Permission = "manage"  // members and tokens
)

// Permissions are all there are.
func Permissions() []Permission { return []Permission{Read, Protect, Recover, Audit, Manage} }

// ParsePermission reads a permission by its name.
func ParsePermission(name string) (Permission, error) {
	if slices.Contains(Permissions(), Permission(name)) {
		return Permission(name), nil
	}
	return "", fmt.Errorf("there is no permission %q, only %s", name, join(Permissions()))
}

// Role is what a person is in a project.
type Role string

// The roles, from the least to the most.
const (
	Viewer    Role = "viewer"
	Operator  Role = "operator"
	Recoverer Role = "recoverer"
	Admin     Role = "admin"
)

// Roles are all there are.
func Roles() []Role { return []Role{Viewer, Operator, Recoverer, Admin} }

var permits = map[Role][]Permission{
	Viewer:    {Read},
	Operator:  {Read, Protect},
	Recoverer: {Read, Protect, Recover, Audit},
	Admin:     {Read, Protect, Recover, Audit, Manage},
}

// Permissions are what the role permits; an unknown role permits nothing.
func (r Role) Permissions() []Permission { return slices.Clone(permits[r]) }

// May tells whether the role permits something.
func (r Role) May(p Permission) bool { return slices.Contains(permits[r], p) }

// ParseRole reads a role by its name.
func ParseRole(name string) (Role, error) {
	if _, ok := permits[Role(name)]; ok {
		return Role(name), nil
	}
	return "", fmt.Errorf("there is no role %q, only %s", name, join(Roles()))
}

func join[T ~string](all []T) string {
	names := make([]string, 0, len(all))
	for _, one := range all {
		names = append(names, string(one))
	}
	return strings.Join(names, ", ")
}

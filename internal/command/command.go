// Package command knows what davit's commands are called, and finds them in texts for
// people: whoever writes a text quotes a command as `points shop`, and whoever shows it
// puts in front what the reader types, davit or kubectl davit.
package command

import (
	"slices"
	"strings"
)

// Program is what the binary is called.
const Program = "davit"

// names are the commands of the first level that people type.
var names = []string{
	"agents", "apply", "audit", "backup", "completion", "console", "coverage", "delete", "describe", "diff", "drill", "enrol", "events", "exit-codes",
	"failback", "failover", "fleet", "get", "help", "images", "install", "login", "logout", "logs", "members", "pause", "placements", "plan", "points",
	"profiles", "projects", "protect", "quota", "readiness", "restore", "restore-test", "restores", "resume", "runs", "status", "support-bundle", "switchover", "tokens",
	"uninstall", "unprotect", "users", "vault", "verify", "version", "watch", "whoami", "witness",
}

// Is tells whether a word is a command of davit.
func Is(word string) bool {
	_, found := slices.BinarySearch(names, word)
	return found
}

// Named puts a program's name in front of the commands that a text quotes, once:
// `points shop` and `davit points shop` become `kubectl davit points shop`.
func Named(program, text string) string {
	if !strings.Contains(text, "`") {
		return text
	}
	parts := strings.Split(text, "`")
	for i := 1; i < len(parts)-1; i += 2 {
		bare := strings.TrimPrefix(parts[i], Program+" ")
		if word, _, _ := strings.Cut(bare, " "); Is(word) {
			parts[i] = program + " " + bare
		}
	}
	return strings.Join(parts, "`")
}

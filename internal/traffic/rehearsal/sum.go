package rehearsal

import (
	"errors"
	"fmt"
	"strings"

	"davit.dev/davit/internal/preflight"
)

// Sum is what the servers said in one line; an error names the first that would
// not take an update.
func Sum(all []preflight.Name) (string, error) {
	var told []string
	for _, n := range all {
		if n.Err != "" {
			text := fmt.Sprintf("%s at %s: %s", n.Object, n.Server, n.Err)
			if n.Do != "" {
				text += ": " + n.Do
			}
			return "", errors.New(text)
		}
		did := "would take the update"
		if n.Watched {
			did = "answers"
		}
		told = append(told, n.Server+" "+did)
	}
	if len(told) == 0 {
		return "", errors.New("it has no server")
	}
	return strings.Join(told, ", "), nil
}

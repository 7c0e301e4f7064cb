package volume

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/kopia/kopia/repo/format"

	"davit.dev/davit/internal/volume/volumetest"
)

// TestKeyDerivation makes and opens a repository at the real cost.
func TestKeyDerivation(t *testing.T) {
	volumetest.SetRounds(volumetest.Rounds)
	defer volumetest.CheapKeys()
	s := newTestStore()
	openTest(t, s)
	var blob struct {
		Algorithm string `json:"keyAlgo"`
	}
	if err := json.Unmarshal(s.object(testPrefix+format.KopiaRepositoryBlobID), &blob); err != nil || blob.Algorithm != "pbkdf2-sha256-600000" {
		t.Errorf("made with %q, %v", blob.Algorithm, err)
	}
	volumetest.CheapKeys()
	_, err := Open(t.Context(), Options{Store: s, Prefix: testPrefix, Password: testPassword, Site: "east"})
	if !errors.Is(err, ErrPassword) {
		t.Errorf("opened with a key of one round: %v", err)
	}
}

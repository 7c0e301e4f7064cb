package protection

import (
	"os"
	"testing"

	"davit.dev/davit/internal/volume/volumetest"
)

func TestMain(m *testing.M) {
	volumetest.CheapKeys()
	os.Exit(m.Run())
}

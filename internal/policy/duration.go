package policy

import (
	"fmt"
	"regexp"
	"time"
)

// gep2257 is the form of a Gateway API duration.
var gep2257 = regexp.MustCompile(`^([0-9]{1,5}(h|m|s|ms)){1,4}$`)

// DurationHint is what to write where ParseDuration refuses.
const DurationHint = "write 30s, 1m30s or 500ms"

// ParseDuration reads a Gateway API duration (GEP-2257): "1h30m", never a bare number.
func ParseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || !gep2257.MatchString(s) {
		return 0, fmt.Errorf("%q is not a duration", s)
	}
	return d, nil
}

package gatehouse

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// owned checks which installation a Service belongs to.
func owned(release string) func(*corev1.Service) error {
	return func(s *corev1.Service) error {
		if got := s.Labels["gatehouse.dev/installation"]; got != release {
			return fmt.Errorf("Service %s belongs to installation %q, want %q", s.Name, got, release)
		}
		return nil
	}
}

//go:build !race

package edgetest_test

const raceEnabled = false

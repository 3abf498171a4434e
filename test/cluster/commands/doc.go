// Package commands holds the commands of gatehouse that look into a cluster, as an operator runs them: before an installation, after it,
// and when something is wrong.
package commands

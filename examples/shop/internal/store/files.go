//go:build !postgres

package store

// Postgres reports whether this build can open a PostgreSQL database: the build tag postgres decides.
const Postgres = false

//go:build postgres

package store

import _ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"

// Postgres reports whether this build can open a PostgreSQL database: the build tag postgres decides.
const Postgres = true

// Sql calls a database through a pipeline. Rows live on the context of their query, so they come out of DoHeld, which keeps that
// context and the bulkhead's permit until release; Do refuses them.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"time"

	_ "modernc.org/sqlite"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("shown: rows read after their call returned, one permit held until they were closed, and a refusal of rows that would have died.")
}

func run(ctx context.Context) error {
	db, err := sql.Open("sqlite", "file::memory:?cache=shared")
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, "CREATE TABLE tea (name TEXT); INSERT INTO tea VALUES ('assam'), ('darjeeling'), ('oolong')"); err != nil {
		return err
	}
	limit := bulkhead.New(bulkhead.Config{Name: "tea", Limit: 1})
	pipeline := backstay.Chain(retry.New(retry.Config{}), limit, timeout.New(time.Second))

	tries := 0
	rows, release, err := backstay.DoHeld(ctx, pipeline, func(ctx context.Context) (*sql.Rows, error) {
		if tries++; tries == 1 {
			return nil, errors.New("the first try fails")
		}
		return db.QueryContext(ctx, "SELECT name FROM tea ORDER BY name")
	}, func(r *sql.Rows) { r.Close() })
	if err != nil {
		return err
	}
	defer release()

	query := func(ctx context.Context) (int, error) { return 0, db.PingContext(ctx) }
	_, busy := backstay.Do(ctx, pipeline, query)
	fmt.Printf("while the rows are open: %v\n", busy)
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return err
		}
		fmt.Println("  ", name)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	release()
	_, err = backstay.Do(ctx, pipeline, query)
	fmt.Printf("after release: error %v, %d permits in use\n", err, limit.Snapshot().InUse)

	_, refused := backstay.Do(ctx, pipeline, func(ctx context.Context) (*sql.Rows, error) { return db.QueryContext(ctx, "SELECT 1") })
	fmt.Printf("Do with rows: %v\n", refused)
	if !errors.Is(busy, bulkhead.ErrFull) || err != nil || !errors.Is(refused, backstay.ErrNeedsHeld) {
		return errors.New("something did not behave as described")
	}
	return nil
}

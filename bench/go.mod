module github.com/backstay-go/backstay/bench

go 1.26.0

require (
	github.com/backstay-go/backstay v0.0.0
	github.com/cenkalti/backoff/v5 v5.0.3
	github.com/failsafe-go/failsafe-go v0.9.8
	github.com/hashicorp/go-retryablehttp v0.7.8
	github.com/jackc/pgx/v5 v5.12.0
	github.com/sony/gobreaker/v2 v2.4.0
	golang.org/x/sync v0.23.0
	golang.org/x/time v0.16.0
)

require (
	github.com/hashicorp/go-cleanhttp v0.5.2 // indirect
	github.com/influxdata/tdigest v0.0.1 // indirect
	github.com/jackc/pgpassfile v1.0.0 // indirect
	github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761 // indirect
	github.com/jackc/puddle/v2 v2.2.3 // indirect
	golang.org/x/text v0.41.0 // indirect
)

require (
	github.com/backstay-go/backstay/saga/sagapgx v0.0.0
	github.com/bits-and-blooms/bitset v1.24.4 // indirect
	github.com/cenkalti/backoff/v4 v4.3.0
)

replace github.com/backstay-go/backstay => ..

replace github.com/backstay-go/backstay/grpcclient => ../grpcclient

replace github.com/backstay-go/backstay/saga/sagapgx => ../saga/sagapgx

replace github.com/backstay-go/backstay/outbox/outboxpgx => ../outbox/outboxpgx

replace github.com/backstay-go/backstay/outbox/natspub => ../outbox/natspub

replace github.com/backstay-go/backstay/outbox/kafkapub => ../outbox/kafkapub

replace github.com/backstay-go/backstay/outbox/amqppub => ../outbox/amqppub

replace github.com/backstay-go/backstay/outbox/redispub => ../outbox/redispub

replace github.com/backstay-go/backstay/outbox/watermillpub => ../outbox/watermillpub

module github.com/backstay-go/backstay/bench

go 1.26.0

require (
	github.com/backstay-go/backstay v0.0.0
	github.com/failsafe-go/failsafe-go v0.9.8
	github.com/sony/gobreaker/v2 v2.4.0
	golang.org/x/sync v0.23.0
)

require (
	github.com/bits-and-blooms/bitset v1.24.4 // indirect
	github.com/cenkalti/backoff/v4 v4.3.0 // indirect
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

module github.com/backstay-go/backstay/integration

go 1.26.0

require github.com/backstay-go/backstay v0.0.0

replace github.com/backstay-go/backstay => ..
replace github.com/backstay-go/backstay/grpcclient => ../grpcclient
replace github.com/backstay-go/backstay/saga/sagapgx => ../saga/sagapgx
replace github.com/backstay-go/backstay/outbox/outboxpgx => ../outbox/outboxpgx
replace github.com/backstay-go/backstay/outbox/natspub => ../outbox/natspub
replace github.com/backstay-go/backstay/outbox/kafkapub => ../outbox/kafkapub
replace github.com/backstay-go/backstay/outbox/amqppub => ../outbox/amqppub
replace github.com/backstay-go/backstay/outbox/redispub => ../outbox/redispub
replace github.com/backstay-go/backstay/outbox/watermillpub => ../outbox/watermillpub
